"""Which models a plugin may use: asked of the key manager before each call, once the model is known.

A grant may be for some models only. The provider gets the credential for it without naming one, and
in return states the model of each call here. What is compared is what goes on the wire, not what the
caller wrote.
"""

from __future__ import annotations

__all__ = ["ModelCheck", "model_check"]

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from apex_llm.credentials.manager import ManagerCredentials
    from apex_llm.providers.base import Resolved
    from apex_llm.types.requests import ChatRequest

ModelCheck: TypeAlias = "Callable[[Resolved, ChatRequest], Awaitable[None]]"
"""Returns if the call may be made; raises ``KeyAccessDeniedError`` if not."""

# The geography of an inference profile says where the model runs, not which it is.
_GEOGRAPHY = re.compile(r"\A(?:us-gov|us|ca|eu|apac|jp|au|in|global)\.(?=[^.]+\.)")


def model_check(source: ManagerCredentials) -> ModelCheck | None:
    """What to ask before each call; ``None`` where nobody wants to know."""
    if not source.checks_models:
        return None

    async def check(resolved: Resolved, request: ChatRequest) -> None:
        await source.permit(_names(resolved.model, resolved.family))
        # Merged into the body last, where it is another model for the services that read it there.
        other = request.extra_body.get("model") if request.extra_body else None
        if other is not None and other != resolved.model:
            await source.permit(_names(str(other), ""))

    return check


def _names(model: str, family: str) -> tuple[str, ...]:
    """What the model is called: on the wire, without its geography, and by the id behind an opaque name."""
    plain = _GEOGRAPHY.sub("", model)
    return tuple(dict.fromkeys(name for name in (model, plain, family) if name))
