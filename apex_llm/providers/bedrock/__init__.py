"""AWS Bedrock: Converse for every model, and Claude's native format."""

from __future__ import annotations

__all__ = ["BedrockProvider"]

from apex_llm.providers.bedrock.provider import BedrockProvider
