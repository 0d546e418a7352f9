"""K11: no test of the suite may show a secret, whatever it tests.

A plugin, registered by ``conftest.py``. It knows the secrets that tests work with, and reads what comes
out of them: log records at DEBUG, warnings, captured output, every error of ours as text, pickle and
traceback with locals, the reprs of our objects, and the emulator's list of requests. A test that showed
one fails, with the channel and the place. What shows a secret on purpose says so:
``@pytest.mark.shows_secrets("why")``. ``keys/test_canaries.py`` leaks through each channel, and is caught.
"""

from __future__ import annotations

import base64
import functools
import gc
import json
import logging
import os
import pickle
import sys
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

import apex_llm
from apex_llm import ApiKeyManager, AzureOpenAIProvider, BedrockProvider, PluginHandle, sync
from apex_llm.credentials.manager import ManagerCredentials
from apex_llm.emulator import Emulator
from apex_llm.errors import ApexLlmError
from apex_llm.keys import ProviderAccess
from apex_llm.streaming import EventStream, TextStream

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()
STORED_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"  # the one of AWS's examples, less its end
PASSPHRASE = "correct horse battery"
SECRETS = {
    "the emulator's secret access key": "emulator/secret+access/key",
    "the emulator's bearer token": "emulator-bearer-token",
    "the emulator's api key": "emulator-api-key",
    "a master key": MASTER_KEY,
    "a stored secret access key": STORED_SECRET,
    "a passphrase": PASSPHRASE,
    "an age identity": "AGE-SECRET-KEY-1",
    "a canary": "CANARY0",
}
MARKER = "shows_secrets"
_WATCHED = (
    ApiKeyManager, PluginHandle, ProviderAccess, ManagerCredentials, BedrockProvider, AzureOpenAIProvider,
    EventStream, TextStream, sync.BedrockProvider, sync.AzureOpenAIProvider, Emulator,
)  # fmt: skip
_LOGGERS = {"apex_llm": logging.DEBUG, "httpx": logging.DEBUG, "httpcore": logging.DEBUG, "asyncio": logging.NOTSET}
_MOST = 300  # of one kind and one test; fuzzers make thousands that are alike
_LONGEST = 64 << 10
# Errors that leave the key store or a provider are cleared of what our frames held. Inside they are not yet, and
# what runs on the command line, or plays a cloud, holds keys by its nature and prints no traceback.
_ROOM = str(Path(apex_llm.__file__).parent) + os.sep
_APART = tuple(_ROOM + name + os.sep for name in ("cli", "emulator", "testing"))
_DOORS = tuple(_ROOM + name + os.sep for name in ("keys", "providers"))


def spellings(secret: str) -> set[str]:
    """As other code might write it; of base64 what does not depend on the neighbours."""
    content = secret.encode()
    found = {
        secret, content.hex(), content.hex().upper(), quote(content, safe=""), quote_plus(content),
        json.dumps(secret)[1:-1], repr(secret)[1:-1],
    }  # fmt: skip
    for before in range(3):
        text = base64.b64encode(b"\0" * before + content).decode().rstrip("=")[(0, 2, 3)[before] : -1]
        found |= {text, text.replace("+", "-").replace("/", "_")}
    return found


_FORMS = [(form, name) for name, secret in SECRETS.items() for form in spellings(secret)]


def secret_in(text: str) -> str | None:
    """The name of a secret that the text shows, in one of its spellings."""
    for form, name in _FORMS:
        if form in text:
            return name
    return None


