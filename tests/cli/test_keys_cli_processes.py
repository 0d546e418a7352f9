"""``apex-llm keys`` as a new user meets it: a real process on a real terminal, a full disk, a home it may not write."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from age_by_hand import passphrase_file
from canaries import PASSPHRASE

from apex_llm.keys import ApiKeyManager
from apex_llm.keys.unlockers import read_master_key

if sys.platform == "win32":
    pytest.skip("terminals and limits of POSIX", allow_module_level=True)

import fcntl
import resource
import termios

MASTER_KEY = base64.b64encode(bytes(range(1, 33))).decode()
SECRET = "sk-canary-1f7e2b"
COMMAND = [sys.executable, "-m", "apex_llm.cli", "keys"]
_SECONDS = 60.0


class Terminal:
    """A process whose controlling terminal is ours to type on."""

    def __init__(self, *arguments: object, **variables: str) -> None:
        self._ours, theirs = os.openpty()

        def take_terminal() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background processes ignore it
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **variables},
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(theirs)
        self.text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)

    def expect(self, words: str) -> str:
        """Read until ``words`` have come; they and what came before them are not looked at again."""
        deadline = time.monotonic() + _SECONDS
        while words not in self.text:
            assert self._read(deadline), f"{words!r} did not come: {self.text!r}"
        before, _, self.text = self.text.partition(words)
        return before

    def answer(self, prompt: str, line: str) -> None:
        self.expect(prompt)
        # The echo is switched off after the prompt was asked for, and before it is shown.
        os.write(self._ours, line.encode() + b"\n")

    def end(self) -> tuple[int, str]:
        """The exit code, and what was not expected."""
        deadline = time.monotonic() + _SECONDS
        while self._read(deadline):
            pass
        return self._process.wait(_SECONDS), self.text.replace("\r\n", "\n")

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        try:
            piece = os.read(self._ours, 65536) if ready else b""
        except OSError:  # Linux says so when the last process has closed it
            piece = b""
        self.text += piece.decode("utf-8", "replace")
        return bool(piece)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APEX_LLM_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    return tmp_path / "store"


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    with ApiKeyManager.create(home).manager as manager:
        manager.set_api_key("github", SECRET)
        manager.set_oauth_token("github", {"access_token": "gho-canary", "scope": "repo"})
        manager.grant("crawler", "github")
    return home


def ran(
    *arguments: object, before: Callable[[], None] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    options.setdefault("input", "")
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        preexec_fn=before,
        # Without a terminal, whatever pytest itself was started from.
        start_new_session=True,
        **options,
    )


# --- on a terminal


def test_a_first_day_on_a_terminal_without_a_keyring(home: Path) -> None:
    """init, set, a wrong passphrase, and looking at the secret: nothing typed is echoed, nothing is shown unasked."""
    with Terminal("init") as terminal:
        terminal.answer("New passphrase of the key store: ", PASSPHRASE)
        terminal.answer("The same again: ", "something else")
        terminal.expect("The two differ")
        terminal.answer("New passphrase of the key store: ", PASSPHRASE)
        terminal.answer("The same again: ", PASSPHRASE)
        terminal.expect("It opens with: passphrase")
        code, said = terminal.end()
    assert code == 0
    assert PASSPHRASE not in said
    (recovery,) = [line for line in said.splitlines() if line.startswith("AGE-SECRET-KEY-1")]
    assert said.count("AGE-SECRET-KEY-1") == 1

    with Terminal("set", "aws_bedrock") as terminal:
        terminal.answer("Passphrase of the key store: ", "a wrong one")
        terminal.expect("The passphrase does not open identity.age")
        terminal.answer("Passphrase of the key store: ", PASSPHRASE)
        terminal.answer("Access key id: ", "AKIDEXAMPLE")
        terminal.answer("Secret access key: ", SECRET)
        terminal.answer("Session token (empty for none): ", "")
        terminal.answer("Region (empty for the environment's): ", "eu-central-1")
        code, said = terminal.end()
        assert code == 0
        assert SECRET not in said
        assert "Stored the api_key of aws_bedrock." in said

    with Terminal("show", "aws_bedrock", "--reveal", APEX_LLM_MASTER_KEY=recovery) as terminal:
        code, said = terminal.end()
    assert code == 0
    assert json.loads(said) == {
        "aws_access_key_id": "AKIDEXAMPLE",
        "aws_secret_access_key": SECRET,
        "aws_region": "eu-central-1",
    }


def test_three_wrong_passphrases_end_with_3(home: Path) -> None:
    ApiKeyManager.create(home, master_key=MASTER_KEY, recovery=False).manager.close()
    identity = f"{read_master_key(MASTER_KEY, source='a test')}\n".encode()
    (home / "identity.age").touch(mode=0o600)
    (home / "identity.age").write_bytes(passphrase_file(identity, PASSPHRASE))
    before = (home / "store.age").read_bytes()

    with Terminal("set", "github") as terminal:
        for _ in range(3):
            terminal.answer("Passphrase of the key store: ", "wrong")
        code, said = terminal.end()

    assert code == 3
    assert "hint: Try again, minding case and keyboard layout" in said
    assert "Traceback" not in said
    assert (home / "store.age").read_bytes() == before

    with Terminal("set", "github") as terminal:
        terminal.answer("Passphrase of the key store: ", PASSPHRASE)
        terminal.answer("Value of github: ", SECRET)
        assert terminal.end()[0] == 0


def test_an_interrupt_at_a_prompt_ends_with_130_and_stores_nothing(store: Path) -> None:
    before = (store / "store.age").read_bytes()

    with Terminal("set", "new") as terminal:
        terminal.answer("Value of new: ", "\x03")
        code, _ = terminal.end()

    assert code == 130
    assert (store / "store.age").read_bytes() == before


def test_an_end_of_input_at_a_prompt_stores_nothing_and_says_what_it_was(store: Path) -> None:
    before = (store / "store.age").read_bytes()
    with Terminal("set", "new") as terminal:
        terminal.answer("Value of new: ", "\x04")
        code, said = terminal.end()
    assert code == 3
    assert "The input ended before anything was typed." in said
    assert (store / "store.age").read_bytes() == before


def test_a_secret_on_a_terminal_cannot_steer_it(store: Path) -> None:
    with ApiKeyManager(store) as manager:
        manager.set_api_key("odd", "two\nlines \x1b]0;owned\x07")

    with Terminal("show", "odd", "--reveal") as terminal:
        code, said = terminal.end()

    assert (code, said) == (0, "two\nlines \\x1b]0;owned\\x07\n")


def test_a_secret_can_be_typed_while_standard_input_is_a_pipe(store: Path) -> None:
    """Prompts go to the terminal, as ssh and sudo do; the pipe is read only where that is asked for."""
    with Terminal("set", "piped", "--stdin") as terminal:
        os.write(terminal._ours, b"typed-in\n\x04")
        assert terminal.end()[0] == 0

    assert ApiKeyManager(store).get_api_key("piped") == "typed-in"


# --- without one


def test_a_script_without_a_terminal_is_told_which_option_to_use(store: Path) -> None:
    ended = ran("set", "new")

    assert ended.returncode == 2
    assert "There is no terminal to ask for it. Give --stdin" in ended.stderr


@pytest.fixture
def child(tmp_path: Path) -> Path:
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, sys\n"
        "open(sys.argv[1], 'w').write(json.dumps({'environ': dict(os.environ), 'pid': os.getpid()}))\n"
        "sys.exit(41)\n"
    )
    return script


def given(path: Path) -> dict[str, str]:
    return json.loads(path.read_text())["environ"]


def test_exec_runs_one_child_with_one_grant_and_without_the_master_key(
    store: Path, child: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "kept")
    report = tmp_path / "report"

    ended = ran("exec", "crawler", "github", "--", sys.executable, child, report)

    assert ended.returncode == 41, ended
    assert SECRET not in ended.stdout + ended.stderr
    environ = given(report)
    assert environ["GITHUB_API_KEY"] == SECRET
    assert environ["MINE"] == "kept"
    assert not {"APEX_LLM_MASTER_KEY", "APEX_LLM_MASTER_KEY_FILE", "APEX_LLM_MASTER_KEY_COMMAND"} & set(environ)
    assert not [name for name, value in environ.items() if "gho-canary" in value]
    last = ApiKeyManager(store).audit_entries()[-1]
    assert (last.plugin, last.operation, last.service, last.decision) == (
        "crawler", "get_api_key", "github", "allowed",
    )  # fmt: skip
    assert ApiKeyManager(store).verify().ok


def test_exec_can_leave_everything_else_out_and_name_the_variable(store: Path, child: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"

    ran(
        "exec", "--clean", "--kind", "oauth_token", "--as", "GH_TOKEN=access_token", "crawler", "github",
        sys.executable, child, report, env={**os.environ, "MINE": "left out"},
    )  # fmt: skip

    environ = given(report)
    assert environ["GH_TOKEN"] == "gho-canary"
    assert not {"MINE", "APEX_LLM_HOME", "GITHUB_SCOPE"} & set(environ)


def test_exec_never_mixes_two_identities_of_one_cloud(
    store: Path, child: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session token of the parent's beside a key of the store would be refused by AWS, or worse, accepted."""
    with ApiKeyManager(store) as manager:
        manager.set_api_key("aws_bedrock", {"aws_access_key_id": "AKID", "aws_secret_access_key": SECRET})
        manager.grant("crawler", "aws_bedrock")
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.setenv(name, "the parent's")
    report = tmp_path / "report"

    ran("exec", "crawler", "aws_bedrock", "--", sys.executable, child, report)

    assert "the parent's" not in given(report).values()
    assert given(report)["AWS_ACCESS_KEY_ID"] == "AKID"


