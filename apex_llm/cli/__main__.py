"""``python -m apex_llm.cli``: the command line, where the script is not on the path."""

from __future__ import annotations

__all__: list[str] = []

from apex_llm.cli import main

if __name__ == "__main__":
    main()
