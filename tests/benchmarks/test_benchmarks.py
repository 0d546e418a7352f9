"""The benchmarks run, and what they compare is the same work: nothing here looks at a clock."""

from __future__ import annotations

import asyncio
import importlib
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import (
    bench_cold_start,
    bench_components,
    bench_event_loop,
    bench_growth,
    bench_import,
    bench_server,
    bench_slow_streams,
    bench_tls,
    clients,
    page,
)
from benchmarks.bars import BARS, WHY, bars_table
from benchmarks.harness import Case, Host, Plan, running
from benchmarks.limit import Signer
from benchmarks.payloads import BEDROCK_BODY, TEXT, long_text
from benchmarks.plot import drawn
from benchmarks.report import clients_table, conditions, details, processes_table
from benchmarks.runner import BENCHMARKS, read_results, run, write_results

_TINY = Plan(
    seconds=0.001,
    most=4,
    pieces=5,
    paced="paced-5x1",
    streams=4,
    trickle="paced-4x2",
    starts=1,
    slow=(8, 16),
    slow_mode="paced-5x4",
    slow_seconds=20.0,
    lengths=(10, 100),
    widths=(2, 8),
    tidy=False,
)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with running() as host:
        yield host


_COMPARABLE = ("apex_llm", "apex_llm.sync", "limit", *clients.PEERS)
_BYTES_ALONE = ("bare", "aiohttp", "httpx", "httpx2")


def _importable(case: Case) -> None:
    """Here it is this interpreter that must have it, not an environment of its own."""
    if case.needs is not None:
        pytest.importorskip(case.needs)


@pytest.mark.parametrize(
    "case", clients.cases("bedrock", "azure", only=_COMPARABLE), ids=lambda case: f"{case.wire}, {case.variant}"
)
def test_every_client_reads_the_same_answer_and_the_same_stream(case: Case, host: Host) -> None:
    """Other people's decoders vouch for the server's bytes, checksums included."""
    _importable(case)

    async def main() -> tuple[Any, list[Any], list[Any]]:
        client = clients.make(case.wire, case.variant, clients.Target(host.port))
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


@pytest.mark.parametrize(
    "case", clients.cases("bedrock", "azure", only=_BYTES_ALONE), ids=lambda case: f"{case.wire}, {case.variant}"
)
def test_bytes_alone_are_all_bytes(case: Case, host: Host) -> None:
    _importable(case)

    async def main() -> bytes:
        client = clients.make(case.wire, case.variant, clients.Target(host.port))
        try:
            return b"".join([block async for block in client.texts("bench.burst-40")])
        finally:
            await client.close()

    assert asyncio.run(main()).count(b" word00") == 40


@pytest.mark.parametrize("name", ["call", "chunk", "paced", "first_chunk", "growth", "sync", "large_json"])
@pytest.mark.parametrize(("wire", "variant"), [("bedrock", "apex_llm"), ("azure", "limit")])
def test_a_case_gives_every_figure_that_its_benchmark_promises(name: str, variant: str, wire: str, host: Host) -> None:
    module = importlib.import_module(f"benchmarks.bench_{name}")

    figures = module.measure_here(Case(wire, variant), _TINY, host)

    assert set(figures) == {metric for metric in module.BENCHMARK.metrics if metric.startswith(wire)}
    if name != "growth":  # over so little an exponent says nothing
        assert all(entry["value"] > 0 for entry in figures.values())


def test_a_client_that_blocks_is_measured_by_the_same_questions(host: Host) -> None:
    for name in ("sync", "paced", "growth"):
        module = importlib.import_module(f"benchmarks.bench_{name}")

        assert module.measure_here(Case("bedrock", "apex_llm.sync"), _TINY, host)


def test_a_bare_connection_is_woken_for_its_pieces(host: Host) -> None:
    module = importlib.import_module("benchmarks.bench_paced")

    figures = module.measure_here(Case("bedrock", "bare"), _TINY, host)

    assert 0 < figures["bedrock_paced"]["reads_per_piece"] <= 1.5


def test_calls_and_streams_go_over_tls_to_an_authority_made_for_the_run(host: Host) -> None:
    figures = bench_tls.BENCHMARK.measure(Case("bedrock", "apex_llm"), _TINY, host)

    assert set(figures) == {"bedrock_call", "bedrock_piece"}


def test_without_that_authority_nobody_is_trusted(host: Host) -> None:
    """Else it would not be TLS that is measured."""
    with pytest.raises(RuntimeError, match=r"certificate|CERTIFICATE"):
        bench_tls.in_child(bench_tls.__name__, Case("bedrock", "limit"), _TINY, host)


def test_slow_streams_are_timed_one_number_after_the_other(host: Host) -> None:
    figures = bench_slow_streams.BENCHMARK.measure(Case("bedrock", "apex_llm"), _TINY, host)

    assert [figures[metric]["ended"] for metric in ("bedrock_thousand", "bedrock_five_thousand")] == [8, 16]
    for entry in figures.values():
        assert entry["value"] >= 5 * 0.004
        assert entry["late_p99"] >= entry["late_p50"] > 0


def test_who_does_not_get_through_in_time_is_given_up_and_not_tried_with_more(host: Host) -> None:
    plan = replace(_TINY, slow_mode="paced-50x100", slow_seconds=0.2)

    figures = bench_slow_streams.BENCHMARK.measure(Case("bedrock", "limit"), plan, host)

    assert figures["bedrock_thousand"]["capped"] == 1
    assert figures["bedrock_five_thousand"] == {"value": 0.2, "capped": 1, "untried": 1}


