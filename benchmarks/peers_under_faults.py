"""``python -m benchmarks.peers_under_faults``: the same faults played to other people's clients and to ours.

Every client runs in the interpreter of its own environment (``.venv-peers``, which ``scripts/peers-under-faults``
makes) against an emulator of its own, and each call in a process that is killed when it hangs. What the callers
saw is kept in ``benchmarks/results``; the page and the README quote it and are made from it.
"""

from __future__ import annotations

__all__ = ["CLIENTS", "RESULTS", "main", "play"]

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apex_llm.emulator import Emulator
from benchmarks.harness import ROOT
from benchmarks.peers.cases import CASES, GOOD_TEXT, PlayedCase
from benchmarks.peers.report import judge, rewrite

RESULTS = ROOT / "benchmarks" / "results" / "peers_under_faults.json"
_DRIVER = ROOT / "benchmarks" / "peers" / "driver.py"
_PEERS = ROOT / ".venv-peers"
CLIENTS: Mapping[str, str] = {
    "apex_llm/bedrock": "",
    "boto3/bedrock": "vendors",
    "anthropic/bedrock": "vendors",
    "litellm/bedrock": "litellm",
    "apex_llm/azure": "",
    "openai/azure": "vendors",
    "litellm/azure": "litellm",
}
"""Name to environment; ours is the one that this runs in."""
_FOREIGN = ("AWS_", "AZURE_", "OPENAI_", "ANTHROPIC_", "LITELLM_", "APEX_LLM_", "PYTHON")
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
_TIMEOUT = 3.0
_KILL_AFTER = 8.0
_RETRIES = 2
_SENDS = 6
"""More than any client makes of one call."""


def play(name: str, cases: Sequence[PlayedCase], *, python: str = sys.executable) -> dict[str, Any]:
    """Version of one client, and what its caller saw of each case that there is on its wire, by group and name."""
    wire = name.partition("/")[2]
    seen: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as home,
        Emulator() as emulator,
        subprocess.Popen(
            [python, str(_DRIVER), name],
            cwd=home,
            env=_environment(home, ours=name.startswith("apex_llm/")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as driver,
    ):
        assert driver.stdin is not None
        assert driver.stdout is not None
        try:
            opening = driver.stdout.readline()
            if not opening:
                return {"missing": "its package cannot be imported"}
            for case in cases:
                if case.strikes(wire):
                    _arrange(emulator, case)
                    driver.stdin.write(json.dumps(_given(emulator, case)) + "\n")
                    driver.stdin.flush()
                    caller = json.loads(driver.stdout.readline())
                    outcome = judge(name, case, caller, emulator.requests)
                    seen.setdefault(case.group, {})[case.name] = outcome
        finally:
            driver.kill()
    return {"version": json.loads(opening)["version"], "seen": seen}


def _arrange(emulator: Emulator, case: PlayedCase) -> None:
    """A good answer for the call that warms up, then the fault."""
    emulator.reset()
    emulator.script(GOOD_TEXT)
    once = case.group == "retry" or case.name == "redirect"
    if case.fault is not None:
        emulator.fault(case.fault, GOOD_TEXT, times=1 if once else _SENDS)
    emulator.script(*[GOOD_TEXT] * _SENDS)


def _given(emulator: Emulator, case: PlayedCase) -> dict[str, Any]:
    return {
        "url": emulator.url,
        "region": emulator.region,
        "access_key_id": emulator.access_key_id,
        "secret_access_key": emulator.secret_access_key,
        "api_key": emulator.api_key,
        "api_version": "2024-10-21",
        "call": case.call,
        "retries": _RETRIES if case.group == "retry" else 0,
        "timeout": _TIMEOUT,
        "kill_after": _KILL_AFTER,
    }


def _environment(home: str, *, ours: bool) -> dict[str, str]:
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and name.upper() not in _PROXIES
    }
    # litellm would fetch its table of prices from the network.
    environ |= {"HOME": home, "AWS_EC2_METADATA_DISABLED": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return environ | {"PYTHONPATH": str(ROOT)} if ours else environ


def _interpreter(environment: str) -> str | None:
    if not environment:
        return sys.executable
    path = _PEERS / environment / "bin" / "python"
    return str(path) if path.exists() else None


def _play_installed(name: str) -> dict[str, Any]:
    python = _interpreter(CLIENTS[name])
    return {"missing": "it was not installed"} if python is None else play(name, CASES, python=python)


def main(arguments: list[str] | None = None) -> int:
    """Play everything and rewrite results, page and README; returns 1 if a client does not even answer a good call."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers_under_faults", description=__doc__)
    parser.add_argument("--pages-only", action="store_true", help="make the pages anew from the results that are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to keep the results")
    given = parser.parse_args(arguments)
    if not given.pages_only:
        with ThreadPoolExecutor(max_workers=3) as pool:
            played = dict(zip(CLIENTS, pool.map(_play_installed, CLIENTS), strict=True))
        results = {
            "date": datetime.now(UTC).date().isoformat(),
            "command": "scripts/peers-under-faults",
            "python": platform.python_version(),
            "timeout": _TIMEOUT,
            "kill_after": _KILL_AFTER,
            "clients": played,
        }
        given.results.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    results = json.loads(given.results.read_text("utf-8"))
    if given.results == RESULTS:
        rewrite(results)
    problems = [
        f"{name}, {group}: {seen['nothing']}"
        for name, client in results["clients"].items()
        for group, seen in client.get("seen", {}).items()
        if "nothing" in seen and seen["nothing"]["kind"] != "answer"
    ]
    for problem in problems:
        sys.stderr.write(f"does not work even without a fault: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
