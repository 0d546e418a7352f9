"""An async-first SDK for AWS Bedrock and Azure OpenAI, on raw HTTP.

The only place that users import from, besides ``apex_llm.sync`` (blocking twins),
``apex_llm.emulator`` (both clouds on loopback) and ``apex_llm.testing``. Names are loaded
when they are first used (PEP 562), so that ``import apex_llm`` costs next to nothing.
"""

from __future__ import annotations

import importlib

from apex_llm._version import __version__

TYPE_CHECKING = False  # the name is what type checkers look for; importing typing would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from apex_llm.credentials.azure_entra import ClientSecret, WorkloadIdentity
    from apex_llm.credentials.azure_managed import ManagedIdentity
    from apex_llm.errors import (
        ApexLlmError,
        AuthenticationError,
        ConfigurationError,
        ConnectionFailedError,
        ContentFilteredError,
        ContextWindowExceededError,
        EventStreamError,
        IdleTimeoutError,
        InvalidEndpointError,
        InvalidRequestError,
        KeyAccessDeniedError,
        KeyStoreError,
        LimitExceededError,
        LockedError,
        MissingCredentialsError,
        ModelNotFoundError,
        ModelTimeoutError,
        NoKeyStoreError,
        NoUnlockerError,
        OverloadedError,
        PermissionDeniedError,
        PermissionsTooOpenError,
        ProtocolError,
        QueueFullError,
        QuotaExceededError,
        RateLimitError,
        RequestError,
        RequestTimeoutError,
        ResponseFormatError,
        SseError,
        StreamInterruptedError,
        StreamTruncatedError,
        TamperedError,
        TransientError,
        UnknownModelError,
        UnsupportedFormatError,
        WrongPassphraseError,
    )
    from apex_llm.keys.handles import PluginHandle
    from apex_llm.keys.manager import ApiKeyManager
    from apex_llm.providers.azure_openai import AzureOpenAIProvider
    from apex_llm.providers.base import BaseLlmProvider
    from apex_llm.providers.bedrock import BedrockProvider
    from apex_llm.providers.registry import get_provider, provider_for
    from apex_llm.streaming import EventStream, TextStream
    from apex_llm.tools import FunctionTool, tool
    from apex_llm.transport.breaker import BreakerPolicy
    from apex_llm.transport.limits import Limits
    from apex_llm.transport.observe import Observer
    from apex_llm.transport.retry import RetryPolicy, RetryStrategy
    from apex_llm.types.events import (
        CitationAdded,
        ContentFiltered,
        GuardrailTraced,
        ImageAdded,
        ReasoningDelta,
        ServerToolResultAdded,
        StreamEvent,
        StreamFinished,
        StreamStarted,
        TextDelta,
        ToolCallDelta,
        ToolCallFinished,
        ToolCallStarted,
        UnknownEvent,
    )
    from apex_llm.types.http import Timeout
    from apex_llm.types.messages import (
        AudioPart,
        CachePoint,
        CitationPart,
        DocumentPart,
        ImagePart,
        Message,
        Part,
        ReasoningPart,
        TextPart,
        ToolCallPart,
        ToolResultPart,
        VideoPart,
    )
    from apex_llm.types.models import ModelInfo
    from apex_llm.types.requests import ChatOptions, TextOptions
    from apex_llm.types.responses import ChatResponse, FinishReason, Usage
    from apex_llm.types.secrets import AccessToken, AwsCredentials, Secret
    from apex_llm.types.sentinels import NOT_GIVEN, NotGiven
    from apex_llm.types.tools import Tool, ToolChoice

