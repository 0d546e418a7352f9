"""K7, and every way to open a store: passphrase, environment, file, command, keyring, recovery key."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType

import keyring
import pyrage
import pytest
from keys_support import MASTER_KEY, VALUE, FaultyLayer, MemoryKeyring, store_behind

from apex_llm.errors import ConfigurationError, KeyStoreError, NoUnlockerError, WrongPassphraseError
from apex_llm.keys import ApiKeyManager, Keyring, MasterKey, Passphrase
from apex_llm.keys.keyrings import find_keyring

COMPOSED, DECOMPOSED = "Stra\u00dfe-caf\u00e9-\u00c5", "Stra\u00dfe-cafe\u0301-A\u030a"


def test_a_passphrase_opens_the_store_however_it_was_typed(home: Path) -> None:
    """K7, with the real work: composed and decomposed forms are one passphrase, and wrong ones are none."""
    manager, recovery = ApiKeyManager.create(home, passphrase=COMPOSED)
    manager.set_api_key("aws_bedrock", VALUE)
    assert recovery is not None

    assert ApiKeyManager(home, passphrase=lambda: DECOMPOSED).get_api_key("aws_bedrock") == VALUE
    with pytest.raises(WrongPassphraseError, match="or that file is damaged"):
        ApiKeyManager(home, passphrase="wrong").get_api_key("aws_bedrock")


def test_twenty_wrong_passphrases_do_not_open(home: Path) -> None:
    """K7, each in the child process that derives the key; the right one does, composed or not."""
    store_behind(COMPOSED, home)
    before = (home / "store.age").read_bytes()
    wrong = [
        COMPOSED[:-1],
        COMPOSED + COMPOSED[-1],
        COMPOSED.casefold(),
        f" {COMPOSED}",
        "\u00c5",
        *map(str, range(15)),
    ]
    assert len(wrong) == 20
    for each in wrong:
        with pytest.raises(WrongPassphraseError, match=r"does not open identity\.age"):
            ApiKeyManager(home, passphrase=each, environ={}).set_api_key("aws_bedrock", "x")
    assert (home / "store.age").read_bytes() == before
    for right in (COMPOSED, DECOMPOSED):
        assert ApiKeyManager(home, passphrase=right, environ={}).get_api_key("aws_bedrock") == VALUE


@pytest.mark.usefixtures("little_work")
@pytest.mark.parametrize("wrong", ["", "x" * (1 << 20), COMPOSED + " ", COMPOSED.upper(), "\ud800", "\0"])
def test_strange_passphrases_do_not_open(home: Path, wrong: str) -> None:
    """K7."""
    ApiKeyManager(home, passphrase=COMPOSED).set_api_key("aws_bedrock", VALUE)
    before = (home / "store.age").read_bytes()

    with pytest.raises(WrongPassphraseError):
        ApiKeyManager(home, passphrase=wrong).get_api_key("aws_bedrock")
    with pytest.raises(WrongPassphraseError):
        ApiKeyManager(home, passphrase=wrong).set_api_key("aws_bedrock", "x")
    assert (home / "store.age").read_bytes() == before


def test_an_empty_passphrase_makes_no_store(home: Path) -> None:
    with pytest.raises(WrongPassphraseError, match="is empty"):
        ApiKeyManager.create(home, passphrase="")
    assert not (home / "store.age").exists()


def test_the_key_is_derived_in_another_process(home: Path) -> None:
    """pyrage holds the interpreter's lock for the whole second: a thread of ours must go on meanwhile."""
    import threading

    store_behind("one", home, work_factor=18)
    manager = ApiKeyManager(home, passphrase="one", environ={})
    thread = threading.Thread(target=manager.get_api_key, args=("aws_bedrock",))
    longest, started = 0.0, time.perf_counter()
    thread.start()
    while thread.is_alive():
        began = time.perf_counter()
        time.sleep(0.001)
        longest = max(longest, time.perf_counter() - began)
    took = time.perf_counter() - started
    assert manager.get_api_key("aws_bedrock") == VALUE
    assert longest < took / 2


