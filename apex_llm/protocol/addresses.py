"""Hosts that are IP addresses: which they are, and which of them are this machine.

``ipaddress`` knows all of this, and importing it takes as long as dozens of calls. Names and IPv4
addresses, which nearly all hosts are, are told apart here; it is asked about IPv6 only.
"""

from __future__ import annotations

__all__ = ["ipv4", "ipv6", "is_address", "is_link_local", "is_loopback"]

import functools

TYPE_CHECKING = False  # as in apex_llm
if TYPE_CHECKING:
    from ipaddress import IPv6Address


@functools.lru_cache(maxsize=64)  # pure, and each connection asks again
def ipv4(host: str) -> tuple[int, ...] | None:
    """The four numbers of an IPv4 address in its usual form; ``None`` for anything else."""
    parts = host.split(".")
    if len(parts) != 4 or not host.isascii():
        return None
    if not all(part.isdigit() and len(part) <= 3 and (part == "0" or part[0] != "0") for part in parts):
        return None  # with a zero in front some systems read octal
    numbers = tuple(map(int, parts))
    return numbers if max(numbers) <= 255 else None


def ipv6(host: str) -> IPv6Address | None:
    """The IPv6 address that ``host`` is, zone included; ``None`` for anything else."""
    if ":" not in host:
        return None
    from ipaddress import IPv6Address

    try:
        return IPv6Address(host)
    except ValueError:
        return None


def is_address(host: str) -> bool:
    """Whether ``host`` is an address and not a name."""
    return ipv4(host) is not None or ipv6(host) is not None


def is_loopback(host: str) -> bool:
    """Whether ``host`` is an address of this machine, in ``127.0.0.0/8`` or ``::1``."""
    numbers = ipv4(host)
    if numbers is not None:
        return numbers[0] == 127
    address = ipv6(host)
    return address is not None and address.is_loopback


def is_link_local(host: str) -> bool:
    """Whether ``host`` is an address in ``169.254.0.0/16`` or ``fe80::/10``."""
    numbers = ipv4(host)
    if numbers is not None:
        return numbers[:2] == (169, 254)
    address = ipv6(host)
    return address is not None and address.is_link_local
