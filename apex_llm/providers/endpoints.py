"""What both clouds demand of an address: a safe origin, a kept base path, one safe path segment.

Endpoints come from a constructor argument or a documented variable, never from a request.
Pure: no name is looked up here; the sender refuses metadata addresses once it knows them.
"""

from __future__ import annotations

__all__ = ["Endpoint", "host_of", "is_loopback", "is_metadata", "parse_endpoint", "path_segment"]

import msgspec

from apex_llm.errors import InvalidEndpointError, InvalidRequestError
from apex_llm.protocol import addresses
from apex_llm.protocol.sigv4 import encode_path_segment
from apex_llm.types.http import Origin

_IN_LABELS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_PLAIN = _IN_LABELS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ.~/")
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
    if "#" in url:
        raise _bad(name, "carries a fragment (#...)", "Leave out everything from the # on.")
    scheme, host, port, path, query = _taken_apart(url, name)
    if not _is_host(host):
        raise _bad(name, f"has no usable host name ({host[:80]!r})", "Write it as https://host[:port].")
    if is_metadata(host):
        raise _bad(name, f"is the metadata address {host}", "Give the address of the model service.")
    if scheme == "http" and not allow_insecure and not is_loopback(host):
        raise _bad(
            name, f"sends credentials unencrypted to {host}", "Use https://, or pass allow_insecure=True if you must."
        )
    base_path = path.rstrip("/")
    if any(character <= " " or character >= "\x7f" for character in base_path) or "/../" in f"{base_path}/":
        raise _bad(name, "has a path with spaces, control characters or '..'", "Leave the path out, or encode it.")
    origin = Origin(scheme, host, port or (443 if scheme == "https" else 80))
    return Endpoint(origin, base_path), query


def host_of(url: str, *, name: str) -> str:
    """The host of an endpoint in lower case, whether or not it is one that we would use.

    Args:
        url: As the user wrote it.
        name: The argument or variable that it came from, for messages.

    Raises:
        InvalidEndpointError: It is no URL that we take.
    """
    return _taken_apart(url, name)[1]


def _taken_apart(url: str, name: str) -> tuple[str, str, int | None, str, str]:
    text = url.strip()
    if "://" not in text:
        start = text.partition("/")[0]
        if text[:1] in {"'", '"'} or start.endswith(":") or start.lower() in {"http", "https"}:
            raise _bad(name, f"cannot be read as a URL ({text[:80]!r})", "Write it as https://host[:port].")
        text = f"https://{text}"
    return _plain_parts(text) or _parts(text, name)


def _plain_parts(url: str) -> tuple[str, str, int | None, str, str] | None:
    """Scheme, host, port, path and query of a URL that has nothing to argue about; ``None`` for any other.

    What remains is for ``urllib.parse``, whose import takes longer than all else that a provider's set-up does.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.partition(":")
    if scheme not in {"http", "https"} or not host or not _PLAIN.issuperset(host + path):
        return None
    if colon and not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        return None
    return scheme, host.lower(), int(port) if port else None, slash + path, ""


def _parts(url: str, name: str) -> tuple[str, str, int | None, str, str]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise _bad(name, f"cannot be read as a URL ({error})", "Write it as https://host[:port].") from error
    if parts.scheme not in {"http", "https"}:
        raise _bad(name, f"has the scheme {parts.scheme!r}", "Write it as https://host[:port].")
    if parts.username is not None or parts.password is not None:
        raise _bad(name, "carries a user name or password", "Pass credentials by their own arguments.")
    return parts.scheme, host, port, parts.path, parts.query


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
    return addresses.is_loopback(host)


def is_metadata(host: str) -> bool:
    """Whether ``host`` is a cloud's metadata or credential address; no look-up."""
    if host in {"metadata.google.internal", "instance-data"} or addresses.is_link_local(host):
        return True
    return str(addresses.ipv6(host)) in {"fd00:ec2::254", "fd00:ec2::23"}


def _is_host(host: str) -> bool:
    if not host or len(host) > 253:
        return False
    if addresses.is_address(host):
        return True
    return all(
        0 < len(label) <= 63 and _IN_LABELS.issuperset(label) and label[0] != "-" != label[-1]
        for label in host.rstrip(".").split(".")
    )


def _bad(name: str, problem: str, hint: str) -> InvalidEndpointError:
    return InvalidEndpointError(f"{name} {problem}.", phase="prepare", hint=hint)
