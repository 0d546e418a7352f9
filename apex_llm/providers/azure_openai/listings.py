"""Azure's three answers to "what can I call?", from the most telling to the least.

The old data-plane list of deployments is one cheap GET that many resources still answer. The
management plane lists deployments for those who hold a token for it. Failing both, the
resource lists base models, which are not deployments; ``ModelInfo.source`` says which it was.
"""

from __future__ import annotations

__all__ = [
    "list_models",
    "read_base_models",
    "read_data_plane_deployments",
    "read_managed_deployments",
]

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from apex_llm.errors import ConfigurationError, RequestError, ResponseFormatError
from apex_llm.providers.algorithm import Get, Plane
from apex_llm.providers.azure_openai.endpoints import AzureSurface
from apex_llm.providers.backend import query_string
from apex_llm.types.models import ModelInfo

_DEPLOYMENTS_VERSION: Final = "2023-03-15-preview"
"""The last version of the data plane that lists deployments."""
_MODELS_VERSION: Final = "2024-10-21"
_MANAGEMENT_VERSION: Final = "2025-06-01"

_Item = Mapping[str, Any]

_logger = logging.getLogger("apex_llm.azure_openai")


async def list_models(
    surface: AzureSurface, plane: Plane, *, get: Get, resource_id: str | None, management: Callable[[], Plane]
) -> list[ModelInfo]:
    """What the first plane that answers lists.

    Args:
        surface: Of the resource.
        plane: The resource itself.
        get: Asks a plane.
        resource_id: As the management plane names the resource; without it, that plane is not asked.
        management: The management plane; raises ``ConfigurationError`` where there is no way to it.
    """
    base = surface.endpoint.base_path
    try:
        target = f"{base}/openai/deployments{query_string(('api-version', _DEPLOYMENTS_VERSION))}"
        return read_data_plane_deployments(await get(plane, target, operation="list-deployments"))
    except RequestError as error:
        _logger.info("the data plane does not list deployments here: %s", error.code)
    if resource_id is not None:
        try:
            return await _managed_deployments(resource_id, management(), get=get)
        except (RequestError, ConfigurationError) as error:
            _logger.info("the management plane did not list deployments: %s", error.code)
    if surface.is_v1:
        target = f"{surface.root}/models{query_string(*surface.query)}"
    else:
        target = f"{base}/openai/models{query_string(('api-version', _MODELS_VERSION))}"
    return read_base_models(await get(plane, target, operation="list-models"))


async def _managed_deployments(resource_id: str, plane: Plane, *, get: Get) -> list[ModelInfo]:
    from urllib.parse import urlsplit

    path = f"{plane.endpoint.base_path}/{resource_id.strip('/')}/deployments"
    target = path + query_string(("api-version", _MANAGEMENT_VERSION))
    models: list[ModelInfo] = []
    while True:
        page, following = read_managed_deployments(await get(plane, target, operation="list-deployments"))
        models += page
        if not following:
            return models
        parts = urlsplit(following)  # only the path is followed: the host stays the one that was checked
        target = f"{parts.path}?{parts.query}"


def _read(body: bytes, key: str, read: Callable[[_Item], ModelInfo]) -> tuple[list[ModelInfo], str | None]:
    try:
        page: Any = msgspec.json.decode(body)
        items = cast("list[_Item]", page.get(key) or [])
        return [read(item) for item in items], page.get("nextLink")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise ResponseFormatError("The listing is not in the format that the service documents.") from error


def read_data_plane_deployments(body: bytes) -> list[ModelInfo]:
    """Deployments from ``GET /openai/deployments``."""
    return _read(body, "data", _data_plane_deployment)[0]


def read_managed_deployments(body: bytes) -> tuple[list[ModelInfo], str | None]:
    """Deployments from the management plane, and the URL of the next page."""
    return _read(body, "value", _managed_deployment)


def read_base_models(body: bytes) -> list[ModelInfo]:
    """Base models from ``GET /openai/models``."""
    return _read(body, "data", _base_model)[0]


def _data_plane_deployment(item: _Item) -> ModelInfo:
    return ModelInfo(
        id=item["id"],
        provider="azure_openai",
        kind="deployment",
        vendor="OpenAI",
        base_model=item.get("model"),
        lifecycle=str(item.get("status", "")).lower() or None,
        source="data-plane deployments",
        raw=item,
    )


def _managed_deployment(item: _Item) -> ModelInfo:
    properties = cast("_Item", item.get("properties") or {})
    model = cast("_Item", properties.get("model") or {})
    return ModelInfo(
        id=item["name"],
        provider="azure_openai",
        kind="deployment",
        vendor=model.get("format"),
        base_model=model.get("name"),
        lifecycle=str(properties.get("provisioningState", "")).lower() or None,
        source="management-plane deployments",
        raw=item,
    )


def _base_model(item: _Item) -> ModelInfo:
    capabilities = cast("_Item", item.get("capabilities") or {})
    chat = capabilities.get("chat_completion") or capabilities.get("completion")
    return ModelInfo(
        id=item["id"],
        provider="azure_openai",
        kind="base_model",
        vendor=item.get("owned_by"),
        input_modalities=("text",) if capabilities else (),
        output_modalities=("embedding",) if capabilities.get("embeddings") else ("text",) if chat else (),
        lifecycle=item.get("lifecycle_status"),
        source="base models (deployments could not be listed)",
        raw=item,
    )
