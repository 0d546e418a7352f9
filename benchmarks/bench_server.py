"""Is the server fast enough? The highest rate that is asked of it, by a client that only empties its sockets.

5,000 connections are opened first; then each asks for fifty pieces, 20 ms apart: 250,000 a second, each a write of its
own. What the server takes for a piece, the share of the time it was busy and how late it sent are its own account
(``/cpu``). A client that needs more for a piece than the server does is not held back by it.
"""

from __future__ import annotations

__all__ = ["BENCHMARK", "measure_here"]

import selectors
import socket
import time

from benchmarks.harness import Benchmark, Case, Figures, Host, Plan, in_child
from benchmarks.load import server_told

_NAMES = ("thousand", "five_thousand")
_READ_BYTES = 64 * 1024


def measure_here(case: Case, plan: Plan, host: Host) -> Figures:
    """In the child: microseconds of CPU of the server for a piece."""
    pieces = int(plan.slow_mode.partition("-")[2].partition("x")[0])
    request = f"POST /model/bench.{plan.slow_mode}/converse-stream HTTP/1.1\r\ncontent-length: 0\r\n\r\n".encode()
    return {
        name: _drain(host.port, request, count=count, pieces=pieces)
        for name, count in zip(_NAMES, plan.slow, strict=False)
    }


def _drain(port: int, request: bytes, *, count: int, pieces: int) -> dict[str, float]:
    selector = selectors.DefaultSelector()
    connections: list[socket.socket] = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
        connections.append(connection)
    began_cpu, _ = server_told(port)
    began = time.perf_counter()
    for connection in connections:
        connection.send(request)
    left = count
    while left:
        for key, _ in selector.select():
            ready: socket.socket = key.fileobj  # type: ignore[assignment]
            if ready.recv(_READ_BYTES).endswith(b"\r\n0\r\n\r\n"):
                selector.unregister(ready)
                left -= 1
    wall = time.perf_counter() - began
    ended_cpu, late = server_told(port)
    for connection in connections:
        connection.close()
    return {
        "value": round((ended_cpu - began_cpu) / (count * pieces) * 1e6, 3),
        "per_second": round(count * pieces / wall),
        "wall": round(wall, 3),
        "busy": round((ended_cpu - began_cpu) / wall, 3),
        "late_p99": round(late * 1000, 1),
        "units": count * pieces,
    }


def _measure(case: Case, plan: Plan, host: Host) -> Figures:
    return in_child(__name__, case, plan, host)


BENCHMARK = Benchmark(
    name="server",
    question="CPU time of the server for one paced piece",
    unit="µs",
    metrics={"thousand": "1,000 streams, 50,000 pieces a second", "five_thousand": "5,000 streams, 250,000 a second"},
    cases=(Case("", "server"),),
    measure=_measure,
)
