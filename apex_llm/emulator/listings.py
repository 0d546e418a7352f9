"""The listings of both clouds that tell what models there are.

Shapes follow the service model of bedrock 2023-04-20, and Azure's data-plane answers.
"""

from __future__ import annotations

__all__ = ["BedrockListings", "azure_base_models", "azure_deployments", "openai_models"]

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from apex_llm.emulator.models import BedrockModel, vendor_name
from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.wire import Refusal, Reply, compact

_LISTS = {
    "/foundation-models": "list-foundation-models",
    "/inference-profiles": "list-inference-profiles",
    "/imported-models": "list-imported-models",
    "/custom-models": "list-custom-models",
    "/provisioned-model-throughputs": "list-provisioned-model-throughputs",
}
_ITEMS = {"/foundation-models/": "get-foundation-model", "/inference-profiles/": "get-inference-profile"}
_DATE = "2026-01-15T00:00:00Z"
_CREATED = 1_768_435_200
_LARGEST_PAGE = 1000


class BedrockListings:
    """The control plane's read-only part for one region and account."""

    def __init__(
        self, *, region: str, account: str, models: dict[str, BedrockModel], profiles: Mapping[str, str], page_size: int
    ) -> None:
        self._region = region
        self._account = account
        self._models = models
        self._profiles = profiles
        self._page_size = page_size

    def identify(self, path: str) -> tuple[str, str]:
        """Operation and model of a path; both empty where it is no listing."""
        if path in _LISTS:
            return _LISTS[path], ""
        for prefix, operation in _ITEMS.items():
            if path.startswith(prefix) and "/" not in path[len(prefix) :]:
                return operation, unquote(path[len(prefix) :])
        return "", ""

    def application_model(self, arn: str) -> BedrockModel:
        """The model behind an application inference profile.

        Raises:
            Refusal: There is no such profile.
        """
        model = self._models.get(self._profiles.get(arn.rpartition("/")[2], ""))
        if model is None:
            raise Refusal(404, "ResourceNotFoundException", "The specified inference profile was not found.")
        return model

    def reply(self, request: RecordedRequest) -> Reply:
        """The answer to a listing.

        Raises:
            Refusal: For what is not there, or asked for in a wrong way.
        """
        query = request.query
        match request.operation:
            case "list-foundation-models":
                return _json({"modelSummaries": self._foundation_models(query)})
            case "get-foundation-model":
                model = self._models.get(request.model.rpartition("/")[2])
                if model is None:
                    raise Refusal(400, "ValidationException", "The provided model identifier is invalid.")
                return _json({"modelDetails": self._summary(model)})
            case "list-inference-profiles":
                return self._page("inferenceProfileSummaries", self._profile_summaries(query.get("type")), query)
            case "get-inference-profile":
                wanted = request.model.rpartition("/")[2]
                for summary in self._profile_summaries(None):
                    if summary["inferenceProfileId"] == wanted:
                        return _json(summary)
                raise Refusal(404, "ResourceNotFoundException", "The specified inference profile was not found.")
            case "list-provisioned-model-throughputs":
                return _json({"provisionedModelSummaries": []})
            case _:
                return _json({"modelSummaries": []})

    def _foundation_models(self, query: dict[str, str]) -> list[dict[str, Any]]:
        summaries = [self._summary(model) for model in self._models.values() if model.lifecycle != "retired"]
        vendor, output, inference = query.get("byProvider"), query.get("byOutputModality"), query.get("byInferenceType")
        return [
            summary
            for summary in summaries
            if (not vendor or summary["providerName"].lower() == vendor.lower())
            and (not output or output in summary["outputModalities"])
            and (not inference or inference in summary["inferenceTypesSupported"])
        ]

    def _summary(self, model: BedrockModel) -> dict[str, Any]:
        return {
            "customizationsSupported": [],
            "inferenceTypesSupported": ["INFERENCE_PROFILE"] if model.profile_only else ["ON_DEMAND"],
            "inputModalities": [name.upper() for name in model.inputs],
            "modelArn": self._model_arn(model.id),
            "modelId": model.id,
            "modelLifecycle": {"status": "LEGACY" if model.lifecycle != "active" else "ACTIVE"},
            "modelName": _display_name(model.id),
            "outputModalities": [model.output],
            "providerName": vendor_name(model.vendor),
            "responseStreamingSupported": model.mode == "chat",
        }

    def _profile_summaries(self, kind: str | None) -> list[dict[str, Any]]:
        summaries: list[dict[str, Any]] = []
        if kind in {None, "SYSTEM_DEFINED"}:
            here = _geography(self._region)
            for model in self._models.values():
                if model.lifecycle == "retired":
                    continue
                for prefix in model.geographies:
                    if prefix in {"global", here}:
                        name = f"{prefix.upper()} {_display_name(model.id)}"
                        summaries.append(self._profile(f"{prefix}.{model.id}", name, model.id, "SYSTEM_DEFINED"))
        if kind in {None, "APPLICATION"}:
            for identifier, model_id in self._profiles.items():
                summaries.append(self._profile(identifier, f"application-{identifier}", model_id, "APPLICATION"))
        return summaries

    def _profile(self, identifier: str, name: str, model_id: str, kind: str) -> dict[str, Any]:
        resource = "application-inference-profile" if kind == "APPLICATION" else "inference-profile"
        return {
            "createdAt": _DATE,
            "description": f"Routes requests to {_display_name(model_id)}.",
            "inferenceProfileArn": f"arn:aws:bedrock:{self._region}:{self._account}:{resource}/{identifier}",
            "inferenceProfileId": identifier,
            "inferenceProfileName": name,
            "models": [{"modelArn": self._model_arn(model_id)}],
            "status": "ACTIVE",
            "type": kind,
            "updatedAt": _DATE,
        }

    def _page(self, key: str, items: list[dict[str, Any]], query: dict[str, str]) -> Reply:
        try:
            size = int(query.get("maxResults", self._page_size))
            token = query.get("nextToken")
            start = int(base64.urlsafe_b64decode(token)) if token else 0
        except ValueError:
            raise Refusal(400, "ValidationException", "maxResults or nextToken is invalid.") from None
        if not 1 <= size <= _LARGEST_PAGE:
            raise Refusal(400, "ValidationException", f"maxResults must be between 1 and {_LARGEST_PAGE}, not {size}.")
        page: dict[str, Any] = {key: items[start : start + size]}
        if start + size < len(items):
            page["nextToken"] = base64.urlsafe_b64encode(str(start + size).encode()).decode()
        return _json(page)

    def _model_arn(self, model_id: str) -> str:
        return f"arn:aws:bedrock:{self._region}::foundation-model/{model_id}"


