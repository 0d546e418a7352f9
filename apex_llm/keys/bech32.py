"""Bech32, as age spells its keys (BIP 173 without its limit of 90 characters).

An identity is ``AGE-SECRET-KEY-1`` and 32 bytes, a recipient ``age1`` and 32 bytes. Encoding
only: what the bytes mean is age's business.
"""

from __future__ import annotations

__all__ = ["decode", "encode", "identity_from_bytes", "identity_to_bytes"]

from collections.abc import Iterable

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_IDENTITY_PREFIX = "age-secret-key-"
_KEY_BYTES = 32


def _checksum(values: Iterable[int]) -> int:
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                remainder ^= generator
    return remainder


def _expanded(prefix: str) -> list[int]:
    return [ord(character) >> 5 for character in prefix] + [0] + [ord(character) & 31 for character in prefix]


def _regroup(values: Iterable[int], size: int, wanted: int, *, pad: bool) -> list[int]:
    held = bits = 0
    groups: list[int] = []
    for value in values:
        held = held << size | value
        bits += size
        while bits >= wanted:
            bits -= wanted
            groups.append(held >> bits & (1 << wanted) - 1)
        held &= (1 << bits) - 1
    if pad:
        if bits:
            groups.append(held << wanted - bits & (1 << wanted) - 1)
    elif bits >= size or held:
        raise ValueError("The padding is not zero.")
    return groups


def encode(prefix: str, payload: bytes) -> str:
    """``payload`` under a human-readable ``prefix``, in lower case."""
    groups = _regroup(payload, 8, 5, pad=True)
    check = _checksum([*_expanded(prefix), *groups, *[0] * 6]) ^ 1
    groups += [check >> 5 * (5 - position) & 31 for position in range(6)]
    return prefix + "1" + "".join(_ALPHABET[group] for group in groups)


def decode(text: str) -> tuple[str, bytes]:
    """Prefix, in lower case, and payload.

    Raises:
        ValueError: It is not Bech32, or a character was mistyped.
    """
    if text != text.lower() and text != text.upper():
        raise ValueError("It mixes upper and lower case.")
    text = text.lower()
    prefix, separator, rest = text.rpartition("1")
    if not separator or not prefix or len(rest) < 6:
        raise ValueError("It is not Bech32.")
    groups = [_ALPHABET.find(character) for character in rest]
    if -1 in groups or not all("!" <= character <= "~" for character in prefix):
        raise ValueError("It holds a character that Bech32 does not have.")
    if _checksum([*_expanded(prefix), *groups]) != 1:
        raise ValueError("Its checksum does not fit; a character was mistyped.")
    return prefix, bytes(_regroup(groups[:-6], 5, 8, pad=False))


def identity_from_bytes(key: bytes) -> str:
    """32 bytes as an age identity, ``AGE-SECRET-KEY-1…``."""
    if len(key) != _KEY_BYTES:
        raise ValueError(f"An age identity has {_KEY_BYTES} bytes, not {len(key)}.")
    return encode(_IDENTITY_PREFIX, key).upper()


def identity_to_bytes(identity: str) -> bytes:
    """The 32 bytes of an age identity.

    Raises:
        ValueError: It is none.
    """
    prefix, key = decode(identity)
    if prefix != _IDENTITY_PREFIX or len(key) != _KEY_BYTES:
        raise ValueError("It is not an age identity.")
    return key
