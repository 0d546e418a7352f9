"""The faults that the emulator can play, each under a name.

::

    with Emulator(faults=["reset-before-head", "truncated-stream"]) as emulator:
        ...                                  # the first two calls go wrong
        emulator.fault("throttled-for-700-ms")   # and so does the next one

Faults that strike before a request can be made are ports of their own: ``FaultPort``.
"""

from __future__ import annotations

__all__ = ["FAULTS", "PORT_FAULTS", "Fault", "FaultCall", "FaultPort", "Player"]

from apex_llm.emulator.faults.base import Fault, FaultCall, Player
from apex_llm.emulator.faults.ports import PORT_FAULTS, FaultPort
from apex_llm.emulator.faults.registry import FAULTS