def azure_deployments(deployments: Mapping[str, str]) -> Reply:
    """The old data-plane list of deployments."""
    return _json(
        {
            "data": [
                {
                    "scale_settings": {"scale_type": "standard"},
                    "model": model,
                    "owner": "organization-owner",
                    "id": name,
                    "status": "succeeded",
                    "created_at": _CREATED,
                    "updated_at": _CREATED,
                    "object": "deployment",
                }
                for name, model in deployments.items()
            ],
            "object": "list",
        }
    )


def azure_base_models(models: list[str]) -> Reply:
    """The dated list of base models."""
    return _json(
        {
            "data": [
                {
                    "capabilities": {
                        "fine_tune": False,
                        "inference": True,
                        "completion": False,
                        "chat_completion": not _embeds(model),
                        "embeddings": _embeds(model),
                    },
                    "lifecycle_status": "generally-available",
                    "deprecation": {"inference": _CREATED + 63_072_000},
                    "id": model,
                    "status": "succeeded",
                    "created_at": _CREATED,
                    "updated_at": _CREATED,
                    "object": "model",
                }
                for model in models
            ],
            "object": "list",
        }
    )


def openai_models(models: list[str]) -> Reply:
    """The v1 list of base models."""
    items = [{"id": model, "object": "model", "created": _CREATED, "owned_by": "system"} for model in models]
    return _json({"object": "list", "data": items})


def _embeds(model: str) -> bool:
    return "embedding" in model


def _json(value: Any) -> Reply:
    return Reply(body=compact(value))


def _geography(region: str) -> str:
    if region.startswith("us-gov-"):
        return "us-gov"
    head = region.partition("-")[0]
    if region == "ap-northeast-1":
        return "jp"
    if region == "ap-southeast-2":
        return "au"
    return {"ap": "apac"}.get(head, head)


def _display_name(model_id: str) -> str:
    name = model_id.partition(".")[2].partition(":")[0].replace("-", " ")
    return name.title()
