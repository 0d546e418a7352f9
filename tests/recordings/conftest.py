"""Makes ``from recorded import load_recordings`` work: pytest's importlib and prepend modes alike."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)
