"""All faults that answer a request, by name."""

from __future__ import annotations

__all__ = ["FAULTS", "find_fault"]

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from apex_llm.emulator.faults.base import Fault
from apex_llm.emulator.faults.bodies import BODY_FAULTS
from apex_llm.emulator.faults.heads import HEAD_FAULTS
from apex_llm.emulator.faults.statuses import STATUS_FAULTS
from apex_llm.emulator.faults.streams import STREAM_FAULTS
from apex_llm.errors import ConfigurationError

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {fault.name: fault for fault in (*HEAD_FAULTS, *BODY_FAULTS, *STATUS_FAULTS, *STREAM_FAULTS)}
)
"""Name to fault, in the order of their rows."""


def find_fault(name: str) -> Fault:
    """The fault of that name.

    Raises:
        ConfigurationError: There is none.
    """
    fault = FAULTS.get(name)
    if fault is None:
        near = difflib.get_close_matches(name, FAULTS, n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "apex-llm emulate --list-faults lists them."
        raise ConfigurationError(f"No fault is called {name!r}.", hint=hint)
    return fault
