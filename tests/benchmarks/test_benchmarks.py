"""The benchmarks run, and what they compare is the same work: nothing here looks at a clock."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import bench_cold_start, bench_event_loop, bench_import, clients, page
from benchmarks.harness import Case, Host, Plan, spawn
from benchmarks.limit import Signer
from benchmarks.payloads import BEDROCK_BODY, TEXT
from benchmarks.report import BARS, bars_table, conditions, figures_table, lists_table
from benchmarks.runner import BENCHMARKS, read_results, run, write_results

_TINY = Plan(seconds=0.001, most=4, pieces=5, paced="paced-3x1", streams=4, trickle="paced-4x2", starts=1)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environ["AWS_EC2_METADATA_DISABLED"] = "true"
    server = spawn(["-m", "benchmarks.wire_server"], environ=environ)
    assert server.stdout is not None
    yield Host(int(server.stdout.readline()), environ)
    server.terminate()
    server.communicate()


def _comparable() -> list[Case]:
    return [case for case in clients.cases("bedrock", "azure") if not case.variant.startswith("httpx")]


@pytest.mark.parametrize("case", _comparable(), ids=lambda case: f"{case.wire}, {case.variant}")
def test_every_client_reads_the_same_answer_and_the_same_stream(case: Case, host: Host) -> None:
    """Other people's decoders vouch for the server's bytes, checksums included."""
    if case.needs is not None:
        pytest.importorskip(case.needs)

    async def main() -> tuple[Any, list[Any], list[Any]]:
        client = clients.make(case.wire, case.variant, port=host.port)
        try:
            if client.blocking:
                return (
                    client.call("bench.call"),
                    list(client.texts("bench.burst-40")),
                    list(client.texts("bench.burst-16")),
                )
            burst = [text async for text in client.texts("bench.burst-40")]
            paced = [text async for text in client.texts("bench.paced-16x1")]
            return await client.call("bench.call"), burst, paced
        finally:
            if client.blocking:
                client.close()
            else:
                await client.close()

    answer, burst, paced = asyncio.run(main())

    assert answer == TEXT
    assert burst == [f" word{number:04d}" for number in range(40)]
    assert paced == burst[:16]


@pytest.mark.parametrize("case", [case for case in clients.cases("bedrock", "azure") if case.variant == "httpx"])
def test_bytes_alone_are_all_bytes(case: Case, host: Host) -> None:
    async def main() -> bytes:
        client = clients.make(case.wire, case.variant, port=host.port)
        try:
            return b"".join([block async for block in client.texts("bench.burst-40")])
        finally:
            await client.close()

    assert asyncio.run(main()).count(b" word00") == 40


@pytest.mark.parametrize("name", ["call", "chunk", "first_chunk"])
@pytest.mark.parametrize("variant", ["apex_llm", "limit"])
@pytest.mark.parametrize("wire", ["bedrock", "azure"])
def test_a_case_gives_every_figure_that_its_benchmark_promises(name: str, variant: str, wire: str, host: Host) -> None:
    module = importlib.import_module(f"benchmarks.bench_{name}")

    figures = module.measure_here(Case(wire, variant), _TINY, host.port)

    assert set(figures) == {metric for metric in module.BENCHMARK.metrics if metric.startswith(wire)}
    assert all(entry["value"] > 0 for entry in figures.values())


def test_processes_are_measured_from_outside(host: Host) -> None:
    imported = bench_import.BENCHMARK.measure(Case("", "apex_llm"), _TINY, host)
    started = bench_cold_start.BENCHMARK.measure(Case("", "apex_llm"), _TINY, host)

    assert imported["import"]["cpu"] > 0
    assert started["cold"]["value"] > 0
    assert bench_import.heavy_modules(host) == []


def test_the_heartbeat_is_watched_beside_streams_in_a_process_of_its_own(host: Host) -> None:
    figures = bench_event_loop.BENCHMARK.measure(Case("", "streams"), _TINY, host)

    assert figures["gap"]["units"] > 0
    assert figures["gap"]["value"] >= figures["gap"]["p99"] > 0


def test_the_floor_signs_as_botocore_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A floor that did less than the job would be too low."""
    auth = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    path = "/model/bench.call/converse"
    signer = Signer(clients.ACCESS_KEY_ID, clients.SECRET_ACCESS_KEY, region="us-east-1", host="127.0.0.1:8080")
    date, authorization = signer.sign(path, BEDROCK_BODY)
    oracle = auth.SigV4Auth(Credentials(clients.ACCESS_KEY_ID, clients.SECRET_ACCESS_KEY), "bedrock", "us-east-1")
    monkeypatch.setattr(oracle, "_modify_request_before_signing", lambda request: None)
    request = AWSRequest(method="POST", url=f"http://127.0.0.1:8080{path}", data=BEDROCK_BODY)
    request.headers["Host"] = "127.0.0.1:8080"
    request.headers["X-Amz-Date"] = date
    request.context["timestamp"] = date
    canonical = oracle.canonical_request(request)
    signature = oracle.signature(oracle.string_to_sign(request, canonical), request)

    assert authorization.endswith(f"Signature={signature}")


