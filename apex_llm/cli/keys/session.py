"""What the commands share: opening the store, asking for secrets, and reading and writing them elsewhere."""

from __future__ import annotations

__all__ = ["MASTER_KEY_VARIABLES", "Session", "new_secret_file", "pass_session", "plugin_name", "service_name"]

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import click

from apex_llm.errors import ApexLlmError, ConfigurationError, KeyStoreError, NoUnlockerError, WrongPassphraseError
from apex_llm.keys import (
    ApiKeyManager,
    AuditMode,
    Keyring,
    MasterKey,
    Passphrase,
    Unlocker,
    check_name,
    prompt_passphrase,
)
from apex_llm.types.secrets import Secret

MASTER_KEY_VARIABLES = ("APEX_LLM_MASTER_KEY", "APEX_LLM_MASTER_KEY_FILE", "APEX_LLM_MASTER_KEY_COMMAND")
_ATTEMPTS = 3
# What the library advises in Python's words, in those of the command line.
_HINTS = {
    "Run verify().": "Run: apex-llm keys verify",
    "Look at what verify() says; then archive_audit_log(damaged=True).": (
        "Look at what apex-llm keys verify says; then add --damaged."
    ),
    "delete_credential() removes one.": "apex-llm keys remove SERVICE removes one.",
    "set_api_key() stores a first one.": "apex-llm keys set SERVICE stores a first one.",
    "Give passphrase=, master_key= or keyring=True for the new key.": (
        "Give --new-passphrase, --new-master-key-file FILE or --to-keyring."
    ),
    "overwrite=True replaces them; delete_credential() removes those that you do not want.": (
        "--overwrite replaces them; apex-llm keys remove SERVICE removes those that you do not want."
    ),
    "Use a passphrase or a master key.": "Give --new-passphrase or --new-master-key-file FILE.",
}
_MAX_INPUT_BYTES = 1 << 20
_KEY_FILE_BYTES = 128


def service_name(value: str) -> str:
    """Type of an argument that names a service."""
    return _checked(value, "service")


def plugin_name(value: str) -> str:
    """Type of an argument that names a plugin."""
    return _checked(value, "plugin")


def _checked(value: str, what: str) -> str:
    try:
        return check_name(value, what=what)
    except ConfigurationError as error:
        raise click.BadParameter(error.message) from error


