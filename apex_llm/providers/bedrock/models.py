"""What a caller's model name stands for on Bedrock.

Short names point at current models, through the inference profile of the region where the
model needs one. Every other name is sent as it was written. The table is data: pass
``aliases={...}`` to a provider to change it.
"""

from __future__ import annotations

__all__ = ["ALIASES", "is_opaque", "model_segment", "resolve_alias", "similar_alias"]

import functools
from collections.abc import Mapping
from typing import Final

import msgspec

from apex_llm.errors import InvalidRequestError
from apex_llm.providers.endpoints import path_segment

_HINT: Final = (
    "Pass a model id such as 'us.anthropic.claude-sonnet-4-6', an inference profile id, an ARN, or an alias: "
    "claude, nova, llama."
)


class Alias(msgspec.Struct, frozen=True):
    """A model, and the geographies for which AWS keeps inference profiles of it."""

    model: str
    profiles: frozenset[str] = frozenset()
    """Empty for a model that is called by its own id."""


_CLAUDE = Alias("anthropic.claude-sonnet-4-6", frozenset({"us", "eu", "apac", "jp", "au", "global"}))
_CLAUDE_FAST = Alias("anthropic.claude-haiku-4-5-20251001-v1:0", frozenset({"us", "eu", "apac", "jp", "au", "global"}))
_LLAMA = Alias("meta.llama3-3-70b-instruct-v1:0", frozenset({"us"}))
_NOVA = Alias("amazon.nova-2-lite-v1:0", frozenset({"us", "eu", "apac", "jp", "global"}))
_TITAN_EMBED = Alias("amazon.titan-embed-text-v2:0")

ALIASES: Final[Mapping[str, Alias]] = {
    "claude": _CLAUDE,
    "claude-sonnet": _CLAUDE,
    "claude-instant": _CLAUDE_FAST,
    "claude-fast": _CLAUDE_FAST,
    "claude-haiku": _CLAUDE_FAST,
    "llama": _LLAMA,
    "llama2": _LLAMA,
    "llama3": _LLAMA,
    "titan": _NOVA,
    "nova": _NOVA,
    "titan-embed": _TITAN_EMBED,
    "embed": _TITAN_EMBED,
}
"""The plan's names and a few more. Sonnet 4.6 is chosen because it still takes ``temperature``."""

# First the geographies that keep data closest to the region, then the wider ones.
_GEOGRAPHIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("us-gov-", ("us-gov",)),
    ("us-", ("us",)),
    ("ca-", ("ca", "us")),
    ("eu-", ("eu",)),
    ("ap-northeast-1", ("jp", "apac")),
    ("ap-northeast-3", ("jp", "apac")),
    ("ap-southeast-2", ("au", "apac")),
    ("ap-southeast-4", ("au", "apac")),
    ("ap-", ("apac",)),
)


def resolve_alias(name: str, *, region: str, aliases: Mapping[str, str] | None = None) -> str | None:
    """The id behind a short name, or ``None`` if it is not one.

    Args:
        name: As the caller wrote it, without ``bedrock:``; case does not matter.
        region: Decides on the inference profile: ``us.`` in ``us-east-1``, ``global.`` where no nearer one exists.
        aliases: The caller's own, which come first and are taken as they are.
    """
    if aliases and name in aliases:
        return aliases[name]
    alias = ALIASES.get(name.lower())
    if alias is None:
        return None
    for geography in (*_geographies(region), "global"):
        if geography in alias.profiles:
            return f"{geography}.{alias.model}"
    return alias.model


def similar_alias(name: str) -> str | None:
    """The short name that a model which nobody knows was probably meant to be; ``None`` for ids and ARNs."""
    if "." in name or ":" in name:
        return None
    from difflib import get_close_matches

    return next(iter(get_close_matches(name.lower(), ALIASES, n=1)), None)


def _geographies(region: str) -> tuple[str, ...]:
    for prefix, geographies in _GEOGRAPHIES:
        if region.startswith(prefix):
            return geographies
    return ()


_OPAQUE = (
    ":application-inference-profile/",
    ":provisioned-model/",
    ":custom-model-deployment/",
    ":imported-model/",
)


def is_opaque(model_id: str) -> bool:
    """Whether an ARN hides which model stands behind it, so that only the control plane can tell."""
    return model_id.startswith("arn:") and any(kind in model_id for kind in _OPAQUE)


@functools.lru_cache(maxsize=512)  # pure: the same few models, call after call
def model_segment(model: str) -> str:
    """The model as one segment of a path.

    Raises:
        InvalidRequestError: It cannot be the name of a model.
    """
    if "/" in model and not model.startswith("arn:"):
        raise InvalidRequestError(f"The model id contains a slash ({model[:80]!r}).", phase="prepare", hint=_HINT)
    # A raw colon, since some HTTP stacks on the way rewrite %3A and so break the signature.
    return path_segment(model, what="model id", hint=_HINT, keep=":")
