"""Starting, stopping, and what a test sees of it."""

import socket
import sys
import threading

import pytest
from plain_wire import Wire

from apex_llm.emulator import Emulator
from apex_llm.errors import ConfigurationError


def _since(before: set[threading.Thread]) -> set[threading.Thread]:
    return set(threading.enumerate()) - before


async def test_it_runs_beside_the_event_loop_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())

    async with Emulator() as emulator:
        answer = Wire(emulator).chat()
        assert [thread.name for thread in _since(before)].count("apex-llm-emulator") == 1

    assert answer.status == 200
    left = [thread.name for thread in _since(before)]
    assert "apex-llm-emulator" not in left
    assert len(left) <= 1  # the executor that started it keeps one
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2])), timeout=1).close()


def test_it_can_be_closed_twice_and_not_started_twice() -> None:
    emulator = Emulator().start()
    with pytest.raises(ConfigurationError, match="running already"):
        emulator.start()

    emulator.close()
    emulator.close()


def test_it_listens_on_loopback_only() -> None:
    with pytest.raises(ConfigurationError, match="loopback only"):
        Emulator(host="0.0.0.0")


def test_a_port_that_is_taken_is_told() -> None:
    with Emulator() as first, pytest.raises(ConfigurationError, match="cannot listen"):
        Emulator(port=int(first.url.rpartition(":")[2])).start()


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name in {"apex_llm.emulator.app", "apex_llm.emulator.serving", "apex_llm.emulator.playback"}:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)

    with pytest.raises(ConfigurationError, match="not installed") as caught:
        Emulator().start()

    assert "apex-llm[emulator]" in (caught.value.hint or "")


def test_what_arrived_is_recorded_without_secrets(wire: Wire) -> None:
    wire.converse()
    request = wire.emulator.requests[0]

    assert (request.method, request.operation, request.status) == ("POST", "converse", 200)
    assert request.path == "/model/us.anthropic.claude-sonnet-4-6/converse"
    assert request.json["messages"][0]["role"] == "user"
    assert request.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256")
    assert "AWS4" not in repr(request)
    assert "Hi there" not in repr(request)


def test_the_environment_names_every_variable_that_clients_read(wire: Wire) -> None:
    environment = wire.emulator.environment

    assert environment["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] == wire.emulator.url
    assert environment["AZURE_OPENAI_ENDPOINT"] == wire.emulator.url
    assert environment["AWS_EC2_METADATA_DISABLED"] == "true"
    assert environment.keys() >= {"AWS_REGION", "AWS_ACCESS_KEY_ID", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"}


def test_the_fixture_points_clients_at_it(apex_llm_emulator: Emulator) -> None:
    import os

    assert os.environ["AZURE_OPENAI_ENDPOINT"] == apex_llm_emulator.url
    assert "AWS_PROFILE" not in os.environ
    assert Wire(apex_llm_emulator).chat().status == 200


def test_the_plugin_loads_nothing_heavy() -> None:
    """Every pytest run of every project that installs the package pays for what it imports."""
    import subprocess

    code = (
        "import sys, pytest; before = set(sys.modules); import apex_llm.testing.pytest_plugin; "
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "heavy = loaded & {'httpx', 'httptools', 'msgspec', 'pydantic', 'starlette', 'uvicorn', 'anyio'}; "
        "sys.exit(str(heavy) if heavy else 0)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
