"""A host with two plugins of different rights. One gets a provider and no key, the other one key and no provider.

Runs offline, against the emulator: python docs/examples/keys/plugin_host.py
The rights keep honest plugins from mistakes. They are no wall: see docs/explanation/key-custody.md.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from apex_llm import ApiKeyManager, BaseLlmProvider, KeyAccessDeniedError, provider_for
from apex_llm.emulator import Emulator
from apex_llm.keys import PluginHandle


class Reports:
    """Calls a model. It is given a provider, and never sees what that signs with."""

    name = "reports"

    async def run(self, handle: PluginHandle, bedrock: BaseLlmProvider) -> None:
        answer = await bedrock.generate_text("Sum up the week.", model="claude")
        print(f"reports: {answer}")
        for service in ("aws_bedrock", "github"):
            try:
                await asyncio.to_thread(handle.get_api_key, service)
            except KeyAccessDeniedError as error:
                print(f"reports: {error.message}")


class Crawler:
    """Talks to a service that the host does not know, and so needs the key itself."""

    name = "crawler"

    async def run(self, handle: PluginHandle) -> None:
        print(f"crawler: may have {handle.services()}")
        token = await asyncio.to_thread(handle.get_api_key, "github")
        print(f"crawler: got a key of {len(token or '')} characters")
        try:
            await asyncio.to_thread(handle.get_api_key, "aws_bedrock")
        except KeyAccessDeniedError as error:
            print(f"crawler: {error.message}")


def prepared(directory: Path, emulator: Emulator) -> ApiKeyManager:
    """What the owner did long before, most likely with ``apex-llm keys``."""
    # strict: a plain name is not enough to ask for anything, only a handle that this host made.
    manager = ApiKeyManager(directory, master_key=ApiKeyManager.generate_master_key(), strict=True, audit="required")
    manager.set_api_key(
        "aws_bedrock",
        {
            "aws_access_key_id": emulator.access_key_id,
            "aws_secret_access_key": emulator.secret_access_key,
            "aws_region": "us-east-1",
        },
    )
    manager.set_api_key("github", "ghp_example_of_a_token")
    manager.grant("reports", "aws_bedrock", export=False)
    manager.grant("crawler", "github", days=30)
    return manager


async def host(manager: ApiKeyManager, emulator: Emulator) -> None:
    reports, crawler = manager.plugin_handle(Reports.name), manager.plugin_handle(Crawler.name)
    async with provider_for(
        manager.provider_access, reports, "aws_bedrock", endpoint_url=emulator.bedrock_url
    ) as bedrock:
        await Reports().run(reports, bedrock)
    await Crawler().run(crawler)

    await asyncio.to_thread(manager.revoke, "crawler", "github")
    try:
        await asyncio.to_thread(crawler.get_api_key, "github")
    except KeyAccessDeniedError as error:
        print(f"host: {error.message}")

    denied = [entry for entry in manager.audit_entries() if entry.decision != "allowed"]
    print(f"host: {len(denied)} refusals in the audit log, isolation {manager.isolation}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, Emulator() as emulator:
        for variable in emulator.conflicting_variables:
            os.environ.pop(variable, None)
        emulator.script("All went well.")
        with prepared(Path(name) / "keys", emulator) as manager:
            asyncio.run(host(manager, emulator))


if __name__ == "__main__":
    main()