def test_exec_starts_nothing_for_a_plugin_without_the_grant(store: Path, child: Path, tmp_path: Path) -> None:
    ended = ran("exec", "stranger", "github", "--", sys.executable, child, tmp_path / "report")

    assert ended.returncode == 3
    assert "apex-llm keys grant stranger github" in ended.stderr
    assert not (tmp_path / "report").exists()
    assert ApiKeyManager(store).audit_entries()[-1].decision == "denied: not granted"


def test_signals_reach_the_child_itself(store: Path) -> None:
    """A supervisor stops the process that it started; that must be the program, not somebody in front of it."""
    sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [*COMMAND, "exec", "crawler", "github", "--", sys.executable, "-c", sleeper], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.terminate()
        assert process.wait(_SECONDS) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# --- where something is wrong with the machine


def test_a_new_user_without_a_keyring_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throw-away home, no key, no terminal: whatever is tried first ends in a sentence, and leaves nothing behind."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    for words, code, advice in (
        ("init", 3, "On a server: apex-llm keys init --new-master-key-file FILE --recovery-file FILE"),
        ("set github --stdin", 1, "apex-llm keys init"),
        ("show github", 1, "apex-llm keys init"),
        ("list", 1, "apex-llm keys init"),
        ("status", 1, "Make one with: apex-llm keys init"),
        ("verify", 1, "Make one with: apex-llm keys init"),
        ("audit", 1, "Make one with: apex-llm keys init"),
        ("exec crawler github -- env", 1, "apex-llm keys init"),
    ):
        ended = ran(*words.split(), input=SECRET)
        assert (ended.returncode, advice in ended.stderr) == (code, True), (words, ended)
        assert "Traceback" not in ended.stderr, words
        assert SECRET not in ended.stdout + ended.stderr, words
    assert not list(tmp_path.iterdir())

    # The advice, followed to the letter.
    ended = ran("init", "--new-master-key-file", tmp_path / "master", "--recovery-file", tmp_path / "recovery")
    assert ended.returncode == 0, ended
    monkeypatch.setenv("APEX_LLM_MASTER_KEY_FILE", str(tmp_path / "master"))
    assert ran("set", "github", "--stdin", input=SECRET).returncode == 0
    assert ran("show", "github", "--reveal", "--force-pipe").stdout == f"{SECRET}\n"
    assert (tmp_path / ".local/share/apex-llm/store.age").is_file()