@pytest.mark.parametrize(("power", "costs"), [(1.0, {10: 1.0, 100: 10.0}), (2.0, {10: 1.0, 100: 100.0, 1000: 10000.0})])
def test_the_exponent_is_the_slope_of_the_logarithms(power: float, costs: dict[int, float]) -> None:
    assert bench_growth._exponent(costs) == power


@pytest.mark.parametrize("case", bench_components.BENCHMARK.cases, ids=lambda case: case.variant)
def test_every_part_is_found_whole_by_everyone(case: Case, host: Host) -> None:
    _importable(case)

    figures = bench_components.measure_here(case, _TINY, host)

    assert figures
    assert set(figures) <= set(bench_components.BENCHMARK.metrics)


def test_the_server_tells_what_it_took(host: Host) -> None:
    figures = bench_server.measure_here(Case("", "server"), _TINY, host)

    assert figures["five_thousand"]["units"] == 16 * 5
    assert figures["five_thousand"]["late_p99"] >= 0


def test_a_long_text_is_as_long_as_it_says() -> None:
    assert 199_990 <= len(long_text(200_000).encode()) <= 200_000


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

    assert "| apex_llm | **11.0** |\n| aiobotocore | 55.0 (5.0x) |" in details(results)
    assert "| ≥ 10 x better than aiobotocore | 5.00 x (11.0 : 55.0 µs) | **missed by 100%** |" in bars_table(results)
    assert "not explained yet" in bars_table(results)
    assert "busy for at most 25%" in conditions(results)


def test_an_import_is_held_to_what_it_takes_more_than_bare_python() -> None:
    results = {"import": _result("import", {"import": {"python": [10.0, 30.0], "apex_llm": [20.0, 40.0]}})}

    assert "| ≤ 40 | 10.0 | met, 75% to spare |" in bars_table(results)
    assert "| apex_llm | 30.0 |" in processes_table(results)


def test_memory_is_held_against_the_peer_that_takes_least() -> None:
    result = _result(
        "slow_streams", {"bedrock_thousand": {name: [1.0] for name in ("apex_llm", "boto3", "aiobotocore")}}
    )
    for variant, memory in (("apex_llm", 30.0), ("boto3", 60.0), ("aiobotocore", 20.0)):
        result["figures"]["bedrock_thousand"][variant][0]["memory_kb"] = memory

    assert "0.67 x (30.0 : aiobotocore 20.0 KB) | **missed by 50%** |" in bars_table({"slow_streams": result})


def test_a_client_that_was_given_up_is_shown_as_such() -> None:
    result = _result("slow_streams", {"bedrock_thousand": {"apex_llm": [1.0], "httpx": [60.0]}})
    result["figures"]["bedrock_thousand"]["httpx"][0] |= {"capped": 1, "ended": 12}

    assert "| httpx | > 60 (given up, 12 had ended) |" in details({"slow_streams": result})
    headlines = clients_table({"slow_streams": result, "call": _result("call", {"bedrock_hundred": {"httpx": [9.0]}})})
    assert "| httpx | 9.00 | > 60.0 |  |" in headlines


def test_every_bar_is_about_something_that_is_measured() -> None:
    for bar in BARS:
        benchmark = importlib.import_module(f"benchmarks.bench_{bar.benchmark}").BENCHMARK
        assert bar.metric in benchmark.metrics
        variants = {case.variant for case in benchmark.cases if not case.wire or bar.metric.startswith(f"{case.wire}_")}
        assert {bar.variant, bar.against or bar.variant} <= {*variants, "any peer"}


def test_only_bars_are_explained() -> None:
    assert set(tomllib.loads(WHY.read_text("utf-8"))) <= {bar.key for bar in BARS}
    assert len({bar.key for bar in BARS}) == len(BARS)


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


def test_a_peer_that_takes_long_or_that_no_bar_names_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.harness import Benchmark

    cases = (Case("bedrock", "apex_llm"), Case("bedrock", "boto3", None, "vendors"), clients.case_of("azure", "httpx"))
    measured = {"bedrock_one": {"value": 1.0}}
    benchmark = Benchmark("call", "A question", "µs", {"bedrock_one": "One"}, cases, lambda *_: measured)
    monkeypatch.setattr("benchmarks.runner._load", lambda name: benchmark)

    for patience, boto3 in ((8.0, 3), (0.0, 1)):
        results, _ = run(["call"], plan=replace(_TINY, patience=patience), rounds=3, command="scripts/bench call")

        asked = {name: len(rounds) for name, rounds in results["call"]["figures"]["bedrock_one"].items()}
        assert asked == {"apex_llm": 3, "boto3": boto3, "httpx": 1}


def test_the_page_shows_the_results_that_are_kept() -> None:
    """``python -m benchmarks.page`` mends it."""
    results = read_results()
    text = page.PAGE.read_text("utf-8")

    assert set(results) == set(BENCHMARKS)
    assert page.rewritten(text, results) == text
    assert page.PLOT.read_text("utf-8") == drawn(results)
    assert text.count("<!-- /") == 5


def test_the_plot_is_the_same_for_the_same_results() -> None:
    ET.fromstring(drawn(read_results()))
    assert drawn(read_results()) == drawn(read_results())
