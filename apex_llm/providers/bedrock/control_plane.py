"""Bedrock's listings: which models, profiles and own models an account can call.

Wire shapes: botocore 1.44.5, service ``bedrock``; only the members that we read. Everything
the service adds stays in ``ModelInfo.raw``.
"""

from __future__ import annotations

__all__ = ["LISTINGS", "Listing", "base_model_of_profile", "model_id_of_arn", "read_page"]

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from apex_llm.errors import ResponseFormatError
from apex_llm.types.models import ModelInfo

_Item = Mapping[str, Any]


class Listing(msgspec.Struct, frozen=True):
    """One listing operation."""

    operation: str
    path: str
    query: tuple[tuple[str, str], ...]
    key: str
    """The member of the answer that holds the items."""
    read: Callable[[_Item], ModelInfo]
    optional: bool = True
    """Whether a caller may lack the permission for it and still get the rest."""


def read_page(listing: Listing, body: bytes) -> tuple[list[ModelInfo], str | None]:
    """The items of one page, and the token of the next."""
    try:
        page: Any = msgspec.json.decode(body)
        items = cast("list[_Item]", page.get(listing.key) or [])
        return [listing.read(item) for item in items], page.get("nextToken")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise ResponseFormatError(f"{listing.operation} answered with something that is not its format.") from error


def model_id_of_arn(arn: str) -> str:
    """``anthropic.claude-…`` out of ``arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-…``."""
    return arn.partition("/")[2] or arn


def base_model_of_profile(body: bytes) -> str | None:
    """The model behind an inference profile, from what GetInferenceProfile answers."""
    try:
        profile: Any = msgspec.json.decode(body)
        models = cast("list[_Item]", profile.get("models") or [{}])
        arn = models[0].get("modelArn")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, TypeError, LookupError, RecursionError):
        return None
    return model_id_of_arn(arn) if isinstance(arn, str) else None


def _words(values: Any) -> tuple[str, ...]:
    return tuple(str(value).lower() for value in values or ())


def _foundation_model(item: _Item) -> ModelInfo:
    inference = item.get("inferenceTypesSupported")
    lifecycle = cast("_Item", item.get("modelLifecycle") or {})
    return ModelInfo(
        id=item["modelId"],
        provider="bedrock",
        kind="foundation_model",
        name=item.get("modelName"),
        vendor=item.get("providerName"),
        input_modalities=_words(item.get("inputModalities")),
        output_modalities=_words(item.get("outputModalities")),
        streaming=item.get("responseStreamingSupported"),
        on_demand=None if inference is None else "ON_DEMAND" in inference,
        lifecycle=str(lifecycle.get("status", "")).lower() or None,
        source="ListFoundationModels",
        raw=item,
    )


def _inference_profile(item: _Item) -> ModelInfo:
    models = cast("list[_Item]", item.get("models") or [])
    base = models[0].get("modelArn") if models else None
    application = item.get("type") == "APPLICATION"
    return ModelInfo(
        id=item["inferenceProfileArn"] if application else item["inferenceProfileId"],
        provider="bedrock",
        kind="application_inference_profile" if application else "inference_profile",
        name=item.get("inferenceProfileName"),
        base_model=model_id_of_arn(base) if base else None,
        on_demand=True,
        lifecycle=str(item.get("status", "")).lower() or None,
        source="ListInferenceProfiles",
        raw=item,
    )


def _imported_model(item: _Item) -> ModelInfo:
    return ModelInfo(
        id=item["modelArn"],
        provider="bedrock",
        kind="imported_model",
        name=item.get("modelName"),
        base_model=item.get("modelArchitecture"),
        on_demand=True,
        source="ListImportedModels",
        raw=item,
    )


def _custom_model(item: _Item) -> ModelInfo:
    base = item.get("baseModelArn")
    return ModelInfo(
        id=item["modelArn"],
        provider="bedrock",
        kind="custom_model",
        name=item.get("modelName"),
        base_model=model_id_of_arn(base) if base else None,
        on_demand=False,
        lifecycle=str(item.get("modelStatus", "")).lower() or None,
        source="ListCustomModels",
        raw=item,
    )


def _provisioned(item: _Item) -> ModelInfo:
    base = item.get("foundationModelArn")
    return ModelInfo(
        id=item["provisionedModelArn"],
        provider="bedrock",
        kind="provisioned_throughput",
        name=item.get("provisionedModelName"),
        base_model=model_id_of_arn(base) if base else None,
        on_demand=True,
        lifecycle=str(item.get("status", "")).lower() or None,
        source="ListProvisionedModelThroughputs",
        raw=item,
    )


_PAGE = (("maxResults", "1000"),)

LISTINGS: tuple[Listing, ...] = (
    Listing("ListFoundationModels", "/foundation-models", (), "modelSummaries", _foundation_model, optional=False),
    Listing(
        "ListInferenceProfiles",
        "/inference-profiles",
        (*_PAGE, ("type", "SYSTEM_DEFINED")),
        "inferenceProfileSummaries",
        _inference_profile,
    ),
    Listing(
        "ListInferenceProfiles",
        "/inference-profiles",
        (*_PAGE, ("type", "APPLICATION")),
        "inferenceProfileSummaries",
        _inference_profile,
    ),
    Listing("ListImportedModels", "/imported-models", _PAGE, "modelSummaries", _imported_model),
    Listing("ListCustomModels", "/custom-models", _PAGE, "modelSummaries", _custom_model),
    Listing(
        "ListProvisionedModelThroughputs",
        "/provisioned-model-throughputs",
        _PAGE,
        "provisionedModelSummaries",
        _provisioned,
    ),
)
"""What ``get_available_models`` asks, in the order in which it reports."""