def test_output_that_cannot_be_written_is_a_sentence_too(store: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    for words in ("list", "show github --reveal --force-pipe", "--help"):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*COMMAND, *words.split()], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                timeout=_SECONDS, start_new_session=True,
            )  # fmt: skip
        assert done.returncode == 1
        assert "error: The output could not be written: No space left on device." in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("words", "closed", "code", "said"),
    [
        ("set github --stdin", (0,), 2, "Standard input is empty."),
        ("list", (1,), 1, "error: The output could not be written: Bad file descriptor."),
        ("show github --reveal", (1,), 2, "A secret is printed to a terminal only"),
        ("rotate --recovery-key --force-pipe", (0, 1), 1, "error: The output could not be written"),
        ("exec crawler github -- sh -c true", (0, 1, 2), 0, ""),
        ("grant crawler other", (0, 1, 2), 0, ""),
        ("show nothing", (2,), 1, ""),
    ],
)
def test_a_process_without_its_standard_streams_ends_as_it_should(
    store: Path, words: str, closed: tuple[int, ...], code: int, said: str
) -> None:
    """As some daemons and ``>&-`` start them. No file of the store may get the number of a stream either."""

    def close() -> None:
        for number in closed:
            os.close(number)

    ended = ran(*words.split(), before=close)
    assert (ended.returncode, said in ended.stderr) == (code, True), ended
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    assert ran("verify").returncode == 0


