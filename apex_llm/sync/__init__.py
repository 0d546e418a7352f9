"""The same package without ``await``: every public name of ``apex_llm``, with blocking providers and streams.

::

    from apex_llm.sync import BedrockProvider

    with BedrockProvider() as bedrock:
        print(bedrock.generate_text("Hello", model="claude"))

Values, events, options and errors are the very classes of ``apex_llm``. Names are loaded when they
are first used, as there. ``SyncLlmProvider`` makes a blocking provider of any async one.
"""

from __future__ import annotations

import importlib

import apex_llm

TYPE_CHECKING = False  # as in apex_llm
if TYPE_CHECKING:
    from typing import Any

    from apex_llm import *  # noqa: F403 - the names that are blocking here follow, and replace those
    from apex_llm.sync._generated import (  # noqa: F401 - offered through __all__
        AzureOpenAIProvider,
        BaseLlmProvider,
        BedrockProvider,
        SyncLlmProvider,
        get_provider,
        provider_for,
    )
    from apex_llm.sync._streams import EventStream, TextStream  # noqa: F401

_HOME = {
    "AzureOpenAIProvider": "_generated",
    "BaseLlmProvider": "_generated",
    "BedrockProvider": "_generated",
    "EventStream": "_streams",
    "SyncLlmProvider": "_generated",
    "TextStream": "_streams",
    "get_provider": "_generated",
    "provider_for": "_generated",
}

__all__ = ["SyncLlmProvider"]
__all__ += apex_llm.__all__


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"apex_llm.sync.{_HOME[name]}"), name)
    elif name in apex_llm.__all__:
        value = getattr(apex_llm, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
