"""Azure's three answers to "what can I call?", from the most telling to the least.

The old data-plane list of deployments is one cheap GET that many resources still answer. The
management plane lists deployments for those who hold a token for it. Failing both, the
resource lists base models, which are not deployments; ``ModelInfo.source`` says which it was.
"""

from __future__ import annotations

__all__ = [
    "DEPLOYMENTS_VERSION",
    "MANAGEMENT_SCOPE",
    "MANAGEMENT_VERSION",
    "MODELS_VERSION",
    "read_base_models",
    "read_data_plane_deployments",
    "read_managed_deployments",
]

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from apex_llm.errors import ResponseFormatError
from apex_llm.types.models import ModelInfo

DEPLOYMENTS_VERSION: Final = "2023-03-15-preview"
"""The last version of the data plane that lists deployments."""
MODELS_VERSION: Final = "2024-10-21"
MANAGEMENT_VERSION: Final = "2025-06-01"
MANAGEMENT_SCOPE: Final = "https://management.azure.com/.default"

_Item = Mapping[str, Any]


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
