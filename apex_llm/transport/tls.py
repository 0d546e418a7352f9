"""The TLS set-up that all senders of a process share.

Building a context reads every root certificate (40 ms and more), so it happens at the first
``https`` connection, on a thread, once for each set of roots. Nothing here switches verification
off; who needs that passes an ``ssl.SSLContext`` of their own.
"""

from __future__ import annotations

__all__ = ["ContextLoader", "TrustRoots", "default_context", "trust_roots"]

import contextlib
import functools
import os
import ssl
from collections.abc import Mapping

import msgspec

from apex_llm.errors import ConfigurationError
from apex_llm.transport.background import SingleFlight
from apex_llm.transport.network_errors import load_failed

_NO_ROOTS = "Install the system's ca-certificates or certifi, or name a file of certificates in SSL_CERT_FILE."


class TrustRoots(msgspec.Struct, frozen=True):
    """Which certificate authorities are trusted; the system's own when both are ``None``."""

    file: str | None = None
    directory: str | None = None


def trust_roots(environ: Mapping[str, str]) -> TrustRoots:
    """What ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` and, after them, ``AWS_CA_BUNDLE`` name."""
    file, directory = environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None
    if file is None and directory is None:
        file = environ.get("AWS_CA_BUNDLE") or None
    return TrustRoots(file, directory)


@functools.lru_cache(maxsize=8)
def default_context(roots: TrustRoots) -> ssl.SSLContext:
    """A verifying client context, TLS 1.2 or newer, for HTTP/1.1; the same object for the same roots.

    Only one that trusts somebody is kept: after an error, the next call reads the roots again.

    Raises:
        ConfigurationError: There are no roots, or they cannot be read.
        ConnectionFailedError: They cannot be read just now: too many files are open.
    """
    try:
        context = ssl.create_default_context(cafile=roots.file, capath=roots.directory)
        if not _trusts_somebody(context):
            _complete(context, roots)
    except (ImportError, OSError) as error:
        failure = load_failed(error, what="The certificate authorities could not be read")
        if failure is not None:
            raise failure from error
        if isinstance(error, ImportError):
            raise ConfigurationError("No certificate authorities were found.", hint=_NO_ROOTS) from error
        raise ConfigurationError(
            f"The certificate authorities in {roots.file or roots.directory or 'the system'} cannot be read.",
            hint="Check SSL_CERT_FILE, SSL_CERT_DIR and AWS_CA_BUNDLE.",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _complete(context: ssl.SSLContext, roots: TrustRoots) -> None:
    """Make sure that a context into which nothing was read will find roots, or read what else there is.

    OpenSSL keeps silent about default roots that it could not open, and about directories, which it looks into
    at each handshake.
    """
    if roots != TrustRoots():
        if roots.directory is None or not _holds_roots(roots.directory):
            raise ConfigurationError(
                f"There are no certificate authorities in {roots.directory or roots.file}.",
                hint="SSL_CERT_DIR needs files that are named by their hash; `openssl rehash` names them.",
            )
        return
    defaults = ssl.get_default_verify_paths()
    if defaults.cafile:  # None where there is none
        with contextlib.suppress(ssl.SSLError, PermissionError):  # it is there, and empty or not for us
            context.load_verify_locations(cafile=defaults.cafile)
            return
    if defaults.capath and _holds_roots(defaults.capath):
        return
    # Some containers and some builds of Python come without roots.
    import certifi

    context.load_verify_locations(cafile=certifi.where())


def _trusts_somebody(context: ssl.SSLContext) -> bool:
    return context.cert_store_stats()["x509"] > 0


def _holds_roots(directories: str) -> bool:
    for directory in directories.split(os.pathsep):
        absent = contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError)
        with absent, os.scandir(directory) as entries:
            if any(_is_hashed(entry.name) for entry in entries):
                return True
    return False


def _is_hashed(name: str) -> bool:
    """Whether OpenSSL would look into a file of this name, such as ``002c0b4f.0``."""
    digest, _, number = name.partition(".")
    return len(digest) == 8 and number.isdecimal()


class ContextLoader:
    """Gives out ``default_context`` without holding up the loop while it is made."""

    def __init__(self, roots: TrustRoots) -> None:
        self._roots = roots
        self._context: ssl.SSLContext | None = None
        self._flights: SingleFlight[ssl.SSLContext] = SingleFlight(name="apex_llm-tls")

    async def __call__(self) -> ssl.SSLContext:
        """The context; made on a thread by the first call.

        Raises:
            ConfigurationError: There are no roots, or they cannot be read.
            ConnectionFailedError: They cannot be read just now: too many files are open.
        """
        if self._context is None:
            self._context = await self._flights.run(self._roots, lambda: default_context(self._roots))
        return self._context
