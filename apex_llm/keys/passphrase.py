"""Passphrases: scrypt as age does it, in a child process.

pyrage holds the interpreter's lock for the whole derivation (a second or two), which would stop
every other thread and every event loop. A child has its own.
"""

from __future__ import annotations

__all__ = ["decrypt_with_passphrase", "encrypt_with_passphrase", "normalized", "prompt_passphrase"]

import json
import subprocess
import sys
import unicodedata
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Literal

from apex_llm.errors import KeyStoreError, NoUnlockerError, WrongPassphraseError
from apex_llm.keys.agefile import check_header, load_pyrage
from apex_llm.keys.os_errors import translated

_SECONDS = 120.0
# Everything secret goes through pipes: arguments and environment can be seen by others.
_CHILD = """
import base64, json, sys
order = json.load(sys.stdin)
sys.path.extend(order["path"])
from pyrage import passphrase
content = base64.b64decode(order["content"])
try:
    answer = {"content": base64.b64encode(getattr(passphrase, order["do"])(content, order["passphrase"])).decode()}
except BaseException as error:
    answer = {"error": type(error).__name__ + ": " + str(error)}
json.dump(answer, sys.stdout)
"""


def normalized(passphrase: str) -> str:
    """NFC, so that one passphrase typed on two systems is one passphrase.

    Raises:
        WrongPassphraseError: It is empty, or is not text.
    """
    text = unicodedata.normalize("NFC", passphrase)
    if not text:
        raise WrongPassphraseError("The passphrase is empty.", hint="Give the passphrase of the store.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WrongPassphraseError("The passphrase holds characters that are not Unicode text.") from None
    return text


def encrypt_with_passphrase(plaintext: bytes, passphrase: str) -> bytes:
    """``plaintext`` as an age file for a passphrase; takes about a second."""
    content, error = _run("encrypt", plaintext, normalized(passphrase))
    if content is None:
        raise KeyStoreError(f"age could not encrypt with a passphrase: {error}")
    return content


def decrypt_with_passphrase(content: bytes, passphrase: str, *, what: str) -> bytes:
    """What an age file for a passphrase holds; takes about a second.

    Raises:
        UnsupportedFormatError: It is no such file, or asks for too much work.
        WrongPassphraseError: The passphrase does not open it, or it is damaged: the two look alike.
    """
    check_header(content, expected="scrypt", what=what)
    plaintext, _ = _run("decrypt", content, normalized(passphrase))
    if plaintext is None:
        raise WrongPassphraseError(
            f"The passphrase does not open {what}, or that file is damaged.",
            hint="Try again, minding case and keyboard layout; or use the recovery key as APEX_LLM_MASTER_KEY.",
        )
    return plaintext


def _run(do: Literal["encrypt", "decrypt"], content: bytes, passphrase: str) -> tuple[bytes | None, str]:
    library = load_pyrage()
    if getattr(sys, "frozen", False) or not sys.executable:
        # A frozen program has no interpreter to start.
        try:
            return getattr(library.passphrase, do)(content, passphrase), ""
        except Exception as error:  # noqa: BLE001 - reported by the caller
            return None, type(error).__name__
    order = {
        "do": do,
        "content": b64encode(content).decode(),
        "passphrase": passphrase,
        "path": [str(Path(library.__file__).parent.parent)],
    }
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own text
            [sys.executable, "-I", "-c", _CHILD],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )
        answer = json.loads(done.stdout)
    except OSError as error:
        raise translated(error, "Starting the process that derives the key") from None
    except (subprocess.SubprocessError, ValueError) as error:
        # Its text would quote the command's input.
        raise KeyStoreError(
            f"The process that derives the key did not finish ({type(error).__name__}).",
            hint="Is there enough memory? A work factor of 18 needs 256 MiB, each step more doubles it.",
        ) from None
    if "content" in answer:
        return b64decode(answer["content"]), ""
    return None, str(answer.get("error"))


def prompt_passphrase(prompt: str = "Passphrase of the key store: ") -> str:
    """Ask on the terminal, without echo. Give it as ``passphrase=`` where somebody sits at one.

    Raises:
        NoUnlockerError: There is no terminal, or it was left without an answer.
    """
    import getpass

    try:
        if sys.platform != "win32":
            # getpass would fall back to echoing from standard input.
            with Path("/dev/tty").open("rb"):
                pass
        return getpass.getpass(prompt)
    except EOFError:
        raise NoUnlockerError("The input ended before anything was typed.", hint="Try again.") from None
    except OSError:
        raise NoUnlockerError(
            "There is no terminal to ask for a passphrase.",
            hint="On a server, set APEX_LLM_MASTER_KEY_FILE or APEX_LLM_MASTER_KEY_COMMAND instead.",
        ) from None
