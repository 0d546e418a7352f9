"""A server without a keyring and without anybody to ask: a command prints the master key.

In production the command is vault, op, pass or a cloud's secret manager, and the store was made before:

    APEX_LLM_MASTER_KEY_COMMAND="vault kv get -field=key secret/apex-llm" python server.py

Here a file takes the secret manager's place, and the emulator that of the cloud, so that it runs offline:
python docs/examples/keys/server_unlocked_by_command.py
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import tempfile
from pathlib import Path

from apex_llm import ApiKeyManager, BedrockProvider, KeyStoreError
from apex_llm.emulator import Emulator


async def serve() -> int:
    """What a server does when it starts. It names neither store nor key: the environment does."""
    manager = ApiKeyManager(create=False)
    try:
        # In a thread, because the command may take a while; now, and not when the first customer is waiting.
        await asyncio.to_thread(manager.unlock)
    except KeyStoreError as error:
        print(f"The key store does not open. {error}", file=sys.stderr)
        return 3
    logging.basicConfig(level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(manager.log_filter())
    try:
        async with BedrockProvider(api_key_manager=manager) as bedrock:
            print(f"server: {await bedrock.generate_text('Are you there?', model='claude')}")
            print(f"server: opened by {manager.status().opened_by}")
    finally:
        await asyncio.to_thread(manager.close)
    return 0


def prepared(directory: Path, emulator: Emulator) -> None:
    """What the operator did before: a master key in the secret manager, a store that opens with it."""
    vault = directory / "vault.txt"
    vault.touch(mode=0o600)
    vault.write_text(ApiKeyManager.generate_master_key().reveal())
    fetch = [sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", str(vault)]
    os.environ["APEX_LLM_MASTER_KEY_COMMAND"] = shlex.join(fetch)
    os.environ["APEX_LLM_HOME"] = str(directory / "keys")
    with ApiKeyManager.create(recovery=False).manager as manager:
        manager.set_api_key(
            "aws_bedrock",
            {
                "aws_access_key_id": emulator.access_key_id,
                "aws_secret_access_key": emulator.secret_access_key,
                "aws_region": "us-east-1",
            },
        )


def main() -> int:
    with tempfile.TemporaryDirectory() as name, Emulator() as emulator:
        for variable in (*emulator.conflicting_variables, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ.pop(variable, None)
        os.environ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] = emulator.bedrock_url
        emulator.script("Here I am.")
        prepared(Path(name), emulator)
        served = asyncio.run(serve())

        (Path(name) / "vault.txt").write_text("an error page of the secret manager")
        assert asyncio.run(serve()) == 3
        return served


if __name__ == "__main__":
    sys.exit(main())
