"""The models that the emulated Bedrock knows: a small excerpt of the real catalogue, as data.

Collected in November 2026 from public price maps and AWS's lifecycle lists. It exists so that
resolution, listings and refusals can be exercised; it is not a reference of what a region offers.
"""

from __future__ import annotations

__all__ = ["GEOGRAPHIES", "BedrockModel", "catalogue", "vendor_name"]

import msgspec

GEOGRAPHIES = ("us-gov", "global", "apac", "us", "eu", "jp", "au", "ca", "in")
"""Prefixes of system-defined inference profiles."""

_VENDORS = {
    "ai21": "AI21 Labs",
    "amazon": "Amazon",
    "anthropic": "Anthropic",
    "cohere": "Cohere",
    "deepseek": "DeepSeek",
    "google": "Google",
    "meta": "Meta",
    "minimax": "MiniMax",
    "mistral": "Mistral AI",
    "moonshotai": "Moonshot AI",
    "nvidia": "NVIDIA",
    "openai": "OpenAI",
    "qwen": "Qwen",
    "stability": "Stability AI",
    "twelvelabs": "TwelveLabs",
    "writer": "Writer",
    "xai": "xAI",
    "zai": "Z.AI",
}

# id | mode | input modalities | inference profile prefixes | lifecycle | notes
_ROWS = """
ai21.jamba-1-5-mini-v1:0 | chat | text |  | legacy |
amazon.nova-2-lite-v1:0 | chat | text,image,document,video | apac eu global jp us | active | profile
amazon.nova-2-multimodal-embeddings-v1:0 | embedding | text,image,video,audio |  | active |
amazon.nova-canvas-v1:0 | image | text,image | us | active |
amazon.nova-lite-v1:0 | chat | text,image,document | apac eu us | active |
amazon.nova-micro-v1:0 | chat | text | apac eu us | active |
amazon.nova-pro-v1:0 | chat | text,image,document | apac eu us | active |
amazon.rerank-v1:0 | rerank | text |  | active |
amazon.titan-embed-image-v1 | embedding | text,image |  | active |
amazon.titan-embed-text-v1 | embedding | text |  | active |
amazon.titan-embed-text-v2:0 | embedding | text |  | active |
amazon.titan-text-express-v1 | chat | text |  | retired | no-streaming-tools
anthropic.claude-3-5-haiku-20241022-v1:0 | chat | text,document | eu us | retired |
anthropic.claude-3-5-sonnet-20241022-v2:0 | chat | text,image,document | eu us | retired |
anthropic.claude-3-7-sonnet-20250219-v1:0 | chat | text,image,document | eu us | retired |
anthropic.claude-3-opus-20240229-v1:0 | chat | text,image | eu us | retired |
anthropic.claude-fable-5-1 | chat | text,image,document | eu global us us-gov | active | profile
anthropic.claude-haiku-4-5-20251001-v1:0 | chat | text,image,document | apac au eu global jp us | active | profile
anthropic.claude-haiku-5-5 | chat | text,image,document | apac au eu global jp us us-gov | active | profile
anthropic.claude-instant-v1 | chat | text |  | retired | no-streaming-tools
anthropic.claude-opus-4-1-20250805-v1:0 | chat | text,image,document | eu us | legacy | profile
anthropic.claude-opus-4-5-20251101-v1:0 | chat | text,image,document | eu global us | active | profile
anthropic.claude-opus-4-6-v1 | chat | text,image,document | au eu global us | active | profile
anthropic.claude-opus-4-7 | chat | text,image,document | apac au eu global jp us | active | profile
anthropic.claude-opus-4-8 | chat | text,image,document | apac au eu global jp us us-gov | active | profile
anthropic.claude-opus-5 | chat | text,image,document | apac au eu global jp us us-gov | active | profile
anthropic.claude-opus-5-5 | chat | text,image,document | apac au eu global jp us us-gov | active | profile
anthropic.claude-sonnet-4-20250514-v1:0 | chat | text,image,document | apac eu global us | retired |
anthropic.claude-sonnet-4-5-20250929-v1:0 | chat | text,image,document | au eu global jp us us-gov | legacy | profile
anthropic.claude-sonnet-4-6 | chat | text,image,document | apac au eu global jp us | active | profile
anthropic.claude-sonnet-5 | chat | text,image,document | apac au eu global jp us us-gov | active | profile
anthropic.claude-sonnet-5-5 | chat | text,image,document | apac au eu global jp us us-gov | active | profile
anthropic.claude-v2:1 | chat | text |  | retired | no-streaming-tools
cohere.embed-english-v3 | embedding | text,image |  | active |
cohere.embed-multilingual-v3 | embedding | text,image |  | active |
cohere.embed-v4:0 | embedding | text,image | global us | active |
cohere.rerank-v3-5:0 | rerank | text |  | active |
deepseek.r1-v1:0 | chat | text | us | legacy | profile no-streaming-tools
deepseek.v3.2 | chat | text | eu us | active |
google.gemma-3-27b-it | chat | text,image |  | legacy |
meta.llama2-13b-chat-v1 | chat | text |  | retired | no-streaming-tools
meta.llama2-70b-chat-v1 | chat | text |  | retired | no-streaming-tools
meta.llama3-3-70b-instruct-v1:0 | chat | text | us | legacy | profile no-streaming-tools
meta.llama3-8b-instruct-v1:0 | chat | text |  | legacy | no-streaming-tools
meta.llama4-maverick-17b-instruct-v1:0 | chat | text | us | legacy | profile no-streaming-tools
minimax.minimax-m2.5 | chat | text |  | active |
mistral.mistral-7b-instruct-v0:2 | chat | text |  | legacy | no-streaming-tools
mistral.mistral-large-2402-v1:0 | chat | text |  | active | no-streaming-tools
mistral.mistral-large-3-675b-instruct | chat | text,image |  | active | no-streaming-tools
mistral.pixtral-large-2502-v1:0 | chat | text | eu us | active | profile no-streaming-tools
moonshotai.kimi-k3 | chat | text,image | global in us | active |
nvidia.nemotron-super-3-120b | chat | text | us-gov | active |
openai.gpt-5.4 | chat | text,image | global us | active | profile
openai.gpt-oss-120b-1:0 | chat | text | us-gov | active |
openai.gpt-oss-20b-1:0 | chat | text | us-gov | active |
qwen.qwen3-32b-v1:0 | chat | text |  | active |
qwen.qwen3-next-80b-a3b | chat | text |  | active |
stability.stable-image-core-v1:1 | image | text,image |  | active |
twelvelabs.marengo-embed-3-0-v1:0 | embedding | text,image,video,audio | eu us | active |
twelvelabs.pegasus-1-2-v1:0 | chat | video,text | eu global us | legacy | profile
writer.palmyra-x5-v1:0 | chat | text,document | us | legacy | profile no-streaming-tools
xai.grok-4.7 | chat | text,image | global us | active | profile
zai.glm-5 | chat | text |  | active |
"""


