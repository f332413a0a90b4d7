"""The key folder: what signs, what does not, and what is told of files that cannot be used."""

import contextlib
import json
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from forwarder.ops.keys import Entry, Keys, KeysError, KeyState, entries_text, load_keys, read_entries, read_folder

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@cache
def rsa(bits: int = 2048, number: int = 0) -> bytes:
    key = generate_private_key(65_537, bits)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def ed25519() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def put(folder: Path, name: str, octets: bytes, mode: int = 0o600) -> Path:
    path = folder / name
    for place in (folder, path.parent):
        place.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(octets)
    path.chmod(mode)
    return path


def say(folder: Path, domain: str, **states: KeyState) -> None:
    entries = {selector: Entry(state, NOW, NOW) for selector, state in states.items()}
    put(folder, f"{domain}/rotation.json", entries_text(entries).encode())


def selectors(keys: Keys, domain: str) -> list[str]:
    return [key.selector for key in keys.for_domain(domain)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def problems(folder: Path) -> tuple[str, ...]:
    with pytest.raises(KeysError) as caught:
        load_keys(folder)
    return caught.value.problems


def test_a_file_put_there_by_hand_signs(folder: Path) -> None:
    put(folder, "example.org/s1.pem", rsa())
    keys = load_keys(folder)
    (key,) = keys.for_domain("example.org")
    assert (key.domain, key.selector, key.kind) == ("example.org", "s1", "rsa")
    assert keys.warnings == ()


def test_one_of_each_kind_signs_rsa_first(folder: Path) -> None:
    put(folder, "example.org/a.pem", ed25519())
    put(folder, "example.org/z.pem", rsa())
    assert selectors(load_keys(folder), "example.org") == ["z", "a"]


def test_only_what_is_said_to_sign_does(folder: Path) -> None:
    for name in ("old", "now", "next"):
        put(folder, f"example.org/{name}.pem", ed25519())
    say(folder, "example.org", old=KeyState.RETIRED, now=KeyState.SIGNING, next=KeyState.PUBLISHED)
    keys = load_keys(folder)
    assert selectors(keys, "example.org") == ["now"]
    assert keys.warnings == ()


def test_of_two_of_a_kind_the_newer_signs_and_it_is_told(folder: Path) -> None:
    for name, age in (("b", 0), ("a", 1000)):
        path = put(folder, f"example.org/{name}.pem", ed25519())
        os.utime(path, (1_800_000_000 + age, 1_800_000_000 + age))
    keys = load_keys(folder)
    assert selectors(keys, "example.org") == ["a"]
    (warning,) = keys.warnings
    assert "b and a are both ed25519 keys that sign: the newer, a, is used" in warning


def test_the_srs_domain_or_one_above_it_signs_for_domains_without_a_key(folder: Path) -> None:
    put(folder, "example.org/s1.pem", ed25519())
    put(folder, "example.com/s2.pem", ed25519())
    keys = load_keys(folder, "fwd.example.org")
    assert selectors(keys, "example.net") == ["s1"]
    assert selectors(keys, "example.com") == ["s2"]
    put(folder, "fwd.example.org/s3.pem", ed25519())
    assert selectors(load_keys(folder, "fwd.example.org"), "example.net") == ["s3"]
    assert load_keys(folder, "fwd.example.edu").for_domain("example.net") == ()
    put(folder, "org/s4.pem", ed25519())
    assert load_keys(folder, "fwd.other.org").for_domain("example.net") == ()


def test_no_folder_is_told_and_no_error(folder: Path) -> None:
    keys = load_keys(folder)
    assert keys.for_domain("example.org") == ()
    assert "forwarder keys generate" in keys.warnings[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(folder: Path, mode: int) -> None:
    path = put(folder, "example.org/s1.pem", ed25519(), mode)
    (problem,) = problems(folder)
    assert problem.startswith(f"{path}: ")
    assert "chmod 600" in problem


@pytest.mark.parametrize("name", ["", "example.org"])
def test_a_folder_that_others_can_write_to_is_refused(folder: Path, name: str) -> None:
    put(folder, "example.org/s1.pem", ed25519())
    (folder / name).chmod(0o770)
    (problem,) = problems(folder)
    assert problem.startswith(f"{folder / name}: ")
    assert "chmod 700" in problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_whose_a_key_may_be(folder: Path) -> None:
    path = put(folder, "example.org/s1.pem", ed25519())
    os.chown(path, 12_345, -1)
    assert "its owner is user 12345" in problems(folder)[0]
    os.chown(path.parent, 12_345, -1)  # for root: the gateway's user, whose folder it is
    assert selectors(load_keys(folder), "example.org") == ["s1"]


def test_every_problem_is_told_with_its_file_and_no_key(folder: Path) -> None:
    secret = rsa(1024)
    paths = {
        put(folder, "a.example/s1.pem", b"nonsense"): "no private key in PEM form",
        put(folder, "b.example/s1.pem", secret): "RSA key of 1024 bits",
        put(
            folder,
            "c.example/s1.pem",
            generate_ec(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        ): "neither an RSA nor an Ed25519 key",
        put(folder, "d.example/s1.pem", b"x" * 70_000): "at most 65536 octets",
    }
    (folder / "e.example").mkdir()
    (folder / "e.example" / "s1.pem").symlink_to(next(iter(paths)))
    found = problems(folder)
    assert len(found) == 5
    for (path, words), problem in zip(paths.items(), found, strict=False):
        assert problem.startswith(f"{path}: ")
        assert words in problem
    assert "symbolic link" in found[4]
    assert not any(line in "\n".join(found) for line in secret.decode().splitlines()[1:-1])


def test_what_belongs_to_no_domain_is_told_and_left_alone(folder: Path) -> None:
    put(folder, "example.org/s1.pem", ed25519())
    put(folder, "example.org/notes.txt", b"")
    put(folder, "Example.COM/s1.pem", ed25519())
    put(folder, "a b/s1.pem", ed25519())
    put(folder, "stray.pem", b"")
    keys = load_keys(folder)
    assert list(keys.by_domain) == ["example.org"]
    text = "\n".join(keys.warnings)
    assert "rename it to example.com" in text
    assert "its name is no domain" in text
    assert "stray.pem: not used" in text
    assert "notes.txt: not used" in text


def test_the_entry_of_a_key_that_signs_needs_its_file(folder: Path) -> None:
    put(folder, "example.org/s1.pem", ed25519())
    say(folder, "example.org", gone=KeyState.RETIRED, next=KeyState.PUBLISHED)
    assert selectors(load_keys(folder), "example.org") == ["s1"]  # leftovers of a crash
    say(folder, "example.org", lost=KeyState.SIGNING)
    (problem,) = problems(folder)
    assert "lost.pem: expected the key" in problem


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": {"s1": {"state": "signing"}}}',
        b'{"keys": {"s1": {"state": "resting", "created": "2026-11-23T00:00:00Z", "since": "2026-11-23T00:00:00Z"}}}',
        b'{"keys": {"s1": {"state": "signing", "created": "2026-11-23", "since": "2026-11-23"}}}',
        b'{"keys": {"s1": {"state": "signing", "created": "0001-01-01T00:00:00+05:00", "since": "2026-11-23"}}}',
        b"[" * 60_000,
        b"\xff",
    ],
)
def test_a_damaged_rotation_lets_nothing_sign(folder: Path, text: bytes) -> None:
    put(folder, "example.org/s1.pem", ed25519())
    path = put(folder, "example.org/rotation.json", text)
    (problem,) = problems(folder)
    assert problem.startswith(f"{path}: it is damaged")


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.text() | st.sampled_from(["keys", "state", "since", "created"]), x),
    )
)
def test_reading_a_rotation_never_fails_otherwise(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    """Whatever JSON stands there: entries or `KeysError`."""
    place = tmp_path_factory.mktemp("d")
    put(place, "rotation.json", json.dumps(tree).encode())
    with contextlib.suppress(KeysError):
        assert isinstance(read_entries(place), dict)


def test_entries_read_back_as_they_were_written(folder: Path) -> None:
    entries = {
        "s1": Entry(KeyState.RETIRED, NOW, NOW, datetime(2026, 11, 30, 12, tzinfo=UTC)),
        "s2": Entry(KeyState.SIGNING, NOW, NOW),
    }
    put(folder, "example.org/rotation.json", entries_text(entries).encode())
    assert read_entries(folder / "example.org") == entries


def test_what_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.ops.keys.MAX_KEYS", 2)
    for number in range(3):
        put(folder, f"a.example/s{number}.pem", b"")
    assert "at most 2 keys" in problems(folder)[0]
    monkeypatch.setattr("forwarder.ops.keys.MAX_DOMAINS", 1)
    put(folder, "b.example/s1.pem", b"")
    assert "at most 1 domains" in "\n".join(read_folder(folder).problems)
