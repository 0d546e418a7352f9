"""K11: the watch over the whole suite works: each way of showing a secret is found, and named with its test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_CONFTEST = """
from canaries import CanaryWatch


def pytest_configure(config):
    config.pluginmanager.register(CanaryWatch())
"""
_HEAD = """
import base64, copy, logging, sys, warnings
import pytest
from canaries import MASTER_KEY, STORED_SECRET
from apex_llm import ApiKeyManager, BedrockProvider, PluginHandle, providers
from apex_llm.emulator import Emulator, RecordedRequest
from apex_llm.errors import ApexLlmError, KeyStoreError
from apex_llm.keys.document import check_value

LOG = logging.getLogger("apex_llm.somewhere")
ENCODED = base64.b64encode(b"user:" + STORED_SECRET.encode()).decode()
"""
# By what the report must say: the body of a test that leaks that way.
LEAKS = {
    "the log apex_llm.somewhere shows a stored secret": """
    LOG.debug("sent %s", {"body": STORED_SECRET})""",
    "the log apex_llm.somewhere shows a master key": """
    LOG.debug("key " + MASTER_KEY.encode().hex())""",
    "the log asyncio shows": """
    logging.getLogger("asyncio").error("Task exception: %r", STORED_SECRET)""",
    "a warning shows": """
    warnings.warn(f"deprecated: {MASTER_KEY}", stacklevel=1)""",
    "Captured stdout call shows a stored secret": """
    print("Basic", ENCODED)""",
    "Captured stderr call shows": """
    print(MASTER_KEY, file=sys.stderr)""",
    "a KeyStoreError shows": """
    with pytest.raises(ApexLlmError):
        raise KeyStoreError("opened", hint=MASTER_KEY)""",
    "a ApexLlmError shows": """
    try:
        raise ApexLlmError("failed") from ValueError(MASTER_KEY)
    except ApexLlmError:
        pass""",
    "the pickle of a ApexLlmError shows": """
    class Held:
        def __repr__(self): return "Held()"
        def __reduce__(self): return (str, (MASTER_KEY,))
    error = ApexLlmError("failed")
    error.held = Held()""",
    "the traceback with locals of a ConfigurationError, at check_value": """
    with pytest.raises(ApexLlmError):
        check_value({"key": STORED_SECRET, "odd": object()})""",
    "the traceback with locals of a ApexLlmError, at fail: secret": """
    source = "def fail(secret):\\n    raise ApexLlmError('failed')\\n"
    space = {"ApexLlmError": ApexLlmError}
    exec(compile(source, providers.__file__, "exec"), space)
    with pytest.raises(ApexLlmError):
        space["fail"](MASTER_KEY)""",
    "the repr of a Told shows": """
    class Told(BedrockProvider):
        def __repr__(self): return STORED_SECRET
    Told()""",
    "the repr of a PluginHandle shows": """
    PluginHandle(MASTER_KEY, None, None)""",
    "the refusal to pickle a Odd shows": """
    class Odd(PluginHandle):
        def __reduce_ex__(self, protocol): raise TypeError(MASTER_KEY)
    Odd("plugin", None, None)""",
    "the emulator's list of requests shows": """
    emulator.requests.append(RecordedRequest(method="GET", path="/" + emulator.api_key))""",
}
CLEAN = """


def test_clean(tmp_path):
    LOG.debug("sent")
    print("hello")
    with pytest.raises(ApexLlmError):
        ApiKeyManager(tmp_path / "store", master_key=MASTER_KEY).set_api_key("a", [STORED_SECRET])


@pytest.mark.shows_secrets("because")
def test_allowed():
    print(MASTER_KEY)
"""


def run(folder: Path, tests: str) -> tuple[int, str]:
    (folder / "conftest.py").write_text(_CONFTEST)
    (folder / "test_leaks.py").write_text(_HEAD + tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(folder),
         "-o", f"pythonpath={_TESTS}", str(folder)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.shows_secrets("prints what the watch says of tests that leak")
def test_each_way_of_showing_a_secret_fails_the_test_that_showed_it(tmp_path: Path) -> None:
    tests = "\n\n@pytest.fixture\ndef emulator():\n    yield Emulator()\n"
    for number, body in enumerate(LEAKS.values()):
        fixture = "emulator" if "emulator" in body else ""
        tests += f"\n\ndef test_leak_{number}({fixture}):{body}\n"
    code, said = run(tmp_path, tests)

    assert code == 1, said
    for number, wanted in enumerate(LEAKS):
        assert re.search(rf"test_leak_{number}: {re.escape(wanted)}", said), (wanted, said)
    assert said.count(" shows a secret:") >= len(LEAKS) - 2  # less what is told when the test's report is written


@pytest.mark.shows_secrets("as above")
def test_tests_that_show_nothing_pass_and_those_that_must_show_one_say_why(tmp_path: Path) -> None:
    code, said = run(tmp_path, CLEAN)
    assert code == 0, said
    code, said = run(tmp_path, "\n\n@pytest.mark.shows_secrets\ndef test_allowed():\n    print(MASTER_KEY)\n")
    assert code != 0
    assert "needs a reason" in said
