"""Azure OpenAI: dated deployments and the v1 surface."""

from __future__ import annotations

__all__ = ["AzureOpenAIProvider"]

from apex_llm.providers.azure_openai.provider import AzureOpenAIProvider
