"""Makes the recordings' loader importable from here, and from the script that runs the long form."""

from __future__ import annotations

import sys
from pathlib import Path

_RECORDINGS = str(Path(__file__).parent.parent / "recordings")
if _RECORDINGS not in sys.path:
    sys.path.insert(0, _RECORDINGS)
