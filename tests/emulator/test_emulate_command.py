"""``apex-llm emulate`` as its users meet it: a process."""

import os
import re
import signal
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest

from apex_llm.cli.application import run

COMMAND = [sys.executable, "-c", "from apex_llm.cli import main; main()"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_serves_prints_its_environment_and_stops_on_a_signal(number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [*COMMAND, "emulate", "--port", "0", "--deployment", "mine=gpt-4o", "--print-environment"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stderr is not None
        announced = process.stderr.readline()
        url = re.search(r"http://\S+?(?=\.? )", announced)
        assert url is not None, announced
        request = Request(
            f"{url[0].rstrip('.')}/openai/deployments?api-version=2023-03-15-preview",
            headers={"api-key": "emulator-api-key"},
        )
        with urlopen(request, timeout=10) as response:
            listing = response.read()
    finally:
        process.send_signal(number)
        out, err = process.communicate(timeout=20)

    assert b'"id":"mine"' in listing
    assert "export AZURE_OPENAI_ENDPOINT=http://127.0.0.1:" in out
    assert "unset AWS_BEARER_TOKEN_BEDROCK" in out
    assert "Traceback" not in err
    assert process.returncode == code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["emulate", "--help"], 0),
        (["emulate", "--port", "many"], 2),
        (["emulate", "--deployment", "nothing"], 2),
        (["nothing"], 2),
        (["emulate", "--host", "0.0.0.0"], 1),
    ],
)
def test_exit_codes_tell_what_happened(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == code

    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert (printed.out if code == 0 else printed.err).strip()


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import apex_llm.cli

    monkeypatch.setattr(apex_llm.cli, "find_spec", lambda name: None)

    with pytest.raises(SystemExit) as caught:
        apex_llm.cli.main()

    assert caught.value.code == 1
    assert "pip install 'apex-llm[cli]'" in capsys.readouterr().err