class CanaryWatch(logging.Handler):
    """The plugin, which is also the handler of the loggers that it listens to."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.leaks: dict[str, list[str]] = {}
        self._test = ""
        self._counts: dict[str, int] = {}
        self._excused: set[str] = {""}
        self._born: dict[int, str] = {}
        self._former: list[tuple[type, str, Any]] = []

    def examine(self, channel: str, text: str, *, test: str | None = None) -> None:
        """Note a leak, if there is one."""
        test = self._test if test is None else test
        if test in self._excused or (name := secret_in(text)) is None:
            return
        at = next(text.find(form) for form, _ in _FORMS if form in text)
        around = text[max(0, at - 120) : at].splitlines()[-1:] or [""]
        self.leaks.setdefault(test, []).append(f"{channel} shows {name}, after {around[0]!r}")

    def _again(self, kind: str) -> bool:
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return count <= _MOST

    # --- when it listens

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", f"{MARKER}(reason): shows a secret on purpose, so the canaries are off")
        for name, level in _LOGGERS.items():
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).setLevel(level)
        self._watch(ApexLlmError, self._examine_error)
        for each in _WATCHED:
            self._watch(each, self._examine_object)

    def pytest_unconfigure(self) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self)
        for owner, name, former in self._former:
            if former is None:
                delattr(owner, name)
            else:
                setattr(owner, name, former)

    def _watch(self, owner: type, examine: Callable[[Any, str], None]) -> None:
        """Look at each instance when it goes: then it has seen everything."""
        initialize = getattr(owner, "__init__")  # noqa: B009 - mypy and pyright object to the plain form
        inherited = getattr(owner, "__del__", None)

        @functools.wraps(initialize)
        def begin(instance: Any, *arguments: Any, **options: Any) -> None:
            self._born[id(instance)] = self._test
            initialize(instance, *arguments, **options)

        def finish(instance: Any) -> None:
            try:
                test = self._born.pop(id(instance), self._test)
                if test not in self._excused and not sys.is_finalizing():
                    examine(instance, test)
            finally:
                if inherited is not None:
                    inherited(instance)

        methods = {"__init__": begin, "__del__": finish}
        if owner in (EventStream, TextStream):
            del methods["__init__"]  # they note who made them
        for name, method in methods.items():
            self._former.append((owner, name, owner.__dict__.get(name)))
            setattr(owner, name, method)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        marker = item.get_closest_marker(MARKER)
        if marker is not None and not (marker.args and isinstance(marker.args[0], str)):
            raise pytest.UsageError(f"{item.nodeid}: {MARKER} needs a reason.")
        self._test = item.nodeid
        if marker is not None:
            self._excused.add(item.nodeid)
        self._counts.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.excinfo is not None and isinstance(call.excinfo.value, ApexLlmError):
            self._examine_error(call.excinfo.value, item.nodeid)
        if call.when == "call":
            for name, value in getattr(item, "funcargs", {}).items():
                if isinstance(value, Emulator):
                    self.examine("the emulator's list of requests", repr(value.requests))
                if type(value).__module__.startswith("apex_llm."):
                    self.examine(f"the repr of the fixture {name}", f"{value!r}{value!s}")
        if call.when == "teardown":
            for title, text in report.sections:
                self.examine(title, text)
            if leaks := self.leaks.get(item.nodeid):
                report.outcome = "failed"
                report.longrepr = "\n".join([f"{item.nodeid} shows a secret:", *dict.fromkeys(leaks)])
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        gc.collect()
        if self.leaks and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.leaks:
            terminalreporter.section("secrets were shown", red=True)
        for test, leaks in self.leaks.items():
            for leak in dict.fromkeys(leaks):
                terminalreporter.line(f"{test}: {leak}")

    # --- what it hears

    def emit(self, record: logging.LogRecord) -> None:
        if self._test in self._excused:
            return
        try:
            text = f"{record.getMessage()} {record.args!r} {record.exc_text or ''}"
        except Exception as error:
            text = f"{record.msg} {record.args!r} {error}"
        if record.exc_info and record.exc_info[1] is not None:
            text += "".join(_texts(record.exc_info[1]))
        self.examine(f"the log {record.name}", text)

    def pytest_warning_recorded(self, warning_message: Any, nodeid: str) -> None:
        # Told when the test is over, and its report written.
        self.examine("a warning", f"{warning_message.message!s}{warning_message.message!r}", test=nodeid)

    def _examine_error(self, error: ApexLlmError, test: str) -> None:
        kind = type(error).__name__
        if not self._again(kind):
            return
        self.examine(f"a {kind}", " ".join(_texts(error)), test=test)
        try:
            self.examine(f"the pickle of a {kind}", pickle.dumps(error).decode("latin-1"), test=test)
        except Exception as refusal:  # that they pickle is tested elsewhere; here some hold what does not
            self.examine(f"the refusal to pickle a {kind}", f"{refusal!s}", test=test)
        for where, text in _locals(error.__traceback__):
            self.examine(f"the traceback with locals of a {kind}, at {where},", text, test=test)

    def _examine_object(self, thing: Any, test: str) -> None:
        kind = type(thing).__name__
        if not self._again(kind):
            return
        self.examine(f"the repr of a {kind}", _shown(thing), test=test)
        try:
            pickled = pickle.dumps(thing)
        except Exception as error:  # most refuse, which is well
            self.examine(f"the refusal to pickle a {kind}", f"{error!s}", test=test)
        else:
            self.examine(f"the pickle of a {kind}", pickled.decode("latin-1"), test=test)


def _texts(error: BaseException) -> Iterator[str]:
    """What a traceback would print of the error and of those behind it, and what its attributes hold."""
    seen: set[int] = set()
    behind: list[BaseException | None] = [error]
    while behind:
        each = behind.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        behind += (each.__cause__, None if each.__suppress_context__ else each.__context__)
        yield f"{each!s} {each!r} {getattr(each, '__notes__', '')!r}"
        if isinstance(each, ApexLlmError):
            yield repr(vars(each))


def _locals(traceback: TracebackType | None) -> Iterator[tuple[str, str]]:
    """What tools that print locals (rich, cgitb, ``pytest -l``) would show of our frames, once an error left them."""
    files: list[str] = []
    step = traceback
    while step is not None:
        files.append(step.tb_frame.f_code.co_filename)
        step = step.tb_next
    if not files or _is_ours(files[0]) or not any(file.startswith(_DOORS) for file in files):
        return
    while traceback is not None:
        if _is_ours(traceback.tb_frame.f_code.co_filename):
            code = traceback.tb_frame.f_code
            for name, value in list(traceback.tb_frame.f_locals.items()):
                if isinstance(value, (str, bytes)):
                    yield f"{code.co_qualname}: {name}", repr(value[:_LONGEST])
                elif not isinstance(value, (int, float, type, weakref.ref)):
                    yield f"{code.co_qualname}: {name}", _shown(value)
        traceback = traceback.tb_next


def _is_ours(file: str) -> bool:
    return file.startswith(_ROOM) and not file.startswith(_APART)


def _shown(value: object) -> str:
    try:
        return f"{value!r} {value!s}"
    except Exception:  # it was never finished
        return ""