class Session:
    """One run of one command: which store, and how to open it.

    Args:
        home: The store's directory; the usual one when left out.
        passphrase_from: A file with the passphrase, ``-`` for standard input.
        lock_timeout: Seconds to wait for other processes that are writing.
        environ: Read instead of the process environment.
    """

    def __init__(
        self,
        *,
        home: Path | None,
        passphrase_from: str | None,
        lock_timeout: float,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.passphrase_from = passphrase_from
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self._lock_timeout = lock_timeout
        self._passphrase: Secret | None = None
        self._asked = False
        self._standard_input_read = False

    # --- the store

    @property
    def has_master_key(self) -> bool:
        """Whether the environment names one."""
        return any(self.environ.get(name) for name in MASTER_KEY_VARIABLES)

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of every manager that is made here."""
        return {"lock_timeout": self._lock_timeout, "environ": self.environ}

    def manager(self, *, audit: AuditMode = "on") -> ApiKeyManager:
        """A manager of the store, which opens nothing yet. It makes no store: ``init`` does."""
        # What needs no answer comes first; a passphrase that was given in so many words before it.
        passphrase, master_key = Passphrase(self.ask_passphrase), MasterKey(None, self.environ)
        unlockers: list[Unlocker] = [passphrase, master_key] if self.passphrase_from else [master_key, passphrase]
        return ApiKeyManager(self.home, unlockers=[*unlockers, Keyring()], audit=audit, create=False, **self.options)

    @contextlib.contextmanager
    def opened(self, *, audit: AuditMode = "on", damaged_too: bool = False) -> Generator[ApiKeyManager]:
        """The store, open; closed afterwards.

        Args:
            audit: ``"required"`` where no secret may leave without a line in the log.
            damaged_too: Go on where the store is there but not as it should be.
        """
        with self.manager(audit=audit) as manager:
            try:
                self._unlock(manager)
            except (WrongPassphraseError, NoUnlockerError):
                raise
            except KeyStoreError:
                if not damaged_too:
                    raise
            try:
                yield manager
            except ApexLlmError as error:
                error.hint = _HINTS.get(error.hint or "", error.hint)
                raise

    def _unlock(self, manager: ApiKeyManager) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                manager.unlock()
            except WrongPassphraseError as error:
                if not self._asked or attempt == _ATTEMPTS:
                    raise
                self._passphrase = None
                click.echo(f"{error.message} Try again.", err=True)
            except NoUnlockerError as error:
                error.hint = (
                    "Set APEX_LLM_MASTER_KEY_FILE or APEX_LLM_MASTER_KEY_COMMAND, give --passphrase-from FILE, "
                    "or run it on a terminal to be asked for the passphrase."
                )
                raise
            else:
                return

    def ask_passphrase(self) -> Secret | None:
        """The store's passphrase; ``None`` where there is nobody to ask. Asked once, not again and again."""
        if self._passphrase is None:
            if self.passphrase_from is not None:
                self._passphrase = Secret(self.read_file(self.passphrase_from), name="passphrase")
            elif self.has_terminal():
                self._passphrase = Secret(prompt_passphrase(), name="passphrase")
                self._asked = True
        return self._passphrase

    # --- asking and reading

    @staticmethod
    def has_terminal() -> bool:
        """Whether somebody can be asked. Standard input may be a pipe all the same."""
        if sys.platform == "win32":
            return sys.stdin.isatty()
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def ask_secret(self, prompt: str, *, instead: str) -> Secret:
        """A secret from the terminal, without echo.

        Args:
            prompt: What to ask.
            instead: The options that do without a terminal, for the error.
        """
        if not self.has_terminal():
            raise click.UsageError(f"There is no terminal to ask for it. Give {instead}.")
        return Secret(prompt_passphrase(f"{prompt}: "))

    def ask_new_passphrase(self, what: str, *, instead: str) -> Secret:
        """A new passphrase, asked for twice."""
        while True:
            first = self.ask_secret(f"New passphrase of {what}", instead=instead)
            if not first:
                click.echo("It must not be empty.", err=True)
            elif first == self.ask_secret("The same again", instead=instead):
                return first
            else:
                click.echo("The two differ. Try again.", err=True)

    def read_standard_input(self) -> str:
        """What comes on standard input, without the last line's end.

        Raises:
            UsageError: It was read already.
        """
        if self._standard_input_read:
            raise click.UsageError("Standard input can be read for one thing only.")
        self._standard_input_read = True
        return _decoded(sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1), "Standard input")

    def read_file(self, name: str) -> str:
        """A file's text without the last line's end; ``-`` is standard input."""
        if name == "-":
            return self.read_standard_input()
        try:
            with Path(name).open("rb") as file:
                return _decoded(file.read(_MAX_INPUT_BYTES + 1), name)
        except OSError as error:
            raise click.ClickException(f"{name} cannot be read: {os.strerror(error.errno or 0)}.") from error

    def read_variable(self, name: str) -> str:
        """An environment variable that must be there."""
        value = self.environ.get(name)
        if not value:
            raise click.UsageError(f"The environment variable {name} is not set, or empty.")
        return value


pass_session: Callable[[Callable[..., Any]], Callable[..., Any]] = click.make_pass_decorator(Session)


def _decoded(content: bytes, what: str) -> str:
    if len(content) > _MAX_INPUT_BYTES:
        raise click.UsageError(f"{what} has more than {_MAX_INPUT_BYTES} bytes.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise click.UsageError(f"{what} is not UTF-8 text.") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise click.UsageError(f"{what} is empty.")
    return text


def _fill(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


@contextlib.contextmanager
def new_secret_file(path: Path) -> Generator[Callable[[Secret], None]]:
    """A new file of mode 0600, with room for a key, made before the key is, so that the key has a place to go.

    Yields what writes it. The file is removed again if nothing was written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = -1
    try:
        descriptor = os.open(path, flags, 0o600)
        _fill(descriptor, b"\n" * _KEY_FILE_BYTES)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already; name a new file.") from None
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
        raise click.ClickException(
            f"{path} cannot be written: {os.strerror(error.errno or 0)}. Nothing was done; name another file."
        ) from error
    written = False

    def write(secret: Secret) -> None:
        nonlocal written
        try:
            content = f"{secret.reveal()}\n".encode()
            os.lseek(descriptor, 0, os.SEEK_SET)
            _fill(descriptor, content)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        except OSError as error:
            raise click.ClickException(f"{path} cannot be written: {os.strerror(error.errno or 0)}.") from error
        written = True

    try:
        yield write
    finally:
        os.close(descriptor)
        if not written:
            with contextlib.suppress(OSError):
                path.unlink()
