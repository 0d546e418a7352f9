"""K11, this room's share: twenty canaries, and everything that could print one."""

from __future__ import annotations

import base64
import contextlib
import copy
import gc
import io
import json
import logging
import pickle
import sys
import traceback
import warnings
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from keys_support import MASTER_KEY

from apex_llm.errors import ApexLlmError
from apex_llm.keys import ApiKeyManager, RedactingFilter, Redactor

CANARIES = [f'CANARY{number:02d}+/"\\\u00e9 {chr(65 + number) * 9}' for number in range(20)]


def spellings(secret: str) -> list[str]:
    """As other code would write it."""
    content = secret.encode()
    return [
        secret,
        base64.b64encode(content).decode(),
        base64.urlsafe_b64encode(content).decode(),
        base64.b64encode(b"user:" + content).decode(),
        base64.b64encode(b"a:" + content + b"\n").decode(),
        quote(content, safe=""),
        quote_plus(content),
        content.hex(),
        content.hex().upper(),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    ]


def telling(secret: str) -> set[str]:
    """Parts of those spellings that would be enough to have the secret: the middle, without what surrounds it."""
    return {form if form == secret else form[8:-6] for form in spellings(secret)}


def assert_clean(text: str) -> None:
    found = [form for secret in CANARIES for form in telling(secret) if form in text]
    assert not found, found


@pytest.fixture
def filled(home: Path) -> ApiKeyManager:
    manager = ApiKeyManager(home, master_key=MASTER_KEY)
    manager.set_api_key("service-1", CANARIES[1])
    manager.set_api_key("service-3", {f"key{number}": secret for number, secret in enumerate(CANARIES[2:10])})
    manager.set_oauth_token("service-1", {"access_token": CANARIES[10], "list": [{"token": c} for c in CANARIES[11:]]})
    manager.set_api_key("service-0", CANARIES[0])
    return manager


def test_no_object_of_the_room_shows_a_secret(filled: ApiKeyManager, home: Path) -> None:
    """Reprs and texts of everything alive that is ours, the reports, and the files on disk."""
    handle = filled.plugin_handle("plugin")
    filled.rotate_credential("service-1", CANARIES[2])
    filled.set_plugin_permissions("plugin", ["service-1"])
    handle.get_api_key("service-1")
    shown = io.StringIO()
    ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("apex_llm.keys")]
    assert ours
    for thing in [*ours, filled.status(), filled.verify(), filled.describe_credentials(), filled.log_filter(), handle,
                  filled.check_key_rotation_status(), filled.get_plugin_permissions()]:  # fmt: skip
        shown.write(f"{thing!r} {thing!s}\n")
    assert_clean(shown.getvalue())
    assert MASTER_KEY not in shown.getvalue()
    assert "AGE-SECRET-KEY-1" not in shown.getvalue()
    for path in home.iterdir():
        assert_clean(path.read_bytes().decode("latin-1"))
        assert "AGE-SECRET-KEY-1" not in path.read_bytes().decode("latin-1")


