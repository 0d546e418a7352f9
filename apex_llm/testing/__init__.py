"""Help for the tests of applications that use this package; see ``pytest_plugin``."""

from __future__ import annotations

__all__: list[str] = []
