"""By which names the key manager is asked about a model."""

from __future__ import annotations

from typing import Any

import pytest

from apex_llm.codecs.bedrock_family import bare_model_id
from apex_llm.providers.base import Resolved
from apex_llm.providers.permission import model_check
from apex_llm.types.messages import Message
from apex_llm.types.requests import ChatRequest


class Source:
    checks_models = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def permit(self, models: tuple[str, ...]) -> None:
        self.asked.append(models)


@pytest.mark.parametrize("geography", ["us", "eu", "apac", "jp", "au", "ca", "in", "global", "us-gov"])
async def test_a_grant_for_a_model_holds_for_its_profiles_in_every_geography(geography: str) -> None:
    """Where a model runs is not which it is; the codecs see through the same geographies."""
    model = f"{geography}.amazon.nova-2-lite-v1:0"
    assert bare_model_id(model) == "amazon.nova-2-lite-v1:0"
    source: Any = Source()
    check = model_check(source)
    assert check is not None

    await check(Resolved(model, model), ChatRequest(model=model, messages=(Message.user("Hi"),)))

    assert source.asked == [(model, "amazon.nova-2-lite-v1:0")]
