"""The comparison with other clients runs, and what README and page quote is what its results say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apex_llm.emulator import FAULTS
from benchmarks.harness import ROOT
from benchmarks.peers.cases import CASES, GOOD_TEXT, PlayedCase
from benchmarks.peers.report import PAGE, judge, page, with_summary
from benchmarks.peers_under_faults import CLIENTS, RESULTS, play


@pytest.mark.parametrize(
    ("name", "damaged"), [("apex_llm/bedrock", "bad-message-crc"), ("apex_llm/azure", "exception-mid-stream")]
)
def test_our_own_client_plays_its_part(name: str, damaged: str) -> None:
    cases = [case for case in CASES if case.group == "stream" and case.name in {"nothing", "half-stream", damaged}]
    cases += [case for case in CASES if case.group == "whole" and case.name == "redirect"]

    played = play(name, cases)

    kinds = {(group, case): seen["kind"] for group, found in played["seen"].items() for case, seen in found.items()}
    assert kinds == {
        ("stream", "nothing"): "answer",
        ("stream", "half-stream"): "own",
        ("stream", damaged): "own",
        ("whole", "redirect"): "own",
    }


_STREAM = PlayedCase("stream", FAULTS["stall"])


@pytest.mark.parametrize(
    ("caller", "kind"),
    [
        ({"text": GOOD_TEXT, "reason": "stop"}, "answer"),
        ({"text": GOOD_TEXT[:-1], "reason": "stop"}, "wrong"),
        ({"text": "", "reason": None}, "wrong"),
        ({"text": f"{GOOD_TEXT}!", "reason": "stop"}, "altered"),
        ({"text": "The", "error": "ReadTimeoutError", "modules": ["botocore.exceptions", "builtins"]}, "own"),
        ({"text": "The", "error": "ReadTimeoutError", "modules": ["urllib3.exceptions", "builtins"]}, "foreign"),
        ({"text": "", "error": "KeyError", "modules": ["builtins"], "given": True}, "wrong"),
        ({"text": "The", "error": "ReadTimeoutError", "modules": ["botocore.x"], "seconds": 7.0}, "hangs"),
        ({"hangs": True}, "hangs"),
    ],
)
def test_what_a_caller_saw_is_judged(caller: dict[str, Any], kind: str) -> None:
    assert judge("boto3/bedrock", _STREAM, {"seconds": 0.1, "mebibytes": 0, **caller}, [])["kind"] == kind


def test_page_and_readme_say_what_the_results_say() -> None:
    """A figure that nobody measured must not stand there."""
    results = json.loads(RESULTS.read_text("utf-8"))
    readme = (ROOT / "README.md").read_text("utf-8")

    assert PAGE.read_text("utf-8") == page(results), "run scripts/peers-under-faults --pages-only"
    assert with_summary(readme, results) == readme, "run scripts/peers-under-faults --pages-only"


def test_the_results_hold_every_fault_for_every_client_that_was_there() -> None:
    clients = json.loads(RESULTS.read_text("utf-8"))["clients"]

    assert set(clients) == set(CLIENTS)
    for name, client in clients.items():
        if "missing" not in client:
            wanted = {(case.group, case.name) for case in CASES if case.strikes(name.partition("/")[2])}
            assert {(group, case) for group, found in client["seen"].items() for case in found} == wanted
