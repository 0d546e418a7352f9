"""JSON text to typed values and back, with every foreign exception translated.

The fast path is one msgspec call. What msgspec refuses is read once more by the standard
library, because clouds do send JSON that only lenient parsers take: lone surrogates from
models that were cut inside an emoji, numbers beyond a double. Text from the wire is never
quoted in an error: it may be a prompt.
"""

from __future__ import annotations

__all__ = ["decode_json", "encode_json", "join_base64", "raw_text"]

import base64
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar, cast

import msgspec

from apex_llm.errors import InvalidRequestError, LimitExceededError, ResponseFormatError
from apex_llm.types.decoders import decoder_for

_T = TypeVar("_T")


def decode_json(body: bytes, type: type[_T], *, what: str) -> _T:  # noqa: A002 - msgspec's own word for it
    """The JSON text as a value of ``type``.

    Args:
        body: UTF-8.
        type: Anything that msgspec decodes.
        what: What is being read, for the error: ``"the Converse answer"``.

    Raises:
        ResponseFormatError: Not UTF-8, not JSON, or JSON of another shape.
        LimitExceededError: Nested too deep; ``limit`` is ``"depth"``.
    """
    try:
        return decoder_for(type).decode(body)
    except RecursionError as error:
        raise _too_deep(what) from error
    except UnicodeDecodeError as error:
        raise ResponseFormatError(f"{what} is not UTF-8 (byte {error.start} of {len(body)}).") from error
    except msgspec.MsgspecError as error:
        return _decode_leniently(body, type, what, error)


def raw_text(raw: msgspec.Raw, *, what: str) -> str:
    """JSON that was left undecoded, as text.

    Raises:
        ResponseFormatError: Not UTF-8, which msgspec does not look for in what it only passes on.
    """
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise ResponseFormatError(f"{what} is not UTF-8 (byte {error.start} of {len(error.object)}).") from error


def join_base64(pieces: Sequence[str]) -> str:
    """Bytes that came in pieces as one text: each piece may be padded, which is allowed at the end only."""
    if len(pieces) > 1:
        try:
            return base64.b64encode(b"".join([base64.b64decode(piece, validate=True) for piece in pieces])).decode()
        except ValueError:
            pass  # pieces of one text, cut anywhere
    return "".join(pieces)


def _decode_leniently(body: bytes, type: type[_T], what: str, refusal: msgspec.MsgspecError) -> _T:  # noqa: A002
    try:
        import json  # 3 ms that hardly any process needs

        text = json.dumps(_sanitised(json.loads(body.decode("utf-8-sig"))))
        return decoder_for(type).decode(text)
    except RecursionError as error:
        raise _too_deep(what) from error
    except UnicodeDecodeError as error:
        raise ResponseFormatError(f"{what} is not UTF-8 (byte {error.start} of {len(body)}).") from error
    except msgspec.ValidationError as error:
        raise ResponseFormatError(f"{what} has an unexpected shape: {error}.") from error
    # json.JSONDecodeError, and integers of more digits than Python converts; or no file could be opened for json.
    except (ValueError, ImportError, OSError) as error:
        raise ResponseFormatError(f"{what} is not JSON ({len(body)} bytes): {refusal}.") from error


def _sanitised(value: Any) -> Any:
    """The value with lone surrogates replaced by U+FFFD, and numbers beyond a double by ``None``."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {_sanitised(name): _sanitised(member) for name, member in members.items()}
    if isinstance(value, list):
        return [_sanitised(item) for item in cast("list[Any]", value)]
    return value


def _too_deep(what: str) -> LimitExceededError:
    return LimitExceededError(f"{what} is nested too deep to be read.", limit="depth")


def encode_json(value: Any, *, what: str) -> bytes:
    """The value as JSON text; bytes become base64, and any mapping or sequence is taken.

    Args:
        value: Dictionaries, lists, text, numbers, dates, dataclasses, Structs, ….
        what: What is being written, for the error.

    Raises:
        InvalidRequestError: Something in it cannot be said in JSON.
    """
    try:
        return _ENCODER.encode(value)
    except RecursionError as error:
        raise InvalidRequestError(
            f"{what} is nested too deep for JSON, or contains itself.", phase="prepare"
        ) from error
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{what} holds text with a lone surrogate (U+{ord(error.object[error.start]):04X}).",
            phase="prepare",
            hint='Repair the text with text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
        ) from error
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequestError(
            f"{what} cannot be written as JSON: {error}.",
            phase="prepare",
            hint="Use dictionaries with text keys, lists, text, numbers, booleans and None.",
        ) from error


def _encode_other(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, Sequence | AbstractSet):
        return list(cast("Sequence[Any]", value))
    raise TypeError(f"a {type(value).__name__} has no JSON form")


_ENCODER = msgspec.json.Encoder(enc_hook=_encode_other)