def test_a_home_whose_name_is_no_text_is_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    monkeypatch.setenv("APEX_LLM_HOME", home)
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    assert ran("init", "--no-recovery-key").returncode == 0
    for words in ("status", "verify --json", "list"):
        assert ran(*words.split()).returncode == 0
    assert json.loads(ran("status", "--json").stdout)["path"] == home


def without_privileges() -> None:
    """Root may write everywhere; without these two capabilities it is held to modes like everybody."""
    if os.geteuid():
        return
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if library.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            os._exit(99)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    changed: list[Path] = []

    def close(path: Path) -> None:
        path.chmod(0o500)
        changed.append(path)

    yield close
    for path in changed:
        path.chmod(0o700)


def test_a_home_that_cannot_be_written_is_a_sentence_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    (tmp_path / "me").mkdir()
    read_only(tmp_path / "me")

    ended = ran("init", "--no-recovery-key", before=without_privileges)
    if ended.returncode == 99:
        pytest.skip("this root keeps its privileges")

    assert ended.returncode == 1
    assert "Permission denied" in ended.stderr
    assert "APEX_LLM_HOME" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_store_in_a_home_that_cannot_be_written_is_still_read(store: Path, read_only: Callable[[Path], None]) -> None:
    read_only(store)

    listed = ran("list", before=without_privileges)
    if listed.returncode == 99:
        pytest.skip("this root keeps its privileges")
    refused = ran("set", "new", "--stdin", input="x", before=without_privileges)

    assert listed.returncode == 0, listed
    assert "github" in listed.stdout
    assert refused.returncode == 1
    assert "Permission denied" in refused.stderr
    assert "hint:" in refused.stderr


def test_a_file_size_limit_keeps_the_store_as_it_was(store: Path) -> None:
    before = (store / "store.age").read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

    ended = ran("set", "new", "--stdin", input="x" * 4096, before=limit)

    assert ended.returncode == 1
    assert "ulimit -f" in ended.stderr
    assert (store / "store.age").read_bytes() == before
    assert ApiKeyManager(store).get_api_key("github") == SECRET


