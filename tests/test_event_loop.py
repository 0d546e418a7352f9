"""The event loop keeps turning, whatever we do on it.

Watched by counting heartbeats, not by a clock: a task counts each turn that it is given, and what is
asserted is that turns lie between the things that happened. A call that blocks the loop leaves none.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from apex_llm import AzureOpenAIProvider, BedrockProvider, TextStream
from apex_llm.emulator import Answer, Emulator

_STREAMS = 50
_PIECES = 10


class _Heartbeat:
    def __init__(self) -> None:
        self.beats = 0

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        async def beat() -> None:
            while True:
                await asyncio.sleep(0.001)
                self.beats += 1

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


async def _beats_at_each_piece(stream: TextStream, heartbeat: _Heartbeat) -> list[int]:
    async with stream:
        return [heartbeat.beats async for _ in stream]


@pytest.mark.parametrize("cloud", ["bedrock", "azure"])
async def test_heartbeats_come_between_the_pieces_of_fifty_streams(cloud: str, emulator: Emulator) -> None:
    """Some clients read a whole stream before anything else may run; then all of its pieces see one beat."""
    words = [f" word{number}" for number in range(_PIECES)]
    emulator.script(*[Answer.text(chunks=words, delay=0.04) for _ in range(_STREAMS)])
    provider = BedrockProvider() if cloud == "bedrock" else AzureOpenAIProvider(default_deployment="chat")
    heartbeat = _Heartbeat()

    async with provider, heartbeat.beating():
        streams = [provider.generate_text_stream("Hi", "claude" if cloud == "bedrock" else None) for _ in range(50)]
        seen = await asyncio.gather(*(_beats_at_each_piece(stream, heartbeat) for stream in streams))

    assert [len(beats) for beats in seen] == [_PIECES] * _STREAMS
    # 40 ms lie between two pieces, which is room for forty beats; half of the pieces may still come together.
    assert min(len(set(beats)) for beats in seen) >= _PIECES // 2


async def test_a_callback_for_credentials_that_blocks_does_not_block_the_loop(emulator: Emulator) -> None:
    """It returns only once the loop has turned twenty times; run on the loop it would wait in vain."""
    turned = threading.Event()
    waited: list[bool] = []

    def callback() -> dict[str, str]:
        waited.append(turned.wait(timeout=20))
        return {
            "aws_access_key_id": emulator.access_key_id,
            "aws_secret_access_key": emulator.secret_access_key,
        }

    async def release() -> None:
        for _ in range(20):
            await asyncio.sleep(0.001)
        turned.set()

    async with BedrockProvider(credentials=callback) as provider:
        call = asyncio.create_task(provider.generate_text("Hi", "claude"))
        await asyncio.sleep(0)
        await release()
        assert await call

    assert waited == [True]


_CHILD = """
import asyncio, json, sys, threading

beats, imports, loop_thread = 0, [], threading.get_ident()

class Watcher:
    # Asked for each module that is about to be imported; finds none.
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"aiobotocore", "botocore"}:
            imports.append((threading.get_ident() == loop_thread, beats))

async def beat():
    global beats
    while True:
        await asyncio.sleep(0.001)
        beats += 1
        if beats == RELEASE_AT:
            open(RELEASE, "w").close()

async def main():
    from apex_llm import BedrockProvider
    assert not any(name.partition(".")[0] == "botocore" for name in sys.modules)
    sys.meta_path.insert(0, Watcher)
    async with BedrockProvider(profile="process") as provider:
        heartbeat = asyncio.create_task(beat())
        text = await provider.generate_text("Hi", "claude")
        heartbeat.cancel()
    print(json.dumps({
        "text": text,
        "beats": beats,
        "modules": len(imports),
        "on_the_loop": sum(on_the_loop for on_the_loop, _ in imports),
        "moments": len({beat for _, beat in imports}),
    }))

asyncio.run(main())
"""


def test_aiobotocore_is_imported_and_asked_without_the_loop_standing_still(emulator: Emulator, tmp_path: Path) -> None:
    """The first resolution of a profile that needs it, in a process that has never seen it.

    The profile's command ends only when the loop has beaten 200 times since the call began, and no module of
    botocore may be looked for by the loop's own thread.
    """
    pytest.importorskip("aiobotocore")
    released, release_at = tmp_path / "released", 200
    keys = {
        "Version": 1,
        "AccessKeyId": emulator.access_key_id,
        "SecretAccessKey": emulator.secret_access_key,
    }
    command = tmp_path / "command.py"
    command.write_text(
        "import os, time\n"
        "for _ in range(2000):\n"
        f"    if os.path.exists({str(released)!r}):\n"
        f"        print({json.dumps(keys)!r})\n"
        "        break\n"
        "    time.sleep(0.01)\n",
        "utf-8",
    )
    config = tmp_path / "config"
    config.write_text(f"[profile process]\ncredential_process = {sys.executable} -S {command}\n", "utf-8")
    head = f"RELEASE, RELEASE_AT = {str(released)!r}, {release_at}\n"
    environ = {"AWS_CONFIG_FILE": str(config), "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    environ |= {name: value for name, value in emulator.environment.items() if "KEY" not in name}

    child = subprocess.run(
        [sys.executable, "-c", head + _CHILD], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout)
    assert told["text"]
    assert told["beats"] >= release_at
    assert told["modules"] > 50
    assert told["on_the_loop"] == 0
    # Beats came while it was being imported, not only before and after.
    assert told["moments"] >= 5
