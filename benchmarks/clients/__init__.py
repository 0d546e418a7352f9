"""Each client as its own documentation uses it, behind three methods: ``call``, ``texts`` and ``close``.

Retries are left as they come. Pools and threads are made enough for the concurrency that is asked of them, since a
client that waits for itself would look cheap. A client's package is imported when it is made, in the interpreter
of an environment of its own (``benchmarks.environments``); nothing else here needs a package.
"""

from __future__ import annotations

__all__ = [
    "ACCESS_KEY_ID",
    "API_KEY",
    "API_VERSION",
    "CREDENTIALS",
    "FLOORS",
    "PEERS",
    "REGION",
    "SECRET_ACCESS_KEY",
    "Client",
    "Target",
    "case_of",
    "cases",
    "make",
]

import importlib
from collections.abc import Sequence
from typing import Any

from benchmarks.clients.target import (
    ACCESS_KEY_ID,
    API_KEY,
    API_VERSION,
    CREDENTIALS,
    REGION,
    SECRET_ACCESS_KEY,
    Client,
    Target,
)
from benchmarks.harness import Case

_MAKERS: dict[str, dict[str, str]] = {
    "bedrock": {
        "apex_llm": "ours:bedrock",
        "apex_llm.sync": "ours:bedrock_sync",
        "limit": "floors:limit_bedrock",
        "bare": "floors:bare_bedrock",
        "aiohttp": "floors:aiohttp_bedrock",
        "httpx": "floors:httpx_bedrock",
        "httpx2": "floors:httpx2_bedrock",
        "boto3": "vendors:Boto3",
        "aiobotocore": "vendors:Aiobotocore",
        "anthropic": "vendors:Anthropic",
        "langchain-aws": "frameworks:LangchainAws",
        "pydantic-ai": "frameworks:PydanticAi",
        "litellm": "frameworks:LitellmBedrock",
    },
    "azure": {
        "apex_llm": "ours:azure",
        "apex_llm.sync": "ours:azure_sync",
        "limit": "floors:limit_azure",
        "bare": "floors:bare_azure",
        "aiohttp": "floors:aiohttp_azure",
        "httpx": "floors:httpx_azure",
        "httpx2": "floors:httpx2_azure",
        "openai": "vendors:Openai",
        "litellm": "frameworks:LitellmAzure",
    },
}
_ENVIRONMENTS = {
    "aiobotocore": "aiobotocore",
    "langchain-aws": "frameworks",
    "pydantic-ai": "frameworks",
    "litellm": "litellm",
    **dict.fromkeys(("aiohttp", "httpx", "httpx2", "boto3", "anthropic", "openai"), "vendors"),
}
_MODULES = {"langchain-aws": "langchain_aws", "pydantic-ai": "pydantic_ai"}

FLOORS: Sequence[str] = ("limit", "aiohttp", "httpx", "httpx2")
PEERS: Sequence[str] = ("boto3", "aiobotocore", "anthropic", "openai", "langchain-aws", "pydantic-ai", "litellm")
"""Other people's clients of a model: what ours may be compared with."""


def cases(*wires: str, only: Sequence[str] = ("apex_llm", *FLOORS, *PEERS)) -> tuple[Case, ...]:
    """The clients of the wires that are named in ``only``, in its order."""
    return tuple(case_of(wire, variant) for wire in wires for variant in only if variant in _MAKERS[wire])


def case_of(wire: str, variant: str) -> Case:
    """One client, with the environment in which it lives and the module that it cannot do without."""
    environment = _ENVIRONMENTS.get(variant, "")
    return Case(wire, variant, _MODULES.get(variant, variant) if environment else None, environment)


def make(wire: str, variant: str, target: Target) -> Any:
    """A client, connected to nothing yet."""
    module, _, name = _MAKERS[wire][variant].partition(":")
    return getattr(importlib.import_module(f"benchmarks.clients.{module}"), name)(target)
