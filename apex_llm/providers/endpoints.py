"""What both clouds demand of an address: a safe origin, a kept base path, one safe path segment.

Endpoints come from a constructor argument or a documented variable, never from a request.
Pure: no name is looked up here; the sender refuses metadata addresses once it knows them.
"""

from __future__ import annotations

__all__ = ["Endpoint", "is_loopback", "is_metadata", "parse_endpoint", "path_segment"]

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

from apex_llm.errors import InvalidEndpointError, InvalidRequestError
from apex_llm.protocol.sigv4 import encode_path_segment
from apex_llm.types.http import Origin

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAX_SEGMENT = 2048


class Endpoint(msgspec.Struct, frozen=True):
    """Where requests go: an origin, and a path in front of every operation's own."""

    origin: Origin
    base_path: str = ""
    """Without a slash at its end; ``""`` for none."""


def parse_endpoint(url: str, *, name: str, allow_insecure: bool = False) -> tuple[Endpoint, str]:
    """An endpoint and the query that hung on it.

    Args:
        url: As the user wrote it; a missing scheme means https.
        name: The argument or variable that it came from, for messages.
        allow_insecure: Take ``http://`` to a host that is not this machine.

    Raises:
        InvalidEndpointError: It is not an address that we may send credentials to.
    """
    text = url.strip()
    if "://" not in text:
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise _bad(name, f"cannot be read as a URL ({error})", "Write it as https://host[:port].") from error
    if parts.scheme not in {"http", "https"}:
        raise _bad(name, f"has the scheme {parts.scheme!r}", "Write it as https://host[:port].")
    if parts.username is not None or parts.password is not None:
        raise _bad(name, "carries a user name or password", "Pass credentials by their own arguments.")
    if parts.fragment:
        raise _bad(name, "carries a fragment (#...)", "Leave out everything from the # on.")
    if not _is_host(host):
        raise _bad(name, f"has no usable host name ({host[:80]!r})", "Write it as https://host[:port].")
    if is_metadata(host):
        raise _bad(name, f"is the metadata address {host}", "Give the address of the model service.")
    if parts.scheme == "http" and not allow_insecure and not is_loopback(host):
        raise _bad(
            name, f"sends credentials unencrypted to {host}", "Use https://, or pass allow_insecure=True if you must."
        )
    base_path = parts.path.rstrip("/")
    if any(character <= " " or character >= "\x7f" for character in base_path) or "/../" in f"{base_path}/":
        raise _bad(name, "has a path with spaces, control characters or '..'", "Leave the path out, or encode it.")
    origin = Origin(parts.scheme, host, port or (443 if parts.scheme == "https" else 80))
    return Endpoint(origin, base_path), parts.query


def path_segment(text: str, *, what: str, hint: str, keep: str = "") -> str:
    """``text`` as exactly one percent-encoded path segment.

    Raises:
        InvalidRequestError: Empty, ``.`` or ``..``, over 2,048 characters, or with control characters.
    """
    problem = None
    if not text:
        problem = "is empty"
    elif len(text) > _MAX_SEGMENT:
        problem = f"has {len(text)} characters; {_MAX_SEGMENT} are the most"
    elif text in {".", ".."} or ".." in text.split("/") or "." in text.split("/") or "" in text.split("/"):
        problem = f"is no name but a path ({text[:80]!r})"
    elif any(character < "\x21" or "\x7f" <= character < "\xa0" for character in text):
        problem = f"contains spaces or control characters ({text[:80]!r})"
    if problem is not None:
        raise InvalidRequestError(f"The {what} {problem}.", phase="prepare", hint=hint)
    return encode_path_segment(text, keep=keep)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, by name or address; no look-up."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_metadata(host: str) -> bool:
    """Whether ``host`` is a cloud's metadata or credential address; no look-up."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in {"metadata.google.internal", "instance-data"}
    return address.is_link_local or str(address) in {"fd00:ec2::254", "fd00:ec2::23"}


def _is_host(host: str) -> bool:
    if not host or len(host) > 253:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return all(_LABEL.fullmatch(label) for label in host.rstrip(".").split("."))
    return True


def _bad(name: str, problem: str, hint: str) -> InvalidEndpointError:
    return InvalidEndpointError(f"{name} {problem}.", phase="prepare", hint=hint)
