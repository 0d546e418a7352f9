"""How faults are asked for: by name, by value, in advance, without end, by command, as ports."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from apex_llm.emulator import FAULTS, PORT_FAULTS, Answer, Emulator, Fault, FaultCall, FaultConnection, FaultPort
from apex_llm.errors import ApexLlmError, AuthenticationError, ConfigurationError
from apex_llm.sync import AzureOpenAIProvider, BedrockProvider


def point_at(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)


def test_faults_given_in_advance_strike_the_first_calls_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(faults=["close-before-head", "reset-before-head"]) as emulator:
        point_at(emulator, monkeypatch)
        with BedrockProvider(default_model="claude") as provider:
            answer = provider.chat("Hi")

    assert answer.attempts == len(emulator.requests) == 3


def test_a_fault_without_end_gives_way_to_what_is_scripted_and_ends_with_a_reset(emulator: Emulator) -> None:
    emulator.fault("unavailable", times=None)
    emulator.fault("close-before-head", times=None)
    emulator.script("Scripted.")

    with AzureOpenAIProvider(default_deployment="chat", retry=None) as provider:
        assert provider.generate_text("Hi") == "Scripted."
        errors = []
        for _ in range(4):
            with pytest.raises(ApexLlmError) as caught:
                provider.generate_text("Hi")
            errors.append(type(caught.value).__name__)
        assert errors == ["OverloadedError", "ConnectionFailedError"] * 2
        emulator.reset()
        assert provider.generate_text("Hi")


def test_a_fault_that_cannot_strike_leaves_the_good_answer(emulator: Emulator) -> None:
    emulator.fault("bad-message-crc", Answer.text("Good."))

    with AzureOpenAIProvider(default_deployment="chat") as provider:
        assert provider.generate_text("Hi") == "Good."


def test_a_fault_of_ones_own_is_played(emulator: Emulator) -> None:
    async def two_bytes(connection: FaultConnection, call: FaultCall) -> None:
        assert (call.wire, call.streamed) == ("azure", False)
        await connection.respond(b"ok")

    emulator.fault(Fault("two-bytes", 0, "A body that is no JSON.", two_bytes))

    with AzureOpenAIProvider(default_deployment="chat") as provider, pytest.raises(ApexLlmError, match="not JSON"):
        provider.generate_text("Hi")


def test_signatures_are_still_checked_and_a_refused_request_uses_up_no_fault(emulator: Emulator) -> None:
    emulator.fault("close-before-head")
    wrong = {"aws_access_key_id": emulator.access_key_id, "aws_secret_access_key": "wrong"}

    with BedrockProvider(default_model="claude", credentials=wrong) as provider, pytest.raises(AuthenticationError):
        provider.generate_text("Hi")

    assert emulator.waiting_answers == 1


def test_an_unknown_name_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(ConfigurationError, match="truncated-stream"):
        Emulator(faults=["truncated-steam"])
    with pytest.raises(ConfigurationError, match="black-hole"):
        FaultPort("white-hole")


@pytest.mark.parametrize("name", PORT_FAULTS)
def test_a_port_can_be_closed_twice_and_leaves_nothing(name: str) -> None:
    port = FaultPort(name).start()
    number = port.port
    port.close()
    port.close()

    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", number))


def test_every_fault_has_a_name_that_can_be_typed_and_one_sentence() -> None:
    for name, summary in [*PORT_FAULTS.items(), *((fault.name, fault.summary) for fault in FAULTS.values())]:
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert summary.endswith(".")
        assert len(summary) < 100


@pytest.mark.parametrize("fault", ["status-529", "refused"])
def test_the_command_plays_a_fault_to_every_call(fault: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from apex_llm.cli import main; main()", "emulate", "--port", "0", "--fault", fault],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stderr is not None
        url = re.search(r"http://[\d.]+:\d+", process.stderr.readline())
        assert url is not None
        request = urllib.request.Request(
            f"{url[0]}/openai/v1/chat/completions",
            data=b'{"model":"chat","messages":[{"role":"user","content":"Hi"}]}',
            headers={"api-key": "emulator-api-key", "content-type": "application/json"},
        )
        for _ in range(2):
            with pytest.raises(urllib.error.URLError) as caught:
                urllib.request.urlopen(request, timeout=10)
            if fault == "refused":
                assert isinstance(caught.value.reason, ConnectionRefusedError)
            else:
                assert isinstance(caught.value, urllib.error.HTTPError)
                assert caught.value.code == 529
                caught.value.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
