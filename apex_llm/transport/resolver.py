"""Names to addresses, without holding up the loop or the interpreter's exit.

``getaddrinfo`` blocks and cannot be interrupted, so it runs on a daemon thread (``background``).
Also refuses addresses that no model answers at (link-local, and with it the metadata services).
"""

from __future__ import annotations

__all__ = ["Address", "Resolver", "is_link_local"]

import functools
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from apex_llm.errors import ConnectionFailedError, InvalidEndpointError
from apex_llm.protocol import addresses
from apex_llm.transport.background import SingleFlight
from apex_llm.transport.network_errors import connection_failed

Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Address family and the address as ``socket.connect`` takes it."""

Lookup: TypeAlias = Callable[[str, int], Sequence[Address]]

_AWS_METADATA = "fd00:ec2::254"


def _lookup(host: str, port: int) -> Sequence[Address]:
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in answers))


@functools.lru_cache(maxsize=256)  # pure, and each connection asks again
def is_link_local(address: str) -> bool:
    """Whether an IP address is link-local or a cloud's metadata service, also when it is wrapped in IPv6."""
    address = address.partition("%")[0]
    parsed = addresses.ipv6(address)
    if parsed is not None:
        if str(parsed) == _AWS_METADATA:
            return True
        address = str(parsed.ipv4_mapped or parsed.sixtofour or parsed)
    return addresses.is_link_local(address)


class Resolver:
    """Looks names up, each (loop, host, port) once at a time however many calls wait for it.

    Args:
        lookup: Replaces ``socket.getaddrinfo``; runs on a thread of its own, and may raise ``OSError``.
        allow_link_local: Let link-local and metadata addresses pass (for credential sources only).
    """

    def __init__(self, lookup: Lookup = _lookup, *, allow_link_local: bool = False) -> None:
        self._lookup = lookup
        self._allow_link_local = allow_link_local
        self._flights: SingleFlight[Sequence[Address]] = SingleFlight(name="apex_llm-resolver")

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Addresses to try, best first.

        Raises:
            ConnectionFailedError: the name was not found (``kind="dns"``).
            InvalidEndpointError: it stands for nothing but link-local addresses.
        """
        literal = _literal(host, port)
        if literal is not None:
            addresses: Sequence[Address] = [literal]
        else:
            try:
                addresses = await self._flights.run((host, port), lambda: self._lookup(host, port))
            except (OSError, UnicodeError) as error:
                raise _dns_failure(error, host) from error
        if not self._allow_link_local:
            allowed = [address for address in addresses if not is_link_local(str(address[1][0]))]
            if addresses and not allowed:
                raise InvalidEndpointError(
                    f"{host} stands for the link-local address {addresses[0][1][0]}, where no model answers.",
                    phase="connect",
                )
            addresses = allowed
        if not addresses:
            raise ConnectionFailedError(f"The name {host} has no address.", kind="dns", phase="connect")
        return addresses


def _literal(host: str, port: int) -> Address | None:
    if addresses.ipv4(host) is not None:
        return socket.AF_INET, (host, port)
    if "%" not in host and addresses.ipv6(host) is not None:
        return socket.AF_INET6, (host, port, 0, 0)
    return None


def _dns_failure(error: BaseException, host: str) -> ConnectionFailedError:
    if isinstance(error, OSError):
        failure = connection_failed(error, host=host, phase="connect")
        failure.kind = "dns"
        return failure
    return ConnectionFailedError(f"{host!r} is not a host name.", kind="dns", retryable=False, phase="connect")
