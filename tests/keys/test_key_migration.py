"""K20: everything moves out of ApexAgent's first key file, or nothing happens to it."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from keys_support import MASTER_KEY

from apex_llm.errors import KeyStoreError, NoUnlockerError, TamperedError, UnsupportedFormatError, WrongPassphraseError
from apex_llm.keys import ApiKeyManager

HELD = {
    "api_keys": {"openai": "sk-one", "aws_bedrock": "AKIA-two", "spaces and \u00fcmlauts": "three"},
    "oauth_tokens": {
        "google": {"access_token": "xyz", "refresh_token": "abc", "expires_at": 1678886400, "scope": "read write"},
        "openai": {"access_token": "both kinds"},
    },
}


@pytest.fixture
def legacy(tmp_path: Path) -> tuple[Path, str]:
    """As the older manager wrote it: JSON in a Fernet token, mode and all."""
    key = Fernet.generate_key()
    path = tmp_path / ".apex_agent_api_keys.enc"
    path.write_bytes(Fernet(key).encrypt(json.dumps(HELD).encode()))
    path.chmod(0o644)
    return path, key.decode()


@pytest.fixture
def empty(home: Path) -> ApiKeyManager:
    return ApiKeyManager(home, master_key=MASTER_KEY)


def test_all_keys_move_and_the_original_is_kept_under_another_name(
    empty: ApiKeyManager, home: Path, legacy: tuple[Path, str]
) -> None:
    path, key = legacy
    content = path.read_bytes()

    report = empty.migrate(path, master_key=key)

    again = ApiKeyManager(home, master_key=MASTER_KEY)
    assert {name: again.get_api_key(name) for name in HELD["api_keys"]} == HELD["api_keys"]
    assert {name: again.get_oauth_token(name) for name in HELD["oauth_tokens"]} == HELD["oauth_tokens"]
    assert again.list_configured_services() == {
        "api_keys": sorted(HELD["api_keys"]),
        "oauth_tokens": sorted(HELD["oauth_tokens"]),
    }
    assert not path.exists()
    assert Path(report.original).read_bytes() == content
    assert report.original == f"{path}.migrated"
    if sys.platform != "win32":
        assert stat.S_IMODE(Path(report.original).stat().st_mode) == 0o600
    assert report.api_keys == tuple(sorted(HELD["api_keys"]))


def test_the_defaults_are_those_of_the_older_manager(
    empty: ApiKeyManager, legacy: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = legacy
    path.rename(Path.home() / path.name)
    with pytest.raises(NoUnlockerError, match="was not given"):
        empty.migrate()
    monkeypatch.setenv("APEX_AGENT_MASTER_KEY", key)
    empty.migrate()
    assert empty.get_api_key("openai") == "sk-one"


def test_it_can_be_undone_and_done_again(empty: ApiKeyManager, legacy: tuple[Path, str]) -> None:
    path, key = legacy
    report = empty.migrate(path, master_key=key)
    Path(report.original).rename(path)
    assert json.loads(Fernet(key).decrypt(path.read_bytes())) == HELD
    (path.parent / f"{path.name}.migrated").write_text("in the way")

    again = empty.migrate(path, master_key=key)

    assert again.original.endswith(".migrated.2")
    assert (path.parent / f"{path.name}.migrated").read_text() == "in the way"


def damaged(content: bytes, how: str) -> bytes:
    if how == "torn":
        return content[: len(content) // 2]
    if how == "flipped":
        return content[:50] + bytes([content[50] ^ 1]) + content[51:]
    if how == "empty":
        return b""
    return b"\0" * 100


@pytest.mark.parametrize("how", ["torn", "flipped", "empty", "zeros"])
def test_a_damaged_file_is_an_error_and_left_as_it_is(
    empty: ApiKeyManager, home: Path, legacy: tuple[Path, str], how: str
) -> None:
    """The older manager took it for an empty one, and the next save destroyed every key."""
    path, key = legacy
    path.write_bytes(damaged(path.read_bytes(), how))
    before = path.read_bytes()

    with pytest.raises((TamperedError, UnsupportedFormatError), match=r"left as it is|left as it was|is empty"):
        empty.migrate(path, master_key=key)

    assert path.read_bytes() == before
    assert not (home / "store.age").exists()


@pytest.mark.parametrize(
    "plaintext", [b"[]", b"SECRET-CANARY", b'{"api_keys": {"a": 5}}', b'{"others": {}}', b'{"api_keys":' * 50_000]
)
def test_something_else_inside_is_left_as_it_is(
    empty: ApiKeyManager, legacy: tuple[Path, str], plaintext: bytes
) -> None:
    path, key = legacy
    path.write_bytes(Fernet(key).encrypt(plaintext))
    with pytest.raises(UnsupportedFormatError) as caught:
        empty.migrate(path, master_key=key)
    assert "CANARY" not in str(caught.value)
    assert path.exists()


def test_a_wrong_key_is_an_error(empty: ApiKeyManager, legacy: tuple[Path, str]) -> None:
    path, _ = legacy
    with pytest.raises(TamperedError, match="or APEX_AGENT_MASTER_KEY is another key"):
        empty.migrate(path, master_key=Fernet.generate_key().decode())
    with pytest.raises(WrongPassphraseError, match="not a Fernet key"):
        empty.migrate(path, master_key="no key")
    with pytest.raises(KeyStoreError, match="No such file"):
        empty.migrate(path.with_name("nothing"), master_key=Fernet.generate_key().decode())
    assert path.exists()


def test_values_that_are_in_the_store_are_not_replaced_unasked(empty: ApiKeyManager, legacy: tuple[Path, str]) -> None:
    path, key = legacy
    empty.set_api_key("openai", "newer")
    with pytest.raises(KeyStoreError, match="other values for openai"):
        empty.migrate(path, master_key=key)
    assert path.exists()
    assert empty.list_configured_services()["api_keys"] == ["openai"]
    empty.migrate(path, master_key=key, overwrite=True)
    assert empty.get_api_key("openai") == "sk-one"


def test_a_store_that_does_not_open_leaves_the_file(empty: ApiKeyManager, home: Path, legacy: tuple[Path, str]) -> None:
    path, key = legacy
    ApiKeyManager(home, master_key=ApiKeyManager.generate_master_key()).set_api_key("a", "b")
    with pytest.raises(WrongPassphraseError):
        empty.migrate(path, master_key=key)
    assert path.exists()


def test_without_cryptography_the_message_names_the_extra(
    empty: ApiKeyManager, legacy: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = legacy
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(KeyStoreError, match="cryptography") as caught:
        empty.migrate(path, master_key=key)
    assert "apex-llm[keys]" in str(caught.value.hint)
