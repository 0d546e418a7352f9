"""K4, K5, K10, K18: a store that is not as it was written is an error, never a guess."""

from __future__ import annotations

import os
import random
import resource
import time
import tracemalloc
from pathlib import Path

import pyrage
import pytest
from keys_support import FULL, MASTER_KEY, VALUE, MemoryKeyring, figure

from apex_llm.errors import KeyStoreError, TamperedError, UnsupportedFormatError, WrongPassphraseError
from apex_llm.keys import ApiKeyManager, KeyringAnchor
from apex_llm.keys.agefile import check_header, decrypt
from apex_llm.keys.unlockers import read_master_key

IDENTITY = read_master_key(MASTER_KEY, source="a test")
RECIPIENT = pyrage.x25519.Identity.from_str(IDENTITY).to_public()


def put(home: Path, content: bytes) -> None:
    home.mkdir(mode=0o700, exist_ok=True)
    path = home / "store.age"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)


def fresh(home: Path, **options) -> ApiKeyManager:
    return ApiKeyManager(home, master_key=MASTER_KEY, **options)


@pytest.mark.shows_secrets("calls decrypt() itself, behind the door where tracebacks are cleared")
def test_every_flipped_bit_is_noticed(home: Path) -> None:
    """K4. All bits of the file in the full form, a sample of them in the gate."""
    manager = fresh(home)
    for number in range(6):
        manager.set_api_key(f"service-{number}", {"key": f"secret-{number}", "padding": "x" * 400})
    content = (home / "store.age").read_bytes()
    bits = list(range(len(content) * 8))
    assert 28_000 < len(bits) < 40_000  # about 4 KiB
    print(f"K4: {len(bits) if FULL else 3000} of {len(bits)} bits")
    for bit in bits if FULL else random.Random(4).sample(bits, 3000):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KeyStoreError):
            decrypt(bytes(changed), [IDENTITY], what="it")
    assert decrypt(content, [IDENTITY], what="it")


def test_a_changed_store_is_refused_and_never_written(manager: ApiKeyManager, home: Path) -> None:
    """The older manager went on with an empty store, and the next save destroyed every key."""
    content = bytearray((home / "store.age").read_bytes())
    content[-5] ^= 1
    put(home, bytes(content))

    for again in (manager, fresh(home)):
        with pytest.raises(TamperedError):
            again.get_api_key("aws_bedrock")
        with pytest.raises(TamperedError):
            again.set_api_key("other", "value")
        with pytest.raises(TamperedError):
            again.get_api_key_secure("plugin", "aws_bedrock")
        assert not again.verify().ok
    assert (home / "store.age").read_bytes() == bytes(content)


@pytest.mark.shows_secrets("calls decrypt() itself, behind the door where tracebacks are cleared")
def test_every_cut_and_every_tail_is_noticed(manager: ApiKeyManager, home: Path) -> None:
    """K5."""
    content = (home / "store.age").read_bytes()
    for length in range(0, len(content), 1 if FULL else 7):
        with pytest.raises(KeyStoreError):
            decrypt(content[:length], [IDENTITY], what="it")
    for extra in range(1, 65):
        with pytest.raises(KeyStoreError):
            decrypt(content + os.urandom(extra), [IDENTITY], what="it")


def test_a_store_for_another_key_is_refused(home: Path, tmp_path: Path) -> None:
    fresh(home).set_api_key("service", "mine")
    other = ApiKeyManager(tmp_path / "other", master_key=ApiKeyManager.generate_master_key())
    other.set_api_key("service", "theirs")
    put(home, (tmp_path / "other" / "store.age").read_bytes())

    with pytest.raises(WrongPassphraseError, match="another key"):
        fresh(home).get_api_key("service")


def test_an_older_store_is_noticed_by_a_running_process(manager: ApiKeyManager, home: Path) -> None:
    older = (home / "store.age").read_bytes()
    manager.set_api_key("aws_bedrock", "newer")
    put(home, older)

    with pytest.raises(TamperedError, match="an older store was put in its place"):
        manager.get_api_key("aws_bedrock")
    # A new process without an anchor cannot know: the documentation says so.
    assert fresh(home).get_api_key("aws_bedrock") == VALUE
    assert not fresh(home).status().anchored


