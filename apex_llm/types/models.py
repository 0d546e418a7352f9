"""What a provider can be asked for."""

from __future__ import annotations

__all__ = ["ModelInfo"]

from collections.abc import Mapping
from typing import Any

import msgspec


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model, profile or deployment that a provider lists."""

    id: str
    """What to pass as ``model=`` (or ``deployment_id=``)."""
    provider: str
    """``"bedrock"`` or ``"azure_openai"``."""
    kind: str
    """``foundation_model``, ``inference_profile``, ``application_inference_profile``, ``imported_model``,
    ``custom_model``, ``provisioned_throughput``, ``deployment`` or ``base_model``."""
    name: str | None = None
    vendor: str | None = None
    """Who made the model, such as ``Anthropic``."""
    base_model: str | None = None
    """The model behind a profile or deployment, where it is known."""
    input_modalities: tuple[str, ...] = ()
    """Lower case: ``text``, ``image``, …"""
    output_modalities: tuple[str, ...] = ()
    streaming: bool | None = None
    """``None`` where the listing does not say."""
    on_demand: bool | None = None
    """Whether the id can be called as it is, without an inference profile."""
    lifecycle: str | None = None
    """Lower case: ``active``, ``legacy``, …"""
    source: str = ""
    """The listing that it came from, such as ``ListFoundationModels`` or ``data-plane deployments``."""
    raw: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """The provider's own object."""
