"""What the process says to the shell."""

from __future__ import annotations

__all__ = ["ExitCode", "exit_code_for"]

from enum import IntEnum

from apex_llm.errors import (
    ApexLlmError,
    AuthenticationError,
    ContentFilteredError,
    IdleTimeoutError,
    KeyAccessDeniedError,
    MissingCredentialsError,
    ModelTimeoutError,
    NoUnlockerError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    WrongPassphraseError,
)


class ExitCode(IntEnum):
    """Documented, so that scripts can rely on them."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    AUTHENTICATION = 3
    RATE_LIMIT = 4
    CONTENT_FILTER = 5
    TIMEOUT = 124
    INTERRUPT = 130


def exit_code_for(error: ApexLlmError) -> ExitCode:
    """The code that tells a script what kind of error it was."""
    match error:
        case AuthenticationError() | PermissionDeniedError() | MissingCredentialsError():
            return ExitCode.AUTHENTICATION
        case KeyAccessDeniedError() | WrongPassphraseError() | NoUnlockerError():
            return ExitCode.AUTHENTICATION
        case RateLimitError():
            return ExitCode.RATE_LIMIT
        case ContentFilteredError():
            return ExitCode.CONTENT_FILTER
        case RequestTimeoutError() | IdleTimeoutError() | ModelTimeoutError():
            return ExitCode.TIMEOUT
        case _:
            return ExitCode.ERROR