def test_an_older_store_is_noticed_by_whoever_kept_the_generation(home: Path) -> None:
    keyring = MemoryKeyring()

    def anchored() -> ApiKeyManager:
        return fresh(home, anchor=KeyringAnchor(home, backend=keyring))

    anchored().set_api_key("service", "old")
    older = (home / "store.age").read_bytes()
    anchored().set_api_key("service", "new")
    generation = anchored().generation
    put(home, older)

    with pytest.raises(TamperedError, match="older store"):
        anchored().get_api_key("service")
    with pytest.raises(TamperedError, match="older store"):
        anchored().set_api_key("service", "x")
    with pytest.raises(TamperedError, match="older store"):
        fresh(home, minimum_generation=generation).get_api_key("service")
    (home / "store.age").unlink()
    with pytest.raises(KeyStoreError, match="is missing, but there was one"):
        anchored().get_api_key("service")


def test_another_store_under_the_same_key_is_noticed_by_the_anchor(home: Path, tmp_path: Path) -> None:
    keyring = MemoryKeyring()
    fresh(home, anchor=KeyringAnchor(home, backend=keyring)).set_api_key("service", "mine")
    other = fresh(tmp_path / "other")
    for _ in range(5):
        other.set_api_key("service", "theirs")
    put(home, (tmp_path / "other" / "store.age").read_bytes())

    with pytest.raises(TamperedError, match="another store"):
        fresh(home, anchor=KeyringAnchor(home, backend=keyring)).get_api_key("service")


def test_a_store_that_went_missing_is_not_an_empty_one(manager: ApiKeyManager, home: Path) -> None:
    (home / "store.age").unlink()

    for again in (manager, fresh(home)):
        for use in (lambda m: m.get_api_key("aws_bedrock"), lambda m: m.set_api_key("a", "b")):
            with pytest.raises(KeyStoreError, match="is missing, but there was one") as caught:
                use(again)
            assert "store.age.bak.1" in str(caught.value.hint)
    assert not (home / "store.age").exists()