def test_errors_and_warnings_show_no_secret(filled: ApiKeyManager, home: Path, capsys) -> None:
    """Everything that can be provoked with a secret at hand, with the text of its whole chain."""
    shown = io.StringIO()

    class Odd:
        def __repr__(self) -> str:
            return CANARIES[0]

    attempts = [
        lambda: filled.set_api_key("service", {"key": CANARIES[0], "odd": Odd()}),
        lambda: filled.set_api_key("service", {"key": CANARIES[0] * 100_000}),
        lambda: filled.set_api_key("service", CANARIES[0].encode()),
        lambda: filled.set_api_key("service", [CANARIES[0]]),
        lambda: filled.set_api_key("service", "\ud800" + CANARIES[0]),
        lambda: filled.get_api_key_secure("plugin", "service-1"),
        lambda: ApiKeyManager(home, master_key=CANARIES[0]).get_api_key("service-1"),
        lambda: ApiKeyManager(home, environ={"APEX_LLM_MASTER_KEY": CANARIES[0]}).get_api_key("service-1"),
        lambda: ApiKeyManager(home, master_key="AGE-SECRET-KEY-1" + "Q" * 58).get_api_key("service-1"),
        lambda: ApiKeyManager(home.parent / "new", passphrase=CANARIES[0] + "\ud800").set_api_key("a", "b"),
        lambda: filled.migrate(home / "store.age", master_key=CANARIES[0]),
        lambda: filled.export_store(home / "export", recipients=[ApiKeyManager.generate_master_key().reveal()]),
        lambda: pickle.dumps(filled.plugin_handle("plugin")),
        lambda: copy.deepcopy(filled.plugin_handle("plugin")),
        lambda: pickle.dumps(filled),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for attempt in attempts:
            try:
                attempt()
            except Exception as error:
                shown.write("".join(traceback.format_exception(error, limit=0)))
                shown.write(f"{error!r} {error.args}")
                if isinstance(error, ApexLlmError):
                    shown.write(repr(pickle.loads(pickle.dumps(error)).__dict__))
            else:
                pytest.fail("nothing was raised")
    printed = capsys.readouterr()
    text = shown.getvalue() + "".join(map(str, caught)) + printed.out + printed.err
    assert_clean(text)
    assert MASTER_KEY not in text


def test_the_rooms_own_logging_shows_no_secret(filled: ApiKeyManager, home: Path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    again = ApiKeyManager(home, master_key=MASTER_KEY)
    again.get_api_key("service-1")
    again.set_api_key("service-1", CANARIES[5])
    again.close()
    assert_clean(caplog.text)


@pytest.mark.shows_secrets("writes them into a log, to see the filter take them out")
@pytest.mark.parametrize("position", range(12))
def test_the_filter_knows_every_spelling(filled: ApiKeyManager, position: int) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(extra)s"))
    handler.addFilter(filled.log_filter())
    logger = logging.getLogger("somebody.elses.library")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        for secret in CANARIES[1:]:
            form = spellings(secret)[position]
            logger.warning("sent %s and %r to %s", form, {"body": form}, "there", extra={"extra": [form]})
            logger.warning(f"sent {form}", extra={"extra": form})  # noqa: G004 - as careless code does
            try:
                raise ValueError(form)
            except ValueError:
                logger.exception("failed", extra={"extra": ""}, stack_info=True)
    finally:
        logger.removeHandler(handler)
    assert_clean(stream.getvalue())
    assert "there" in stream.getvalue()
    assert "ValueError" in stream.getvalue()


def test_the_filter_learns_what_is_stored_later_and_keeps_what_was_replaced(filled: ApiKeyManager, home: Path) -> None:
    filled.log_filter()
    ApiKeyManager(home, master_key=MASTER_KEY).set_api_key("late", "a-secret-that-came-late")
    assert filled.get_api_key("late")
    assert filled.redact("a-secret-that-came-late") == "[redacted]"
    filled.set_api_key("late", "another-one-entirely")
    assert filled.redact("x a-secret-that-came-late another-one-entirely y") == "x [redacted] [redacted] y"


def test_settings_and_short_values_do_not_blot_out_the_log(home: Path) -> None:
    manager = ApiKeyManager(home, master_key=MASTER_KEY)
    manager.set_api_key("azure_openai", {"api_key": "k" * 32, "api_base": "https://my.openai.azure.com", "x": "abc"})
    manager.set_api_key("aws_bedrock", {"aws_region": "us-east-1", "aws_secret_access_key": "s" * 40})
    assert manager.redact("us-east-1 https://my.openai.azure.com abc") == "us-east-1 https://my.openai.azure.com abc"
    assert manager.redact("k" * 32 + " " + "s" * 40) == "[redacted] [redacted]"


def test_a_key_is_a_secret_although_its_name_speaks_of_settings(home: Path) -> None:
    names = ["account_key", "default_api_key", "model_keys", "profile_credential", "base_passphrase", "urlToken"]
    values = {name: f"value-of-{number}-0123" for number, name in enumerate(names)}
    manager = ApiKeyManager(home, master_key=MASTER_KEY)
    manager.set_api_key("storage", values)
    assert manager.redact(" ".join(values.values())) == " ".join("[redacted]" for _ in names)


def test_a_private_key_is_redacted_line_by_line() -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEF", "AASCBKcwggSjAgEAAoIBAQC7VJTU", "-----END"]
    redactor = Redactor(["\n".join(lines)])
    assert redactor.redact(f"1: {lines[1]}\n2: {lines[2]}\n") == "1: [redacted]\n2: [redacted]\n"


def test_a_record_whose_arguments_do_not_fit_is_kept_without_them() -> None:
    record = logging.makeLogRecord({"msg": "%d things", "args": ("secret-value",)})
    assert RedactingFilter(Redactor(["secret-value"])).filter(record)
    assert "secret-value" not in record.getMessage()
    assert "things" in record.getMessage()


def test_a_program_that_dies_of_an_error_prints_no_secret(filled: ApiKeyManager, home: Path) -> None:
    """An uncaught error, as the interpreter prints it."""
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        try:
            filled.get_api_key_secure("plugin", "service-3")
        except ApexLlmError:
            sys.excepthook(*sys.exc_info())  # type: ignore[misc]
    assert "KeyAccessDeniedError" in stream.getvalue()
    assert_clean(stream.getvalue())
