"""The shared AWS files, as far as they can be read without botocore: static keys and the region.

What a profile asks for beyond that (a role, SSO, a command) is named, in botocore's order of
precedence, so that the caller can pass it on to botocore or say what is missing.
Everything here blocks; call it in a thread.
"""

from __future__ import annotations

__all__ = ["Profile", "ProfileVerdict", "judge_profile", "profile_name", "read_profile"]

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from apex_llm.credentials.aws_explicit import pair
from apex_llm.errors import ConfigurationError, MissingCredentialsError
from apex_llm.types.secrets import AwsCredentials


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One profile, as both files together describe it."""

    name: str
    explicit: bool
    """Named by an argument or by the environment, so that its absence is an error."""
    config: Mapping[str, str]
    """Its section of the config file."""
    shared: Mapping[str, str]
    """Its section of the credentials file."""
    config_path: Path
    shared_path: Path
    others: Mapping[str, Mapping[str, str]]
    """All profiles of both files, merged, by name."""

    @property
    def exists(self) -> bool:
        """Whether either file has it."""
        return self.name in self.others

    @property
    def merged(self) -> Mapping[str, str]:
        """Both sections; the credentials file wins."""
        return self.others.get(self.name, {})

    def __repr__(self) -> str:
        return f"Profile({self.name!r})"


class ProfileVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What can be had from a profile: keys, something that only botocore can do, or nothing."""

    credentials: AwsCredentials | None = None
    needs: str | None = None
    """The key that asks for more than static keys, such as ``sso_account_id``."""


def profile_name(profile: str | None, environ: Mapping[str, str]) -> str:
    """The profile to use: the argument, ``AWS_DEFAULT_PROFILE``, ``AWS_PROFILE`` (botocore's order), ``default``."""
    return profile or environ.get("AWS_DEFAULT_PROFILE") or environ.get("AWS_PROFILE") or "default"


def read_profile(profile: str | None, *, environ: Mapping[str, str], home: Path | None) -> Profile:
    """Both shared files, as seen by one profile. Files that do not exist are empty.

    Raises:
        ConfigurationError: A file cannot be read or is not in INI format.
    """
    name = profile_name(profile, environ)
    config_path = _path(environ, "AWS_CONFIG_FILE", "config", home)
    shared_path = _path(environ, "AWS_SHARED_CREDENTIALS_FILE", "credentials", home)
    configured: dict[str, dict[str, str]] = {}
    for section, values in _parse(config_path).items():
        if section == "default":
            configured["default"] = values
        elif section.startswith("profile"):
            words = _words(section)
            if len(words) == 2:
                configured[words[1]] = values
    shared = _parse(shared_path)
    merged = {key: dict(values) for key, values in configured.items()}
    for key, values in shared.items():
        merged.setdefault(key, {}).update(values)
    return Profile(
        name=name,
        explicit=name != "default" or profile is not None,
        config=configured.get(name, {}),
        shared=shared.get(name, {}),
        config_path=config_path,
        shared_path=shared_path,
        others=merged,
    )


def judge_profile(profile: Profile, *, environ: Mapping[str, str], from_argument: bool) -> ProfileVerdict:
    """What the profile stands for; the order is that of botocore's own chain.

    A profile named in code (``from_argument``) leaves out the web identity of the environment.

    Raises:
        MissingCredentialsError: Half of a key pair, a profile that does not exist, or one that
            would ask a person for a code.
    """
    if not profile.exists and profile.explicit:
        raise MissingCredentialsError(
            f"The AWS profile {profile.name!r} is neither in {profile.config_path} nor in {profile.shared_path}.",
            hint=f"Name one that is there ({', '.join(sorted(profile.others)[:10]) or 'there is none'}), "
            f"or make it: aws configure --profile {profile.name}",
        )
    merged = profile.merged
    needs: str | None = None
    if "role_arn" in merged:
        _refuse_code(profile)
        needs = "web_identity_token_file" if "web_identity_token_file" in merged else "role_arn"
    elif environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and not from_argument:
        needs = "AWS_WEB_IDENTITY_TOKEN_FILE"
    elif "web_identity_token_file" in merged:
        needs = "web_identity_token_file"
    elif found := next((key for key in ("sso_account_id", "sso_role_name") if key in merged), None):
        needs = found
    if needs:
        return ProfileVerdict(needs=needs)
    keys = _keys(profile.shared, f"profile {profile.name!r} of {profile.shared_path}")
    if keys:
        return ProfileVerdict(credentials=keys)
    for key in ("login_session", "credential_process"):
        if key in merged:
            return ProfileVerdict(needs=key)
    return ProfileVerdict(credentials=_keys(profile.config, f"profile {profile.name!r} of {profile.config_path}"))


def _keys(section: Mapping[str, str], source: str) -> AwsCredentials | None:
    return pair(
        section.get("aws_access_key_id"),
        section.get("aws_secret_access_key"),
        # A token alone is no half pair here: old tools leave one behind.
        (section.get("aws_security_token") or section.get("aws_session_token"))
        if section.get("aws_access_key_id") or section.get("aws_secret_access_key")
        else None,
        source=source,
    )


def _refuse_code(profile: Profile) -> None:
    seen: set[str] = set()
    name: str | None = profile.name
    while name and name not in seen:
        seen.add(name)
        section = profile.others.get(name, {})
        if "mfa_serial" in section:
            raise MissingCredentialsError(
                f"The AWS profile {name!r} asks for a code (mfa_serial), which a library cannot type in.",
                hint="Get temporary credentials with the AWS command line, and pass those.",
            )
        name = section.get("source_profile")


def _path(environ: Mapping[str, str], variable: str, name: str, home: Path | None) -> Path:
    given = environ.get(variable)
    base = home or Path(environ.get("HOME") or environ.get("USERPROFILE") or os.path.expanduser("~"))  # noqa: PTH111
    if not given:
        return base / ".aws" / name
    if given == "~" or given.startswith("~/"):
        return base / given[2:]
    return Path(os.path.expandvars(given))


def _parse(path: Path) -> dict[str, dict[str, str]]:
    import configparser

    parser = configparser.RawConfigParser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {type(error).__name__}.", hint="Check its owner and mode; it is UTF-8 text."
        ) from error
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # The parser's own message quotes the line, which may hold a secret: it is not chained.
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if isinstance(line, int) else ""
        raise ConfigurationError(
            f"{path} is not in INI format{where}: {type(error).__name__}.",
            hint="Sections are [name], settings are name = value.",
        ) from None
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _words(section: str) -> list[str]:
    import shlex

    try:
        return shlex.split(section)
    except ValueError:
        return []