class BedrockModel(msgspec.Struct, frozen=True, kw_only=True):
    """One foundation model."""

    id: str
    mode: str
    """``chat``, ``embedding``, ``rerank`` or ``image``."""
    inputs: tuple[str, ...]
    geographies: tuple[str, ...]
    lifecycle: str
    """``active``, ``legacy`` or ``retired``; a retired one is not listed, and answers 404."""
    profile_only: bool
    """Whether the bare id is refused, and an inference profile is needed."""
    streaming_tools: bool
    """Whether tools can be used in a stream."""

    @property
    def vendor(self) -> str:
        """The first label of the id, such as ``anthropic``."""
        return self.id.partition(".")[0]

    @property
    def output(self) -> str:
        """The one output modality, in the control plane's word."""
        return {"embedding": "EMBEDDING", "image": "IMAGE"}.get(self.mode, "TEXT")


def catalogue() -> dict[str, BedrockModel]:
    """Every known model by its bare id."""
    models: dict[str, BedrockModel] = {}
    for row in _ROWS.strip().splitlines():
        identifier, mode, inputs, geographies, lifecycle, notes = (cell.strip() for cell in row.split("|"))
        models[identifier] = BedrockModel(
            id=identifier,
            mode=mode,
            inputs=tuple(inputs.split(",")),
            geographies=tuple(geographies.split()),
            lifecycle=lifecycle,
            profile_only="profile" in notes.split(),
            streaming_tools="no-streaming-tools" not in notes.split(),
        )
    return models


def vendor_name(vendor: str) -> str:
    """``Anthropic`` for ``anthropic``."""
    return _VENDORS.get(vendor, vendor.title())
