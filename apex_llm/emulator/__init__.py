"""An emulator of both wires, in the package: Bedrock and Azure OpenAI on loopback, without a cloud.

Written from descriptions and recordings of the wires, and from nothing else of this package
but its vocabulary and framing, so that our client and our server cannot share a mistake.
Other people's clients are its judges.
"""

from __future__ import annotations

__all__ = [
    "FAULTS",
    "PORT_FAULTS",
    "Answer",
    "Emulator",
    "Fault",
    "FaultCall",
    "FaultConnection",
    "FaultPort",
    "FaultServer",
    "RecordedRequest",
]

from apex_llm.emulator.answers import Answer
from apex_llm.emulator.faults import FAULTS, PORT_FAULTS, Fault, FaultCall, FaultPort
from apex_llm.emulator.raw import FaultConnection, FaultServer
from apex_llm.emulator.recorded import RecordedRequest
from apex_llm.emulator.server import Emulator