HOSTILE_HEADERS = {
    "a work factor of 2^30": b"age-encryption.org/v1\n-> scrypt " + b"A" * 22 + b" 30\n" + b"A" * 43 + b"\n--- x\n",
    "a work factor of 23": b"age-encryption.org/v1\n-> scrypt " + b"A" * 22 + b" 23\n" + b"A" * 43 + b"\n--- x\n",
    "a work factor in words": b"age-encryption.org/v1\n-> scrypt " + b"A" * 22 + b" 018\n" + b"A" * 43 + b"\n--- x\n",
    "a million stanzas": b"age-encryption.org/v1\n" + b"-> X25519 A\nB\n" * 1_000_000 + b"--- x\n",
    "a header without end": b"age-encryption.org/v1\n-> X25519 " + b"A" * 10_000_000,
    "armour": b"-----BEGIN AGE ENCRYPTED FILE-----\n",
    "another version": b"age-encryption.org/v2\n-> X25519 A\nB\n--- x\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
@pytest.mark.parametrize("expected", ["X25519", "scrypt"])
def test_a_hostile_header_is_refused_before_it_costs_anything(name: str, expected) -> None:
    """K10: within a second, and in the memory of the part of the header that is looked at."""
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(UnsupportedFormatError):
            check_header(HOSTILE_HEADERS[name], expected=expected, what="it")
        took, (_, most) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took < 1.0
    assert most < 4 << 20


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
@pytest.mark.parametrize("file", ["store.age", "identity.age"])
def test_a_hostile_file_is_refused_by_whoever_opens_the_store(home: Path, file: str, name: str) -> None:
    """K10, through the front door: with such a header the passphrase's file never gets to scrypt."""
    fresh(home).set_api_key("service", "value")
    (home / file).touch(mode=0o600)
    (home / file).write_bytes(HOSTILE_HEADERS[name])
    began = time.process_time()

    with pytest.raises(UnsupportedFormatError):
        ApiKeyManager(home, passphrase="any", environ={}).get_api_key("service")

    assert time.process_time() - began < 2.0


def test_a_store_that_is_too_long_is_not_read(home: Path) -> None:
    """K10: a gigabyte, of which not a byte is read."""
    fresh(home).set_api_key("service", "value")
    os.truncate(home / "store.age", 1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(UnsupportedFormatError, match="has 1073741824 bytes"):
        fresh(home).get_api_key("service")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


DOCUMENTS = {
    "nested": b'{"format":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested where values are": b'{"format":1,"credentials":{"a":{"api_key":{"current":{"value":'
    + b'{"a":' * 100_000
    + b"1"
    + b"}" * 100_000
    + b"}}}}}",
    "format 2": b'{"format":2}',
    "no object": b"[1,2,3]",
    "an empty object": b"{}",
    "no JSON": b"SECRET-CANARY-0123",
    "not UTF-8": b'{"format":1,"store_id":"\xff\xfe"}',
    "unknown members": b'{"format":1,"store_id":"a","generation":1,"recipients":{"primary":"a"},"audit_key":"'
    + b"A" * 43
    + b'=","new":1}',
    "SECRET-CANARY in a wrong place": b'{"format":1,"store_id":"a","generation":"SECRET-CANARY-0123"}',
    "too large": b'{"format":1,"x":"' + b"A" * (9 << 20) + b'"}',
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_genuine_file_with_something_else_inside_is_refused(home: Path, name: str) -> None:
    """K10: whoever knows the recipient can write a file that decrypts. Nothing of it is quoted."""
    put(home, pyrage.encrypt(DOCUMENTS[name], [RECIPIENT]))
    began = time.process_time()

    with pytest.raises(UnsupportedFormatError) as caught:
        fresh(home).get_api_key("service")

    assert time.process_time() - began < 5.0
    assert "CANARY" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.shows_secrets("calls decrypt() itself, behind the door where tracebacks are cleared")
def test_mutated_stores_give_typed_errors_only(manager: ApiKeyManager, home: Path) -> None:
    """K18, on the bytes: flips, cuts, doubled and swapped pieces, and lines of other headers."""
    content = (home / "store.age").read_bytes()
    chance = random.Random(18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(figure(3000, 200_000)):
        changed = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            kind = chance.randrange(5)
            at, end = sorted((chance.randrange(len(changed) + 1), chance.randrange(len(changed) + 1)))
            if kind == 0 and changed:
                changed[min(at, len(changed) - 1)] = chance.randrange(256)
            elif kind == 1:
                del changed[at:end]
            elif kind == 2:
                changed[at:at] = changed[at:end]
            elif kind == 3:
                changed[at:at] = chance.choice(
                    [b"\n-> scrypt AAAA 5\n", b"-> X25519 \n", b"\n--- ", b"\0" * 9, b"\r\n"]
                )
            else:
                changed[at:end] = chance.randbytes(min(end - at, 100))
        if bytes(changed) == content:
            continue
        try:
            decrypt(bytes(changed), [IDENTITY], what="it")
        except KeyStoreError:
            continue
        pytest.fail(f"mutation {number} was read")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # KiB on Linux: no input may cost much, nor leave anything behind


def test_mutated_documents_open_or_give_typed_errors(manager: ApiKeyManager, home: Path) -> None:
    """K18, behind the encryption: a document that was edited badly."""
    plaintext = decrypt((home / "store.age").read_bytes(), [IDENTITY], what="it")
    chance = random.Random(81)
    for _ in range(figure(200, 5_000)):
        changed = bytearray(plaintext)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(changed))
            changed[at : at + chance.randint(0, 3)] = chance.choice(
                [b"", b'"', b"{", b"}", b"0", b"\xff", b"null", b","]
            )
        put(home, pyrage.encrypt(bytes(changed), [RECIPIENT]))
        try:
            found = fresh(home).get_api_key("aws_bedrock")
        except KeyStoreError:
            continue
        assert found is None or isinstance(found, (dict, str))