def on_a_small_disk(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A shell script in a mount namespace of its own, where ``directory`` is a disk of 64 KiB."""
    return mounted(f"mount -t tmpfs -o size=64k,mode=700 small {directory} || exit 99\n", script)


def on_a_read_only_disk(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    """The same, where ``directory`` is as it is and cannot be written by anybody."""
    return mounted(
        f"mount -o bind {directory} {directory} && mount -o remount,ro,bind {directory} || exit 99\n", script
    )


def mounted(mount: str, script: str) -> subprocess.CompletedProcess[str]:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("util-linux is not here")
    done = subprocess.run(
        [unshare, "--map-root-user", "--mount", "sh", "-c", mount + script], capture_output=True, text=True,
        timeout=_SECONDS, check=False, input="", start_new_session=True,
    )  # fmt: skip
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    return done


def steps(output: str) -> dict[str, str]:
    """What each command of a script said, and ``code N`` behind it."""
    parts = output.split("== ")
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts[1:]}


def each(commands: Sequence[str]) -> str:
    return "".join(
        f'echo "== {command}"; echo other-value | {sys.executable} -m apex_llm.cli keys {command} 2>&1; echo code $?\n'
        for command in commands
    )


def test_a_read_only_file_system_is_read_and_says_why_it_is_not_written(store: Path, tmp_path: Path) -> None:
    """A container's read-only volume, and a home on a disk that was mounted read-only after a fault."""
    changing = ["set github --stdin", "remove github", "grant p github", "rotate --encryption-keys", "audit --archive"]
    handing_out = ["show github --reveal --force-pipe", "exec crawler github -- env"]
    before = (store / "store.age").read_bytes()

    done = on_a_read_only_disk(
        store, each(["list", "status", "verify", "exec --audit on crawler github -- env", *changing, *handing_out])
    )

    said = steps(done.stdout)
    assert done.returncode == 0, done
    for command in ("list", "status", "verify", "exec --audit on crawler github -- env"):
        assert said[command].endswith("code 0\n"), said
    for command in (*changing, *handing_out):
        assert said[command].endswith("code 1\n"), said
        assert "Read-only file system" in said[command]
        assert "hint: The file system is read-only. Point APEX_LLM_HOME" in said[command]
        assert "Traceback" not in said[command]
        assert SECRET not in said[command]
    assert "--audit on" in said["exec crawler github -- env"]
    assert (store / "store.age").read_bytes() == before


def test_a_full_disk_loses_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("APEX_LLM_HOME", str(disk / "store"))
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    keys = f"{sys.executable} -m apex_llm.cli keys"

    done = on_a_small_disk(
        disk,
        f"{keys} init --no-recovery-key && echo {SECRET} | {keys} set github --stdin || exit 98\n"
        f"head -c 1000000 /dev/zero > {disk}/rest 2>/dev/null\n"
        f"echo other | {keys} set github --stdin; echo code $?\n"
        f"rm {disk}/rest; {keys} show github --reveal --force-pipe && {keys} verify; echo code $?\n",
    )

    assert done.returncode == 0, done
    assert "The disk is full. Free some space; the store is as it was." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    failed, recovered = [line for line in done.stdout.splitlines() if line.startswith("code ")]
    assert (failed, recovered) == ("code 1", "code 0")
    assert SECRET in done.stdout


def test_every_command_on_a_full_disk_ends_in_a_sentence_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("APEX_LLM_HOME", str(disk / "store"))
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    keys = f"{sys.executable} -m apex_llm.cli keys"
    recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    refused = [
        "set github --stdin", "remove github", "grant p github", "rotate --encryption-keys", "audit --archive",
        f"rotate --recovery-key --recovery-file {disk}/recovery",
        f"rotate --master-key --new-master-key-file {disk}/master",
        f"export {disk}/out --recipient {recipient}",
        f"--home {disk}/another init --no-recovery-key",
    ]  # fmt: skip

    done = on_a_small_disk(
        disk,
        f"{keys} init --no-recovery-key 2>/dev/null && echo {SECRET} | {keys} set github --stdin || exit 98\n"
        f"head -c 1000000 /dev/zero > {disk}/rest 2>/dev/null\n"
        + each(refused)
        + f"echo '== left'; ls -A {disk}; rm {disk}/rest\n"
        + each(["show github --reveal --force-pipe", "verify", "audit --archive --json", "verify --json"]),
    )

    said = steps(done.stdout)
    assert done.returncode == 0, done
    for command in refused:
        assert said[command].endswith("code 1\n"), said[command]
        assert "No space left on device" in said[command], said[command]
        assert "hint: " in said[command] or "Nothing was done; name another file." in said[command]
        assert "Traceback" not in said[command]
    assert SECRET in said["show github --reveal --force-pipe"]
    assert said["verify"].startswith("All is well"), said
    assert said["audit --archive --json"].endswith("code 0\n"), said
    assert said["verify --json"].endswith("code 0\n"), said
    assert sorted(said["left"].split()) == ["another", "rest", "store"]


def test_a_recovery_key_is_not_changed_where_the_new_one_has_no_room(store: Path, tmp_path: Path) -> None:
    """A file can often be made on a full disk, and not be filled: the new key would be lost, and the old one out."""
    disk = tmp_path / "disk"
    disk.mkdir()
    before = (store / "store.age").read_bytes()
    done = on_a_small_disk(
        disk,
        f"head -c 1000000 /dev/zero > {disk}/rest 2>/dev/null\n"
        + each([f"rotate --recovery-key --recovery-file {disk}/recovery"])
        + f"test ! -e {disk}/recovery || exit 97\n",
    )
    assert done.returncode == 0, done
    assert "recovery cannot be written: No space left on device. Nothing was done" in done.stdout
    assert (store / "store.age").read_bytes() == before


def test_no_secret_leaves_without_its_line_in_the_log(store: Path) -> None:
    size = (store / "audit.jsonl").stat().st_size

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    shown = ran("show", "github", "--reveal", "--force-pipe", before=limit)
    run = ran("exec", "crawler", "github", "--", "env", before=limit)
    allowed = ran("exec", "--audit", "on", "crawler", "github", "--", "env", before=limit)

    for ended in (shown, run):
        assert ended.returncode == 1
        assert "no line, no secret" in ended.stderr
        assert SECRET not in ended.stdout + ended.stderr
    assert allowed.returncode == 0
    assert f"GITHUB_API_KEY={SECRET}" in allowed.stdout
    assert "could not be written" in allowed.stderr


def test_the_extra_that_is_missing_is_named(home: Path) -> None:
    """``[cli]`` without ``[keys]``: the commands are there, the library that encrypts is not."""
    program = (
        "import sys; sys.modules['pyrage'] = None\n"
        "from apex_llm.cli.application import run\n"
        "sys.exit(run(['keys', 'init', '--no-recovery-key']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "APEX_LLM_MASTER_KEY": MASTER_KEY},
    )  # fmt: skip

    assert done.returncode == 1
    assert 'pip install "apex-llm[keys]"' in done.stderr
    assert "Traceback" not in done.stderr