@pytest.mark.usefixtures("little_work")
def test_a_new_passphrase_replaces_the_former_one(home: Path) -> None:
    manager = ApiKeyManager(home, passphrase="former")
    manager.set_api_key("aws_bedrock", VALUE)
    sleeping = ApiKeyManager(home, passphrase="former")
    sleeping.unlock()

    assert manager.rotate_master_key(passphrase="later") is None

    assert manager.get_api_key("aws_bedrock") == VALUE
    assert ApiKeyManager(home, passphrase="later").get_api_key("aws_bedrock") == VALUE
    for former in (sleeping, ApiKeyManager(home, passphrase="former")):
        with pytest.raises(WrongPassphraseError):
            former.get_api_key("aws_bedrock")
    assert not list(home.glob("*.bak.*"))
    manager.rotate_master_key()
    assert ApiKeyManager(home, passphrase="later").verify().ok


@pytest.mark.usefixtures("little_work")
def test_a_new_passphrase_is_in_force_only_when_the_rotation_was_made(tmp_path: Path) -> None:
    """An error that says "the store is as it was" must not leave a store that the former passphrase opens no more."""

    def rotating(home: Path, layer: FaultyLayer) -> ApiKeyManager:
        ApiKeyManager(home, passphrase="former").set_api_key("service", "value")
        manager = ApiKeyManager(home, passphrase="former", os_layer=layer)
        manager.unlock()
        layer.count = 0
        layer.calls.clear()
        return manager

    rehearsal = FaultyLayer()
    rotating(tmp_path / "rehearsal", rehearsal).rotate_master_key(passphrase="later")
    assert rehearsal.calls.count("replace") >= 3
    refused = 0
    for at, call in enumerate(list(rehearsal.calls), 1):
        home = tmp_path / str(at)
        layer = FaultyLayer()
        manager = rotating(home, layer)
        layer.at = at
        expected = "later"
        try:
            manager.rotate_master_key(passphrase="later")
        except KeyStoreError as error:
            refused += 1
            expected = "later" if "The change was made" in str(error.hint) else "former"
        assert ApiKeyManager(home, passphrase=expected).get_api_key("service") == "value", (at, call)
        if expected == "former":
            manager.close()
            assert manager.get_api_key("service") == "value", (at, call)
            assert manager.rotate_master_key(passphrase="later") is None
            assert ApiKeyManager(home, passphrase="later").verify().ok, (at, call)
    assert refused > 15


