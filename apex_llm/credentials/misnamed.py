"""Variables that people set, and that nobody reads: known so that an error can say what they should be called."""

from __future__ import annotations

__all__ = ["ENDPOINTS_OF_AZURE", "KEYS_OF_AWS", "KEYS_OF_AZURE", "misnamed"]

from collections.abc import Mapping
from typing import Final

KEYS_OF_AWS: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY": "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_KEY": "AWS_SECRET_ACCESS_KEY",
    "AWS_BEARER_TOKEN": "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_BEDROCK_API_KEY": "AWS_BEARER_TOKEN_BEDROCK",
    "BEDROCK_API_KEY": "AWS_BEARER_TOKEN_BEDROCK",
}
KEYS_OF_AZURE: Final[Mapping[str, str]] = {
    "AZURE_OPENAI_KEY": "AZURE_OPENAI_API_KEY",
    "AZURE_API_KEY": "AZURE_OPENAI_API_KEY",
    "OPENAI_API_KEY": "AZURE_OPENAI_API_KEY",
    "AZURE_AD_TOKEN": "AZURE_OPENAI_AD_TOKEN",
}
ENDPOINTS_OF_AZURE: Final[Mapping[str, str]] = {
    "AZURE_OPENAI_BASE_URL": "AZURE_OPENAI_ENDPOINT",
    "AZURE_OPENAI_API_BASE": "AZURE_OPENAI_ENDPOINT",
    "AZURE_API_BASE": "AZURE_OPENAI_ENDPOINT",
    "OPENAI_API_BASE": "AZURE_OPENAI_ENDPOINT",
    "OPENAI_BASE_URL": "AZURE_OPENAI_ENDPOINT",
}


def misnamed(names: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """What to do about the variables of ``names`` that are set; ``None`` if none is."""
    found = [f"{name} is set, but only {right} is read" for name, right in names.items() if environ.get(name)]
    return f"{'; '.join(found)}." if found else None
