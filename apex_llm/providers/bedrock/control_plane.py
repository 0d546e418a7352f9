"""What Bedrock's control plane is asked: which models, profiles and own models an account can call.

Wire shapes: botocore 1.44.5, service ``bedrock``; only the members that we read. Everything
the service adds stays in ``ModelInfo.raw``.
"""

from __future__ import annotations

__all__ = [
    "LISTINGS",
    "Listing",
    "base_model_of_profile",
    "list_models",
    "model_behind",
    "model_id_of_arn",
    "read_page",
]

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

import msgspec

from apex_llm.errors import (
    ConnectionFailedError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    ResponseFormatError,
)
from apex_llm.providers.algorithm import Get, Plane
from apex_llm.providers.backend import query_string
from apex_llm.providers.bedrock.models import model_segment
from apex_llm.types.http import Timeout
from apex_llm.types.models import ModelInfo

T = TypeVar("T")

_Item = Mapping[str, Any]
_REFUSALS = (PermissionDeniedError, ModelNotFoundError, InvalidRequestError)
"""What an account that may call models, and not ask about them, is answered."""

_logger = logging.getLogger("apex_llm.bedrock")


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


async def list_models(plane: Plane, *, get: Get) -> list[ModelInfo]:
    """Everything that the account can call; what it may not list is left out, foundation models excepted."""
    required = [listing for listing in LISTINGS if not listing.optional]
    optional = [listing for listing in LISTINGS if listing.optional]
    pages = [await _list(plane, listing, get=get) for listing in required]
    pages += await _together(*(partial(_list_if_allowed, plane, listing, get=get) for listing in optional))
    return [model for page in pages for model in page]


async def _list_if_allowed(plane: Plane, listing: Listing, *, get: Get) -> list[ModelInfo]:
    try:
        return await _list(plane, listing, get=get)
    except _REFUSALS as error:
        _logger.info("left %s out of the models: %s", listing.operation, error.code)
        return []


async def _list(plane: Plane, listing: Listing, *, get: Get) -> list[ModelInfo]:
    models: list[ModelInfo] = []
    token: str | None = None
    while True:
        query = (*listing.query, *((("nextToken", token),) if token else ()))
        target = plane.endpoint.base_path + listing.path + query_string(*query)
        page, token = read_page(listing, await get(plane, target, operation=listing.operation))
        models += page
        if not token:
            return models


async def model_behind(
    profile: str,
    plane: Plane,
    *,
    get: Get,
    timeout: Timeout,  # noqa: ASYNC109 - that of the call which wants to know
) -> str | None:
    """The id of the model that an application inference profile leads to.

    ``None`` where we may not know, or cannot: a network may let calls to models out, and nothing else. The call is made
    all the same then, as for a model of which nothing is known.
    """
    target = f"{plane.endpoint.base_path}/inference-profiles/{model_segment(profile)}"
    try:
        return base_model_of_profile(await get(plane, target, operation="GetInferenceProfile", timeout=timeout))
    except (*_REFUSALS, ConnectionFailedError) as error:
        _logger.info("cannot tell which model %s stands for: %s", profile, error.code)
        return None


async def _together(*calls: Callable[[], Awaitable[T]]) -> list[T]:
    """All results, in the order of the calls, made at once; the first failure cancels the rest and is raised."""
    import anyio

    results: list[T | None] = [None] * len(calls)

    async def keep(position: int, call: Callable[[], Awaitable[T]]) -> None:
        results[position] = await call()

    try:
        async with anyio.create_task_group() as group:
            for position, call in enumerate(calls):
                group.start_soon(keep, position, call)
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures
    return cast("list[T]", results)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    error = failures.exceptions[0]
    return _first(cast("BaseExceptionGroup[BaseException]", error)) if isinstance(error, BaseExceptionGroup) else error