_ROOMS = {
    "apex_llm.credentials.azure_entra": "ClientSecret WorkloadIdentity",
    "apex_llm.credentials.azure_managed": "ManagedIdentity",
    "apex_llm.errors": (
        "ApexLlmError AuthenticationError ConfigurationError ConnectionFailedError ContentFilteredError "
        "ContextWindowExceededError EventStreamError IdleTimeoutError InvalidEndpointError InvalidRequestError "
        "KeyAccessDeniedError KeyStoreError LimitExceededError LockedError MissingCredentialsError "
        "ModelNotFoundError ModelTimeoutError NoKeyStoreError NoUnlockerError OverloadedError "
        "PermissionDeniedError PermissionsTooOpenError ProtocolError QueueFullError QuotaExceededError RateLimitError "
        "RequestError RequestTimeoutError ResponseFormatError SseError StreamInterruptedError StreamTruncatedError "
        "TamperedError TransientError UnknownModelError UnsupportedFormatError WrongPassphraseError"
    ),
    "apex_llm.keys.handles": "PluginHandle",
    "apex_llm.keys.manager": "ApiKeyManager",
    "apex_llm.providers.azure_openai": "AzureOpenAIProvider",
    "apex_llm.providers.base": "BaseLlmProvider",
    "apex_llm.providers.bedrock": "BedrockProvider",
    "apex_llm.providers.registry": "get_provider provider_for",
    "apex_llm.streaming": "EventStream TextStream",
    "apex_llm.tools": "FunctionTool tool",
    "apex_llm.transport.breaker": "BreakerPolicy",
    "apex_llm.transport.limits": "Limits",
    "apex_llm.transport.observe": "Observer",
    "apex_llm.transport.retry": "RetryPolicy RetryStrategy",
    "apex_llm.types.events": (
        "CitationAdded ContentFiltered GuardrailTraced ImageAdded ReasoningDelta ServerToolResultAdded StreamEvent "
        "StreamFinished StreamStarted TextDelta ToolCallDelta ToolCallFinished ToolCallStarted UnknownEvent"
    ),
    "apex_llm.types.http": "Timeout",
    "apex_llm.types.messages": (
        "AudioPart CachePoint CitationPart DocumentPart ImagePart Message Part ReasoningPart TextPart ToolCallPart "
        "ToolResultPart VideoPart"
    ),
    "apex_llm.types.models": "ModelInfo",
    "apex_llm.types.requests": "ChatOptions TextOptions",
    "apex_llm.types.responses": "ChatResponse FinishReason Usage",
    "apex_llm.types.secrets": "AccessToken AwsCredentials Secret",
    "apex_llm.types.sentinels": "NOT_GIVEN NotGiven",
    "apex_llm.types.tools": "Tool ToolChoice",
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names.split()}

__all__ = [
    "NOT_GIVEN",
    "AccessToken",
    "ApexLlmError",
    "ApiKeyManager",
    "AudioPart",
    "AuthenticationError",
    "AwsCredentials",
    "AzureOpenAIProvider",
    "BaseLlmProvider",
    "BedrockProvider",
    "BreakerPolicy",
    "CachePoint",
    "ChatOptions",
    "ChatResponse",
    "CitationAdded",
    "CitationPart",
    "ClientSecret",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContentFiltered",
    "ContentFilteredError",
    "ContextWindowExceededError",
    "DocumentPart",
    "EventStream",
    "EventStreamError",
    "FinishReason",
    "FunctionTool",
    "GuardrailTraced",
    "IdleTimeoutError",
    "ImageAdded",
    "ImagePart",
    "InvalidEndpointError",
    "InvalidRequestError",
    "KeyAccessDeniedError",
    "KeyStoreError",
    "LimitExceededError",
    "Limits",
    "LockedError",
    "ManagedIdentity",
    "Message",
    "MissingCredentialsError",
    "ModelInfo",
    "ModelNotFoundError",
    "ModelTimeoutError",
    "NoKeyStoreError",
    "NoUnlockerError",
    "NotGiven",
    "Observer",
    "OverloadedError",
    "Part",
    "PermissionDeniedError",
    "PermissionsTooOpenError",
    "PluginHandle",
    "ProtocolError",
    "QueueFullError",
    "QuotaExceededError",
    "RateLimitError",
    "ReasoningDelta",
    "ReasoningPart",
    "RequestError",
    "RequestTimeoutError",
    "ResponseFormatError",
    "RetryPolicy",
    "RetryStrategy",
    "Secret",
    "ServerToolResultAdded",
    "SseError",
    "StreamEvent",
    "StreamFinished",
    "StreamInterruptedError",
    "StreamStarted",
    "StreamTruncatedError",
    "TamperedError",
    "TextDelta",
    "TextOptions",
    "TextPart",
    "TextStream",
    "Timeout",
    "Tool",
    "ToolCallDelta",
    "ToolCallFinished",
    "ToolCallPart",
    "ToolCallStarted",
    "ToolChoice",
    "ToolResultPart",
    "TransientError",
    "UnknownEvent",
    "UnknownModelError",
    "UnsupportedFormatError",
    "Usage",
    "VideoPart",
    "WorkloadIdentity",
    "WrongPassphraseError",
    "__version__",
    "get_provider",
    "provider_for",
    "tool",
]


def __getattr__(name: str) -> Any:
    try:
        room = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