@pytest.mark.usefixtures("little_work")
def test_a_creation_that_was_cut_short_is_taken_up_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity was written, the store was not: the next attempt uses that identity, with its passphrase only."""
    with monkeypatch.context() as patch:
        patch.setattr("apex_llm.keys.vault.Vault._save", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ApiKeyManager.create(home, passphrase="one")
    assert (home / "identity.age").exists()

    with pytest.raises(WrongPassphraseError):
        ApiKeyManager.create(home, passphrase="another")
    ApiKeyManager.create(home, passphrase="one").manager.set_api_key("aws_bedrock", VALUE)
    assert ApiKeyManager(home, passphrase="one").get_api_key("aws_bedrock") == VALUE


def test_the_environment_opens_the_store(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(MASTER_KEY + "\n")
    script = tmp_path / "print key.py"
    script.write_text(f"print({MASTER_KEY!r})")
    for environment in (
        {"APEX_LLM_MASTER_KEY": MASTER_KEY},
        {"APEX_LLM_MASTER_KEY": MASTER_KEY.replace("+", "-").replace("/", "_")},
        {"APEX_LLM_MASTER_KEY_FILE": str(file)},
        {"APEX_LLM_MASTER_KEY_COMMAND": f"{sys.executable} '{script}'"},
    ):
        manager = ApiKeyManager(home, environ=environment)
        manager.set_api_key("aws_bedrock", VALUE)
        assert ApiKeyManager(home, environ=environment).get_api_key("aws_bedrock") == VALUE
        assert manager.status().opened_by == "master key"


def test_the_plain_call_of_the_plan_needs_only_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEX_LLM_MASTER_KEY", MASTER_KEY)
    ApiKeyManager().set_api_key("aws_bedrock", VALUE)
    assert ApiKeyManager().path == Path.home() / ".local/share/apex-llm"
    monkeypatch.setenv("APEX_LLM_HOME", str(tmp_path / "elsewhere"))
    assert ApiKeyManager().path == tmp_path / "elsewhere"
    assert ApiKeyManager().get_api_key("aws_bedrock") is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"APEX_LLM_MASTER_KEY": "password"}, "base64 of 6 bytes"),
        ({"APEX_LLM_MASTER_KEY": "no base64 at all!"}, "something else"),
        ({"APEX_LLM_MASTER_KEY": "A" * 43 + "="}, "one byte repeated"),
        ({"APEX_LLM_MASTER_KEY": "AGE-SECRET-KEY-1QQQQ"}, "something else"),
        ({"APEX_LLM_MASTER_KEY_FILE": "/nowhere/at/all"}, "does not name a file"),
        ({"APEX_LLM_MASTER_KEY_FILE": "/dev/zero"}, "does not name a file"),
        ({"APEX_LLM_MASTER_KEY_COMMAND": "false"}, "ended with code 1"),
        ({"APEX_LLM_MASTER_KEY_COMMAND": "no-such-command-here"}, "could not be started"),
        ({"APEX_LLM_MASTER_KEY_COMMAND": "unclosed 'quote"}, "not a command line"),
        ({"APEX_LLM_MASTER_KEY_COMMAND": "yes"}, "took longer than"),
    ],
)
def test_a_key_that_is_set_but_wrong_is_an_error_and_not_passed_over(
    home: Path, environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silently going on to the next unlocker would open, or make, another store than was meant."""
    monkeypatch.setattr("apex_llm.keys.unlockers._COMMAND_SECONDS", 0.2)
    with pytest.raises(WrongPassphraseError, match=message) as caught:
        ApiKeyManager(home, environ=environment).set_api_key("aws_bedrock", VALUE)
    assert "password" not in str(caught.value)
    assert not (home / "store.age").exists()


