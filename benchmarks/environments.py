"""Where other people's packages live: environments of their own, made by ``scripts/bench`` from locked requirements.

A client is measured as somebody would install it, without what its neighbours pull in or pin: aiobotocore pins
botocore, litellm pins openai, and awscrt takes botocore's signing over where it is installed. Where an environment was
not made, its clients run in this one if their packages are there, and are left out if not.
"""

from __future__ import annotations

__all__ = ["NAMES", "interpreter", "is_possible", "versions"]

import functools
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
NAMES: Mapping[str, tuple[str, ...]] = {
    "": ("apex-llm", "msgspec", "httptools"),
    "vendors": ("boto3", "anthropic", "openai", "aiohttp", "httpx", "httpx2", "httpx-sse"),
    "aiobotocore": ("aiobotocore", "botocore"),
    "frameworks": ("langchain-aws", "pydantic-ai-slim"),
    "litellm": ("litellm",),
    "crt": ("awscrt",),
}
"""Each environment (ours without a name) with the distributions whose versions the results tell."""
_TELL = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def _own(name: str) -> Path:
    return _ROOT / ".venv-peers" / f"bench-{name}" / "bin" / "python"


def interpreter(name: str) -> str:
    """The interpreter of an environment; this one's where there is none."""
    return str(_own(name)) if name and _own(name).exists() else sys.executable


@functools.cache
def is_possible(module: str | None, environment: str) -> bool:
    """Whether ``module`` can be imported in ``environment``."""
    if module is None:
        return True
    if interpreter(environment) == sys.executable:
        return importlib.util.find_spec(module) is not None
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([interpreter(environment), "-c", found], check=False, capture_output=True).returncode == 0


def versions() -> dict[str, str]:
    """Distribution to version, of all environments."""
    found: dict[str, str] = {}
    for name, distributions in NAMES.items():
        told = subprocess.run(
            [interpreter(name), "-c", _TELL, *distributions], check=False, capture_output=True, text=True
        )
        found |= json.loads(told.stdout) if told.returncode == 0 else {}
    return found
