"""Makes the emulator's process importable from here."""

from __future__ import annotations

import sys
from pathlib import Path

_LIFECYCLE = str(Path(__file__).parent.parent / "lifecycle")
if _LIFECYCLE not in sys.path:
    sys.path.insert(0, _LIFECYCLE)
