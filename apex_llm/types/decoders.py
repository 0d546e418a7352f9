"""Typed JSON decoders, made one at a time.

msgspec studies a ``Struct`` when the first decoder that meets it is made, and remembers what it has
found on the class while it is still at it. Another thread that decodes meanwhile reads what is
half-written, and the process ends. So whatever decodes into types of ours gets its decoder here.
"""

from __future__ import annotations

__all__ = ["decoder_for"]

import functools
import os
import threading
from typing import Any

import msgspec

_making = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A child must inherit neither the lock in other hands nor a class that is half studied.
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


@functools.lru_cache(maxsize=256)  # a decoder that is made anew for `dict[str, Any]` costs four times the decoding
def decoder_for(shape: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of ``shape``, which is anything that msgspec decodes; made once."""
    with _making:
        return msgspec.json.Decoder(shape)