def test_a_shell_is_never_asked(home: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(WrongPassphraseError):
        ApiKeyManager(home, environ={"APEX_LLM_MASTER_KEY_COMMAND": f"true; touch {trap}"}).set_api_key("a", "b")
    assert not trap.exists()


def test_the_recovery_key_opens_what_the_passphrase_was_lost_for(home: Path) -> None:
    made = ApiKeyManager.create(home, master_key=MASTER_KEY)
    made.manager.set_api_key("aws_bedrock", VALUE)
    assert made.recovery_key is not None
    assert made.recovery_key.reveal() not in repr(made)
    assert made.recovery_key.reveal().encode() not in b"".join(path.read_bytes() for path in home.iterdir())

    rescued = ApiKeyManager(home, master_key=made.recovery_key)
    assert rescued.get_api_key("aws_bedrock") == VALUE
    rescued.set_api_key("service", "value")
    assert ApiKeyManager(home, master_key=MASTER_KEY).get_api_key("service") == "value"
    with pytest.raises(ConfigurationError, match="recovery key"):
        rescued.rotate_master_key()
    new = ApiKeyManager.generate_master_key()
    rescued.rotate_master_key(master_key=new)
    assert ApiKeyManager(home, master_key=new).get_api_key("aws_bedrock") == VALUE
    with pytest.raises(WrongPassphraseError):
        ApiKeyManager(home, master_key=MASTER_KEY).get_api_key("service")

    again = rescued.rotate_recovery_key()
    assert ApiKeyManager(home, master_key=again).get_api_key("aws_bedrock") == VALUE
    with pytest.raises(WrongPassphraseError):
        ApiKeyManager(home, master_key=made.recovery_key).get_api_key("service")


def test_a_new_master_key_that_got_lost_locks_nobody_out(manager: ApiKeyManager, home: Path) -> None:
    """Only the operator can put it in place: until the store is saved with it, the former key opens it too."""
    new = manager.rotate_master_key()
    assert new is not None
    assert manager.status().rotation_pending
    manager.set_api_key("service", "value")
    assert ApiKeyManager(home, master_key=MASTER_KEY).get_api_key("service") == "value"

    ApiKeyManager(home, master_key=new).set_api_key("service", "later")

    assert not ApiKeyManager(home, master_key=new).status().rotation_pending
    with pytest.raises(WrongPassphraseError):
        ApiKeyManager(home, master_key=MASTER_KEY).get_api_key("service")
    assert manager.get_api_key("service") == "later"  # it made the key, and knows it


def test_new_master_keys_that_got_lost_one_after_the_other_lock_nobody_out(manager: ApiKeyManager, home: Path) -> None:
    """Each time by a process that was given the key which is in place: that one must go on opening the store."""
    lost = [ApiKeyManager(home, master_key=MASTER_KEY).rotate_master_key() for _ in range(4)]
    assert ApiKeyManager(home, master_key=MASTER_KEY).get_api_key("aws_bedrock") == VALUE
    assert ApiKeyManager(home, master_key=lost[-2]).get_api_key("aws_bedrock") == VALUE
    with pytest.raises(WrongPassphraseError):
        ApiKeyManager(home, master_key=lost[0]).get_api_key("aws_bedrock")

    ApiKeyManager(home, master_key=lost[-1]).set_api_key("service", "value")

    for former in (MASTER_KEY, lost[-2]):
        with pytest.raises(WrongPassphraseError):
            ApiKeyManager(home, master_key=former).get_api_key("aws_bedrock")


class AnchorInAFile:
    """As an application may write one; the file is not there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> str | None:
        return self.path.read_text()

    def write(self, value: str) -> None:
        self.path.write_text(value)


@pytest.mark.parametrize("what", ["passphrase", "anchor"])
def test_a_file_that_a_callback_misses_does_not_make_the_store_an_empty_one(
    manager: ApiKeyManager, home: Path, tmp_path: Path, what: str
) -> None:
    """Its ``FileNotFoundError`` is the application's own, and says nothing about the store."""
    missing = tmp_path / "missing"
    if what == "passphrase":
        (home / "identity.age").touch(mode=0o600)
        blind = ApiKeyManager(home, unlockers=[Passphrase(lambda: missing.read_text())])
    else:
        blind = ApiKeyManager(home, master_key=MASTER_KEY, anchor=AnchorInAFile(missing))
    for act in (lambda: blind.get_api_key("aws_bedrock"), lambda: blind.set_api_key("a", "b"), blind.verify):
        with pytest.raises(FileNotFoundError, match="missing"):
            act()
    assert manager.verify().ok


def test_an_anchor_remembers_a_store_whose_directory_is_gone(home: Path, tmp_path: Path) -> None:
    anchor = AnchorInAFile(tmp_path / "anchor")
    anchor.write("")
    ApiKeyManager(home, master_key=MASTER_KEY, anchor=anchor).set_api_key("service", "value")
    home.rename(tmp_path / "elsewhere")
    with pytest.raises(KeyStoreError, match="there was one"):
        ApiKeyManager(home, master_key=MASTER_KEY, anchor=anchor).get_api_key("service")


def test_a_reader_whose_keys_are_newer_than_what_it_read_reads_again(home: Path) -> None:
    """Between the file and its key, another process rotated: not a wrong key."""
    backend = MemoryKeyring()
    writing = ApiKeyManager(home, unlockers=[Keyring(backend)])
    writing.set_api_key("service", "value")

    class Late(MemoryKeyring):
        rotations = 2

        def get_password(self, service, username):
            if self.rotations:
                self.rotations -= 1
                writing.rotate_master_key()
            return backend.get_password(service, username)

    assert ApiKeyManager(home, unlockers=[Keyring(Late())]).get_api_key("service") == "value"


def test_without_anything_to_open_it_each_way_is_named(manager: ApiKeyManager, home: Path) -> None:
    with pytest.raises(NoUnlockerError, match=r"passphrase: .*; master key: .*; keyring: ") as caught:
        ApiKeyManager(home, environ={}).get_api_key("aws_bedrock")
    assert "APEX_LLM_MASTER_KEY_COMMAND" in str(caught.value.hint)


def test_without_anything_no_store_is_made(home: Path) -> None:
    """A machine without a keyring: nothing in plain text, and a sentence that says what to do."""
    with pytest.raises(NoUnlockerError) as caught:
        ApiKeyManager(home, environ={}).set_api_key("aws_bedrock", VALUE)
    assert "APEX_LLM_MASTER_KEY" in str(caught.value.hint)
    assert not home.exists() or not any(path.read_bytes() for path in home.iterdir())


def test_a_keyring_keeps_the_key_and_follows_a_rotation(home: Path) -> None:
    backend = MemoryKeyring()

    def fresh() -> ApiKeyManager:
        return ApiKeyManager(home, unlockers=[Passphrase(None), MasterKey(None, {}), Keyring(backend)])

    manager = fresh()
    manager.set_api_key("aws_bedrock", VALUE)
    first = dict(backend.entries)
    assert fresh().get_api_key("aws_bedrock") == VALUE
    assert fresh().status().unlockers[2].available

    running = fresh()
    running.unlock()
    assert manager.rotate_master_key() is None
    assert backend.entries != first
    assert running.get_api_key("aws_bedrock") == VALUE  # asks its keyring again
    assert fresh().get_api_key("aws_bedrock") == VALUE


def test_a_master_key_can_move_into_the_keyring(home: Path) -> None:
    backend = MemoryKeyring()
    unlockers = [Passphrase(None), MasterKey(MASTER_KEY, {}), Keyring(backend)]
    manager = ApiKeyManager(home, unlockers=unlockers)
    manager.set_api_key("aws_bedrock", VALUE)

    assert manager.rotate_master_key(keyring=True) is None
    assert manager.status().opened_by == "keyring"
    assert ApiKeyManager(home, unlockers=[Keyring(backend)]).get_api_key("aws_bedrock") == VALUE
    with pytest.raises(WrongPassphraseError):
        ApiKeyManager(home, unlockers=[MasterKey(MASTER_KEY, {})]).get_api_key("aws_bedrock")
    with pytest.raises(ConfigurationError, match="one of"):
        manager.rotate_master_key(keyring=True, passphrase="x")


def test_without_a_keyring_a_move_there_changes_nothing(home: Path) -> None:
    manager = ApiKeyManager(home, master_key=MASTER_KEY)
    manager.set_api_key("aws_bedrock", VALUE)
    with pytest.raises(NoUnlockerError, match="keyring cannot be used"):
        manager.rotate_master_key(keyring=True)
    assert ApiKeyManager(home, master_key=MASTER_KEY).get_api_key("aws_bedrock") == VALUE


def test_a_keyring_that_refuses_is_an_error_of_ours(home: Path) -> None:
    class Refuses(MemoryKeyring):
        def set_password(self, service, username, password):
            raise RuntimeError("no session bus")

    with pytest.raises(KeyStoreError, match="refused to keep the key"):
        ApiKeyManager(home, unlockers=[Keyring(Refuses())]).set_api_key("a", "b")
    assert not (home / "store.age").exists()


def test_only_keyrings_that_encrypt_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own last resort, and the plain-text backends, are none; one inside a chain is found."""

    def backend(module: str, **attributes):
        made = type("Keyring", (), {"__module__": module, **attributes})
        return made()

    for module in ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt.file", "somebody.elses"):
        monkeypatch.setattr(keyring, "get_keyring", lambda module=module: backend(module))
        assert isinstance(find_keyring(), str)
    genuine = backend("keyring.backends.SecretService")
    chain = backend("keyring.backends.chainer", backends=[backend("keyrings.alt.file"), genuine])
    monkeypatch.setattr(keyring, "get_keyring", lambda: chain)
    assert find_keyring() is genuine


def test_without_pyrage_the_message_names_the_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(KeyStoreError, match="pyrage") as caught:
        ApiKeyManager(home, master_key=MASTER_KEY).set_api_key("a", "b")
    assert "apex-llm[keys]" in str(caught.value.hint)
    assert isinstance(pyrage, ModuleType)
