"""One measurement in a process of its own, told as JSON.

``warm WIRE`` and ``files WIRE`` count calls and pieces, ``cold WIRE PORT`` lists the modules that a first
answer loads. Further arguments are modules that are imported too: the tests make the
package do more work that way.
"""

from __future__ import annotations

import sys

# Nothing else is imported up here: it would be missing from the modules that are counted.


def _warm(kind: str, wire: str, *meddling: str) -> str:
    import time

    # Signatures remember the second they were made in; how many seconds pass here must not show.
    time.time = lambda: 1_795_000_000.0
    for name in meddling:
        __import__(name)
    from tests.work import warm

    return warm.main(wire, files=kind == "files")


def _cold(wire: str, port: str, *meddling: str) -> str:
    known = set(sys.modules)

    def loaded() -> list[str]:
        return sorted(set(sys.modules) - known)

    import apex_llm

    for name in meddling:
        __import__(name)
    found = {f"{wire}.modules.by_import": loaded()}
    url = f"http://127.0.0.1:{port}"
    if wire == "bedrock":
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}
        provider = apex_llm.BedrockProvider(endpoint_url=url, aws_region="us-east-1", credentials=keys)
    else:
        provider = apex_llm.AzureOpenAIProvider(api_base=url, api_version="2024-10-21", api_key="key")
    found[f"{wire}.modules.by_provider"] = loaded()

    import asyncio

    async def ask() -> None:
        async with provider:
            assert await provider.generate_text("Hi", "bench.model", max_tokens=5)

    asyncio.run(ask())
    found[f"{wire}.modules.by_first_answer"] = loaded()
    import json

    return json.dumps(found)


if __name__ == "__main__":
    kind, wire, *more = sys.argv[1:]
    sys.stdout.write(_cold(wire, *more) if kind == "cold" else _warm(kind, wire, *more))
