"""The TLS set-up that all senders of a process share.

Building a context reads every root certificate (40 ms and more), so it happens at the first
``https`` connection, on a thread, once for each set of roots. Nothing here switches verification
off; who needs that passes an ``ssl.SSLContext`` of their own.
"""

from __future__ import annotations

__all__ = ["ContextLoader", "TrustRoots", "default_context", "trust_roots"]

import contextlib
import functools
import ssl
from collections.abc import Mapping

import msgspec

from apex_llm.errors import ConfigurationError
from apex_llm.transport.background import SingleFlight


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

    Raises:
        ConfigurationError: the roots cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=roots.file, capath=roots.directory)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"The certificate authorities in {roots.file or roots.directory} cannot be read.",
            hint="Check SSL_CERT_FILE, SSL_CERT_DIR and AWS_CA_BUNDLE.",
        ) from error
    if roots == TrustRoots() and not context.get_ca_certs() and not _has_directory_roots():
        # Some containers and some builds of Python come without roots; certifi's then serve.
        with contextlib.suppress(ImportError):
            import certifi

            context.load_verify_locations(cafile=certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_directory_roots() -> bool:
    from pathlib import Path

    directory: str | None = ssl.get_default_verify_paths().capath
    return bool(directory) and any(Path(directory).glob("*.0"))


class ContextLoader:
    """Gives out ``default_context`` without holding up the loop while it is made."""

    def __init__(self, roots: TrustRoots) -> None:
        self._roots = roots
        self._context: ssl.SSLContext | None = None
        self._flights: SingleFlight[ssl.SSLContext] = SingleFlight(name="apex_llm-tls")

    async def __call__(self) -> ssl.SSLContext:
        """The context; made on a thread by the first call.

        Raises:
            ConfigurationError: the roots cannot be read.
        """
        if self._context is None:
            self._context = await self._flights.run(self._roots, lambda: default_context(self._roots))
        return self._context
