"""age's passphrase files, written from its specification: not by pyrage, and with as little work as is asked for.

https://age-encryption.org/v1. pyrage chooses the work factor itself, seconds of it: tests whose subject is not
scrypt use this instead. ``age`` and pyrage open what it writes, which ``keys/test_key_interchange.py`` shows.
"""

from __future__ import annotations

__all__ = ["passphrase_file", "run_with_little_work"]

import hashlib
import hmac
import os
from base64 import b64encode
from typing import Literal

import pyrage
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def passphrase_file(plaintext: bytes, passphrase: str, *, work_factor: int = 4) -> bytes:
    """At most 64 KiB of ``plaintext`` as an age file for ``passphrase``, with 2^``work_factor`` rounds of scrypt."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapping_key = hashlib.scrypt(
        passphrase.encode(), salt=b"age-encryption.org/v1/scrypt" + salt, n=1 << work_factor, r=8, p=1,
        maxmem=(1 << work_factor) * 1024 + (1 << 20), dklen=32,
    )  # fmt: skip
    wrapped = ChaCha20Poly1305(wrapping_key).encrypt(bytes(12), file_key, None)
    header = b"age-encryption.org/v1\n-> scrypt %s %d\n%s\n---" % (_base64(salt), work_factor, _base64(wrapped))
    mac = hmac.digest(_derived(file_key, b"header"), header, hashlib.sha256)
    # One chunk, the first and the last: number 0, then the flag.
    payload = ChaCha20Poly1305(_derived(file_key, b"payload", salt=nonce)).encrypt(bytes(11) + b"\1", plaintext, None)
    return b"%s %s\n%s%s" % (header, _base64(mac), nonce, payload)


def run_with_little_work(
    do: Literal["encrypt", "decrypt"], content: bytes, passphrase: str
) -> tuple[bytes | None, str]:
    """In place of ``apex_llm.keys.passphrase._run``: real age files that cost nothing, opened by pyrage as ever."""
    if do == "encrypt":
        return passphrase_file(content, passphrase), ""
    try:
        return pyrage.passphrase.decrypt(content, passphrase), ""
    except pyrage.DecryptError as error:
        return None, str(error)


def _base64(content: bytes) -> bytes:
    return b64encode(content).rstrip(b"=")


def _derived(key: bytes, purpose: bytes, *, salt: bytes | None = None) -> bytes:
    return HKDF(SHA256(), 32, salt, purpose).derive(key)
