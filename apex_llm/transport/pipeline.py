"""Layers around a sender, as one ``Send``.

The whole of the middleware machinery. Which layers there are, and in which order, is the
provider's decision: observe, classify, throttle, authenticate, and then the sender.
"""

from __future__ import annotations

__all__ = ["compose"]

from collections.abc import Awaitable, Sequence

from apex_llm.types.http import HttpRequest, HttpResponse, Layer, Send


def compose(layers: Sequence[Layer], send: Send) -> Send:
    """``send`` wrapped in ``layers``; the first one is outermost and sees a request first.

    Composed once per provider, not per call: a call then costs one function call per layer.
    """
    for layer in reversed(layers):
        send = _wrap(layer, send)
    return send


def _wrap(layer: Layer, send: Send) -> Send:
    def wrapped(request: HttpRequest) -> Awaitable[HttpResponse]:
        return layer(request, send)

    return wrapped