# What is made of the figures.


def _result(name: str, figures: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    benchmark = importlib.import_module(f"benchmarks.bench_{name}").BENCHMARK
    return {
        "benchmark": name,
        "question": benchmark.question,
        "unit": benchmark.unit,
        "metrics": dict(benchmark.metrics),
        "date": "2026-11-22",
        "command": "scripts/bench",
        "rounds": 3,
        "machine": {
            "python": "CPython 3.11.7",
            "system": "Linux",
            "architecture": "x86_64",
            "processor": "",
            "cores": 2,
            "pinned": True,
            "load_before": 0.1,
        },
        "versions": {"httpx": "0.28.1", "openai": None},
        "figures": {
            metric: {
                variant: [{"value": value, "cpu": value, "server_busy": 0.25} for value in values]
                for variant, values in row.items()
            }
            for metric, row in figures.items()
        },
    }


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_round_does_not_move_it() -> None:
    figures = {"bedrock_hundred": {"apex_llm": [10.0, 40.0, 11.0], "aiobotocore": [50.0, 200.0, 55.0]}}
    results = {"call": _result("call", figures)}

    assert "| Bedrock, 100 at a time | **11.0** | 55.0 (5.0x) |" in figures_table(results)
    assert "| CPU per call, 100 at a time: times cheaper than aiobotocore | ≥ 6 | 5.00 | **missed by 20%** |" in (
        bars_table(results)
    )
    assert "busy for at most 25%" in conditions(results)


def test_a_bar_in_milliseconds_is_met_or_missed_by_its_median() -> None:
    row = {"streams, refresh, import": [20.0, 60.0, 75.0]}
    results = {"event_loop": _result("event_loop", {"gap": row})}

    assert "| ≤ 50 | 60.0 | **missed by 20%** |" in bars_table(results)
    assert "| streams, refresh, import | 60.0 |" in lists_table(results)


def test_every_bar_is_about_something_that_is_measured() -> None:
    for bar in BARS:
        benchmark = importlib.import_module(f"benchmarks.bench_{bar.benchmark}").BENCHMARK
        assert bar.metric in benchmark.metrics
        variants = {case.variant for case in benchmark.cases if not case.wire or bar.metric.startswith(f"{case.wire}_")}
        assert {bar.variant, bar.against or bar.variant} <= variants


def test_results_are_read_back_as_they_were_written(tmp_path: Any) -> None:
    results = {"call": _result("call", {"bedrock_one": {"apex_llm": [1.0, 2.0]}})}

    write_results(results, tmp_path)

    assert read_results(tmp_path) == results
    assert '{"value": 1.0' in (tmp_path / "call.json").read_text("utf-8").replace("{ ", "{")


def test_the_runner_takes_rounds_and_leaves_out_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.harness import Benchmark

    def measure(case: Case, plan: Plan, host: Host) -> dict[str, dict[str, float]]:
        if case.variant == "boto3":
            raise RuntimeError("Traceback\nit broke")
        return {"bedrock_one": {"value": 1.0}}

    cases = (Case("bedrock", "apex_llm"), Case("bedrock", "boto3"), Case("bedrock", "absent", "no_such_package"))
    benchmark = Benchmark("call", "A question", "µs", {"bedrock_one": "One"}, cases, measure)
    monkeypatch.setattr("benchmarks.runner._load", lambda name: benchmark)

    results, problems = run(["call"], plan=_TINY, rounds=2, command="scripts/bench call")

    assert results["call"]["figures"] == {"bedrock_one": {"apex_llm": [{"value": 1.0}, {"value": 1.0}]}}
    assert problems == ["call, bedrock boto3: it broke"]


def test_the_page_shows_the_results_that_are_kept() -> None:
    """``python -m benchmarks.page`` mends it."""
    results = read_results()
    text = page.PAGE.read_text("utf-8")

    assert set(results) == set(BENCHMARKS)
    assert page.rewritten(text, results) == text
    assert text.count("<!-- /") == 4
    assert text.count("\n|---|") == 3
