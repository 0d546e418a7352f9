"""The command line, ``apex-llm``.

click and rich are imported here and nowhere else, and only when a command runs.
"""

from __future__ import annotations

__all__ = ["main"]

import sys
from importlib.util import find_spec


def main() -> None:
    """Run ``apex-llm``; the entry point of the installed script. Leaves by ``SystemExit``."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        print(
            f"The command line needs packages that are not installed: {', '.join(missing)}.\n"
            "Install them with: pip install 'apex-llm[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(1)
    from apex_llm.cli.application import run

    raise SystemExit(run())
