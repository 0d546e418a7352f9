"""K17: the store is an age file like any other, and keys are spelled as age spells them."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest
from age_by_hand import passphrase_file
from hypothesis import given
from hypothesis import strategies as st
from keys_support import MASTER_KEY, VALUE, figure, store_behind, typed

from apex_llm.keys import ApiKeyManager
from apex_llm.keys.bech32 import decode, encode, identity_from_bytes, identity_to_bytes
from apex_llm.keys.unlockers import read_master_key

# Debian and Ubuntu: apt-get install age
needs_age = pytest.mark.skipif(
    shutil.which("age") is None, reason="the command `age` is not installed (apt-get install age)"
)


def age(*arguments: str, stdin: bytes | None = None) -> bytes:
    return subprocess.run(["age", *arguments], input=stdin, capture_output=True, check=True, timeout=60).stdout


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text(f"# a comment\n{read_master_key(MASTER_KEY, source='a test')}\n")
    path.chmod(0o600)
    return path


def random_credentials(chance: random.Random) -> dict[str, object]:
    alphabet = 'abc"\\/\u00e9\u4e2d\U0001f511\n\t \x7f'
    return {
        f"service-{number}": chance.choice(
            [
                "".join(chance.choices(alphabet, k=chance.randint(1, 300))),
                {"key": "x" * chance.randint(1, 3000), "n": chance.randint(-5, 5), "deep": {"list": [None, True, 1.5]}},
            ]
        )
        for number in range(chance.randint(1, 20))
    }


@needs_age
def test_a_store_of_ours_opens_with_age(home: Path, key_file: Path) -> None:
    """K17. What it holds is JSON that a text editor shows."""
    chance = random.Random(17)
    for number in range(figure(3, 100)):
        manager = ApiKeyManager(home / str(number), master_key=MASTER_KEY)
        stored = random_credentials(chance)
        for service, value in stored.items():
            manager.set_api_key(service, value)

        document = json.loads(age("--decrypt", "-i", str(key_file), str(home / str(number) / "store.age")))

        assert {name: kinds["api_key"]["current"]["value"] for name, kinds in document["credentials"].items()} == stored


@needs_age
def test_a_store_that_age_wrote_opens_here(home: Path, key_file: Path) -> None:
    """K17: decrypted, edited as somebody would, and encrypted again by the command."""
    chance = random.Random(71)
    recipient = str(pyrage.x25519.Identity.from_str(read_master_key(MASTER_KEY, source="a test")).to_public())
    for number in range(figure(3, 100)):
        place = home / str(number)
        manager = ApiKeyManager(place, master_key=MASTER_KEY)
        manager.set_api_key("service-0", "before")
        document = json.loads(age("--decrypt", "-i", str(key_file), str(place / "store.age")))
        stored = random_credentials(chance)
        for service, value in stored.items():
            document["credentials"][service] = {
                "api_key": {"current": {"value": value, "since": 1}, "created": 1, "rotated": 1}
            }
        document["generation"] += 1
        written = age("-r", recipient, stdin=json.dumps(document, indent=2).encode())
        (place / "store.age").write_bytes(written)

        for again in (manager, ApiKeyManager(place, master_key=MASTER_KEY)):
            assert {service: again.get_api_key(service) for service in stored} == stored
            assert again.verify().ok


@needs_age
def test_a_passphrase_store_opens_with_age(home: Path, tmp_path: Path) -> None:
    """identity.age is what age calls an identity file: encrypted with a passphrase, one key a line."""
    store_behind("correct horse", home)
    plain = tmp_path / "plain.json"
    command = ["age", "--decrypt", "-i", home / "identity.age", "-o", plain, home / "store.age"]
    assert typed(command, ("passphrase", "wrong horse")) != 0
    assert typed(command, ("passphrase", "correct horse")) == 0
    document = json.loads(plain.read_bytes())
    assert document["credentials"]["aws_bedrock"]["api_key"]["current"]["value"] == VALUE


@needs_age
def test_an_identity_that_age_sealed_with_a_passphrase_opens_here(home: Path, key_file: Path) -> None:
    ApiKeyManager(home, master_key=MASTER_KEY).set_api_key("aws_bedrock", VALUE)
    sealed = home / "identity.age"
    twice = (("passphrase", "correct horse"), ("passphrase", "correct horse"))
    assert typed(["age", "--passphrase", "-o", sealed, key_file], *twice) == 0
    sealed.chmod(0o600)

    assert ApiKeyManager(home, passphrase="correct horse", environ={}).get_api_key("aws_bedrock") == VALUE


def test_a_passphrase_file_written_from_the_specification_opens_with_pyrage() -> None:
    """Tests whose subject is not scrypt rely on it."""
    for size in (0, 1, 75, 65_536):
        plaintext = os.urandom(size)
        assert pyrage.passphrase.decrypt(passphrase_file(plaintext, "correct horse"), "correct horse") == plaintext
    with pytest.raises(pyrage.DecryptError):
        pyrage.passphrase.decrypt(passphrase_file(b"x", "correct horse"), "wrong horse")


@given(st.binary(min_size=32, max_size=32))
def test_thirty_two_bytes_are_spelled_as_pyrage_spells_them(key: bytes) -> None:
    identity = identity_from_bytes(key)
    assert str(pyrage.x25519.Identity.from_str(identity)) == identity
    assert identity_to_bytes(identity) == key
    assert identity_to_bytes(identity.lower()) == key


def test_identities_of_pyrage_are_read() -> None:
    for _ in range(50):
        identity = pyrage.x25519.Identity.generate()
        assert identity_from_bytes(identity_to_bytes(str(identity))) == str(identity)
        prefix, payload = decode(str(identity.to_public()))
        assert (prefix, len(payload)) == ("age", 32)
        assert encode(prefix, payload) == str(identity.to_public())


def test_the_example_of_ages_manual_page_reads() -> None:
    """The pair that age's own tests use (testkit: the X25519 key of all the 'test' vectors)."""
    identity = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
    assert identity_to_bytes(identity) == b"B" * 32
    assert identity_from_bytes(b"B" * 32) == identity
    assert str(pyrage.x25519.Identity.from_str(identity)) == identity


# From BIP 173's own lists.
@pytest.mark.parametrize("text", ["A12UEL5L", "a12uel5l", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw"])
def test_valid_bech32_decodes_and_comes_back(text: str) -> None:
    prefix, payload = decode(text)
    assert encode(prefix, payload) == text.lower()


@pytest.mark.parametrize(
    "text",
    ["", "1", "pzry9x0s0muk", "1pzry9x0s0muk", "x1b4n0q5v", "li1dgmt3", "A1G7SGD8", "10a06t8", "1qzzfhee", "a12uEL5L"],
)
def test_invalid_bech32_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Bech32|checksum|upper and lower"):
        decode(text)


def test_every_mistyped_character_of_an_identity_is_noticed() -> None:
    identity = identity_from_bytes(os.urandom(32))
    for position, character in enumerate(identity):
        for other in ("Q", "P", "1", "B"):
            if other != character:
                with pytest.raises(ValueError, match=r"age identity|Bech32|checksum|upper and lower"):
                    identity_to_bytes(identity[:position] + other + identity[position + 1 :])
