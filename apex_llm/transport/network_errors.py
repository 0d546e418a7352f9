"""Failures of sockets, name look-up and TLS, as the package's own errors.

The one table for both senders: whatever library stood between, the operating system's error is
found in the chain of causes. Messages name the host, never headers or bodies.
"""

from __future__ import annotations

__all__ = ["connection_failed", "load_failed", "root_cause"]

import errno
import os
import socket
import ssl
from collections.abc import Iterator

from apex_llm.errors import ConnectionFailedError

_RESET = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
_PROTOCOL_VERSION = ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION", "VERSION_TOO_LOW", "NO_PROTOCOLS_AVAILABLE")
_FINAL_NAME_ERRORS = frozenset(getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name))
_NO_ISSUER = 20
"""OpenSSL's "unable to get local issuer certificate". Also what it says when a root that it looks for in a directory,
as on Debian, cannot be opened."""
_FEW_FILES = 8
_MORE_FILES = "Set max_connections, or raise the limit of open files."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def root_cause(error: BaseException) -> OSError | None:
    """The innermost error of the operating system or of TLS behind ``error``, if there is one."""
    found: OSError | None = None
    for link in _chain(error):
        if isinstance(link, ssl.SSLError | socket.gaierror):
            return link
        if isinstance(link, OSError):
            found = link
    return found


def connection_failed(error: BaseException | None, *, host: str, phase: str) -> ConnectionFailedError:
    """What ``error`` means for a connection to ``host``; raise the result ``from error``."""
    cause = None if error is None else root_cause(error)
    match cause:
        case ssl.SSLCertVerificationError() if cause.verify_code == _NO_ISSUER and _files_are_short():
            return ConnectionFailedError(
                f"The certificate of {host} could not be checked: too many open files.",
                kind="network",
                phase=phase,
                hint=_MORE_FILES,
            )
        case ssl.SSLCertVerificationError():
            return ConnectionFailedError(
                f"The certificate of {host} was refused: {(cause.verify_message or cause.reason).rstrip('.')}.",
                kind="certificate",
                retryable=False,
                phase=phase,
                hint="If an authority of your own signs it, name its certificate in SSL_CERT_FILE or pass ssl_context.",
            )
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return ConnectionFailedError(f"{host} closed the connection during TLS.", kind="closed", phase=phase)
        case ssl.SSLError():
            reason = cause.reason or "unknown"
            version = any(word in reason for word in _PROTOCOL_VERSION)
            text = "speaks no TLS version that is still safe" if version else "did not speak TLS as it must"
            return ConnectionFailedError(
                f"{host} {text} ({reason}).",
                kind="tls",
                retryable=False,
                phase=phase,
                hint="The port may speak plain HTTP: check the endpoint's scheme and port, and proxies in between.",
            )
        case socket.gaierror():
            unknown = cause.errno in _FINAL_NAME_ERRORS
            return ConnectionFailedError(
                f"The name {host} could not be looked up: {cause.strerror}.",
                kind="dns",
                phase=phase,
                hint="Check the region or resource name in the endpoint." if unknown else None,
            )
        case ConnectionRefusedError():
            return ConnectionFailedError(
                f"{host} refused the connection.",
                kind="refused",
                phase=phase,
                hint="Nothing listens there: check the endpoint's host and port.",
            )
        case _ if isinstance(cause, _RESET):
            return ConnectionFailedError(f"The connection to {host} was reset.", kind="reset", phase=phase)
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return ConnectionFailedError(
                f"No socket could be opened for {host}: too many open files.",
                kind="network",
                phase=phase,
                hint=_MORE_FILES,
            )
        case _:
            reason = "" if cause is None else f": {cause.strerror or type(cause).__name__}"
            return ConnectionFailedError(f"The connection to {host} failed{reason}.", kind="network", phase=phase)


def _files_are_short() -> bool:
    """Whether there are hardly any descriptors left; the failed connection's own may be free again by now."""
    opened: list[int] = []
    try:
        for _ in range(_FEW_FILES):
            opened.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 - what was opened must be known
    except OSError as error:
        return error.errno in {errno.EMFILE, errno.ENFILE}
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False


def load_failed(
    error: ImportError | OSError, *, what: str = "A part of the package could not be loaded"
) -> ConnectionFailedError | None:
    """What it means that a file could not be read in the middle of a call; ``None`` if descriptors are not short."""
    if isinstance(error, OSError):
        short = error.errno in {errno.EMFILE, errno.ENFILE}
    else:
        short = os.strerror(errno.EMFILE) in str(error)  # the loader of extension modules has no number for it
    if not short:
        return None
    return ConnectionFailedError(
        f"{what}: too many open files.",
        kind="network",
        phase="prepare",
        hint=_MORE_FILES,
    )
