"""Run as a process of its own by the tests that kill and race real processes."""

from __future__ import annotations

import json
import sys
import time

from apex_llm.keys import ApiKeyManager


def count(home: str, key: str, start: str) -> None:
    """Write 1, 2, 3 … for ever; say which number was acknowledged."""
    manager = ApiKeyManager(home, master_key=key)
    number = int(start)
    while True:
        number += 1
        manager.set_api_key("counter", str(number))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


def many(home: str, key: str, name: str, times: str) -> None:
    """Write distinct names; report what each write took."""
    manager = ApiKeyManager(home, master_key=key)
    took: list[float] = []
    for number in range(int(times)):
        began = time.perf_counter()
        manager.set_api_key(f"{name}-{number}", f"value-{name}-{number}")
        took.append(time.perf_counter() - began)
    json.dump(took, sys.stdout)


def read(home: str, key: str, total: str) -> None:
    """Read until every key is there; generations must never go back, and no key that was seen may go."""
    manager = ApiKeyManager(home, master_key=key)
    seen = generation = reads = 0
    deadline = time.monotonic() + 600
    while seen < int(total) and time.monotonic() < deadline:
        services = manager.list_configured_services()["api_keys"]
        now = manager.generation
        assert len(services) >= seen, (len(services), seen)
        assert now >= generation, (now, generation)
        seen, generation, reads = len(services), now, reads + 1
        time.sleep(0.005)
    json.dump({"seen": seen, "reads": reads}, sys.stdout)


if __name__ == "__main__":
    {"count": count, "many": many, "read": read}[sys.argv[1]](*sys.argv[2:])
