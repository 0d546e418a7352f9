"""Images, sound and documents as content parts of OpenAI chat-completions bodies."""

from __future__ import annotations

__all__ = ["audio_part", "file_part", "image_part"]

import base64
from collections.abc import Mapping
from typing import Any, Final

from apex_llm.codecs.chat._common import image_format, media
from apex_llm.errors import InvalidRequestError
from apex_llm.types.messages import AudioPart, DocumentPart, ImagePart


def image_part(part: ImagePart) -> dict[str, Any]:
    """The image, by its bytes or its address.

    Raises:
        InvalidRequestError: It has neither or both, or an address that the service cannot fetch.
    """
    source = None if part.data is None and (part.url or "").startswith("data:") else media(part)
    if source is None:
        url = part.url or ""
    elif source.data is not None:
        url = _data_url(f"image/{image_format(part, source)}", source.data)
    else:
        url = source.url or ""
        if not url.lower().startswith(("https://", "http://")):
            raise InvalidRequestError(
                f"An image with a {url.partition(':')[0][:20]!r} address cannot be sent in the OpenAI chat format.",
                phase="prepare",
                hint="Give its bytes as data=, or an https address.",
            )
    image: dict[str, Any] = {"url": url}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def audio_part(part: AudioPart) -> dict[str, Any]:
    """The sound, by its bytes.

    Raises:
        InvalidRequestError: They are not given, or in a format that no model takes.
    """
    data = _bytes_of(part, "Read the sound and give its bytes as data=.")
    name = part.format.lower().removeprefix("audio/")
    name = _AUDIO_FORMATS.get(name, name)
    if name not in ("wav", "mp3"):
        raise InvalidRequestError(
            f"Audio in the format {part.format!r} cannot be sent.", phase="prepare", hint="Convert it to wav or mp3."
        )
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode("ascii"), "format": name}}


def file_part(part: DocumentPart) -> dict[str, Any]:
    """The document, by its bytes.

    Raises:
        InvalidRequestError: They are not given.
    """
    data = _bytes_of(part, "Read the document and give its bytes as data=.")
    suffix = part.format.lower().rpartition("/")[2].removeprefix(".")
    suffix = _SUFFIXES.get(suffix, suffix)
    name = part.name if part.name.lower().endswith(f".{suffix}") else f"{part.name}.{suffix}"
    file_data = _data_url(_MEDIA_TYPES.get(suffix, "application/octet-stream"), data)
    return {"type": "file", "file": {"filename": name, "file_data": file_data}}


_AUDIO_FORMATS: Final[Mapping[str, str]] = {"x-wav": "wav", "wave": "wav", "mpeg": "mp3"}
_SUFFIXES: Final[Mapping[str, str]] = {"htm": "html", "text": "txt", "plain": "txt", "markdown": "md"}
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "pdf": "application/pdf",
    "csv": "text/csv",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


def _bytes_of(part: AudioPart | DocumentPart, advice: str) -> bytes:
    source = media(part)
    if source.data is None:
        raise InvalidRequestError(
            f"{type(part).__name__} has an address, and the OpenAI chat format takes bytes.",
            phase="prepare",
            hint=advice,
        )
    return source.data


def _data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
