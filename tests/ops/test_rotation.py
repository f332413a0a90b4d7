"""Rotation: every step, what a crash between two files leaves, and whose files they become."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forwarder.ops import rotation
from forwarder.ops.keys import KeysError, KeyState, StoredKey, load_keys, read_entries, read_folder
from forwarder.ops.rotation import (
    ED25519,
    RSA,
    Action,
    NewKey,
    Step,
    free_selector,
    locked,
    make,
    remove,
    steps,
    switch,
)
from forwarder.rewrite.signing_key import SigningKey

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
DAY = timedelta(days=1)
KEEP = 7 * DAY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys"


def new(selector: str, domain: str = "example.org", kind: str = ED25519) -> NewKey:
    return NewKey(domain, selector, kind)


def keys_of(folder: Path, domain: str = "example.org") -> list[tuple[StoredKey, SigningKey]]:
    return [(stored, stored.load()) for stored in read_folder(folder).keys[domain]]


def states(folder: Path) -> dict[str, str]:
    return {stored.selector: stored.state.value for stored, _ in keys_of(folder)}


def next_step(folder: Path, now: datetime) -> Step:
    (step,) = steps(keys_of(folder), now)
    return step


def signing(folder: Path) -> list[str]:
    return [key.selector for key in load_keys(folder).for_domain("example.org")]


def test_all_steps_of_a_rotation(folder: Path) -> None:
    place = folder / "example.org"
    make(folder, new("e1"), KeyState.SIGNING, NOW)
    assert next_step(folder, NOW).action is Action.MAKE

    make(folder, new("e2"), KeyState.PUBLISHED, NOW + DAY)
    assert signing(folder) == ["e1"]
    step = next_step(folder, NOW + DAY)
    assert (step.action, step.selector, step.replaces) == (Action.SWITCH, "e2", ("e1",))

    assert switch(place, step, NOW + 2 * DAY, KEEP) == NOW + 9 * DAY
    assert signing(folder) == ["e2"]
    assert states(folder) == {"e1": "retired", "e2": "signing"}
    step = next_step(folder, NOW + 9 * DAY - timedelta(seconds=1))
    assert (step.action, step.selector, step.until) == (Action.WAIT, "e1", NOW + 9 * DAY)

    step = next_step(folder, NOW + 9 * DAY)
    assert (step.action, step.selector) == (Action.REMOVE, "e1")
    remove(place, step)
    assert states(folder) == {"e2": "signing"}
    assert not (place / "e1.pem").exists()
    assert list(read_entries(place)) == ["e2"]
    assert read_entries(place)["e2"].created == NOW + DAY
    assert next_step(folder, NOW + 9 * DAY).action is Action.MAKE


def test_a_key_put_there_by_hand_can_be_rotated(folder: Path) -> None:
    make(folder, new("e1"), KeyState.SIGNING, NOW)
    (folder / "example.org" / "rotation.json").unlink()
    make(folder, new("e2"), KeyState.PUBLISHED, datetime.now(UTC) + DAY)
    assert signing(folder) == ["e1"]
    step = next_step(folder, NOW)
    switch(folder / "example.org", step, NOW, KEEP)
    assert signing(folder) == ["e2"]


def test_kinds_rotate_apart_from_each_other(folder: Path) -> None:
    make(folder, new("e1"), KeyState.SIGNING, NOW)
    make(folder, new("s1", kind=RSA), KeyState.SIGNING, NOW)
    make(folder, new("e2"), KeyState.PUBLISHED, NOW)
    first, second = steps(keys_of(folder), NOW)
    assert (first.kind, first.action, first.bits) == (RSA, Action.MAKE, 2048)
    assert (second.kind, second.action, second.replaces) == (ED25519, Action.SWITCH, ("e1",))


def test_a_new_key_goes_before_waiting(folder: Path) -> None:
    """Somebody whose key was stolen does not wait for the last rotation to end."""
    make(folder, new("e1"), KeyState.SIGNING, NOW)
    make(folder, new("e2"), KeyState.PUBLISHED, NOW)
    switch(folder / "example.org", next_step(folder, NOW), NOW, KEEP)
    make(folder, new("e3"), KeyState.PUBLISHED, NOW + DAY)
    step = next_step(folder, NOW + DAY)
    assert (step.action, step.selector, step.replaces) == (Action.SWITCH, "e3", ("e2",))


def test_modes_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o777)
    try:
        make(folder.with_name("closed"), new("e1"), KeyState.SIGNING, NOW)
        os.umask(0)
        make(folder, new("e1"), KeyState.SIGNING, NOW)
        make(folder, new("e2"), KeyState.PUBLISHED, NOW)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")]}
    assert modes == {"keys": 0o700, "example.org": 0o700, "e1.pem": 0o600, "e2.pem": 0o600, "rotation.json": 0o600}
    assert folder.with_name("closed").stat().st_mode & 0o777 == 0o700
    assert (folder.with_name("closed") / "example.org" / "e1.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_owner_of_the_folder(folder: Path) -> None:
    folder.parent.mkdir(mode=0o700)
    os.chown(folder.parent, 12_345, 12_346)
    make(folder, new("e1"), KeyState.SIGNING, NOW)
    make(folder, new("e2"), KeyState.PUBLISHED, NOW)
    switch(folder / "example.org", next_step(folder, NOW), NOW, KEEP)
    for path in [folder, *folder.rglob("*")]:
        assert (path.stat().st_uid, path.stat().st_gid) == (12_345, 12_346), path
    assert signing(folder) == ["e2"]


def test_nothing_is_overwritten(folder: Path) -> None:
    stored, _ = make(folder, new("e1"), KeyState.SIGNING, NOW)
    before = stored.path.read_bytes()
    with pytest.raises(KeysError, match="there already"):
        make(folder, new("e1"), KeyState.PUBLISHED, NOW)
    assert stored.path.read_bytes() == before
    assert signing(folder) == ["e1"]


def test_nor_is_what_appears_at_the_last_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "example.org" / "e1.pem"
    real = rotation._temporary

    def late(place: Path, octets: bytes) -> Path:
        if place == path:
            path.write_bytes(b"another's")
        return real(place, octets)

    monkeypatch.setattr(rotation, "_temporary", late)
    with pytest.raises(KeysError, match="File exists"):
        make(folder, new("e1"), KeyState.SIGNING, NOW)
    assert path.read_bytes() == b"another's"
    assert [each.name for each in path.parent.iterdir()] == ["e1.pem"]


@pytest.mark.parametrize("selector", ["../e1", "a b", "", "E1", "a" * 300])
def test_selectors_that_dns_cannot_hold(folder: Path, selector: str) -> None:
    with pytest.raises(KeysError):
        make(folder, new(selector), KeyState.SIGNING, NOW)
    assert not folder.exists()


def test_selectors_say_the_day(folder: Path) -> None:
    place = folder / "example.org"
    assert free_selector(place, RSA, NOW) == "s20261123"
    assert free_selector(place, ED25519, NOW) == "e20261123"
    make(folder, new("e20261123"), KeyState.SIGNING, NOW)
    assert free_selector(place, ED25519, NOW) == "e20261123-2"


class _Crash(BaseException):
    pass


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the process die before the n-th file is put in place."""
    left = [0]

    def wrapped(name: str) -> None:
        real = getattr(rotation, name)

        def dying(path: Path, octets: bytes) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise _Crash
            real(path, octets)

        monkeypatch.setattr(rotation, name, dying)

    wrapped("_write")
    wrapped("_create")
    yield left


@pytest.mark.parametrize("files", [0, 1])
def test_a_crash_never_lets_a_key_sign_too_early(folder: Path, crashing: list[int], files: int) -> None:
    crashing[0] = 99
    make(folder, new("e1"), KeyState.SIGNING, NOW)
    crashing[0] = files
    with pytest.raises(_Crash):
        make(folder, new("e2"), KeyState.PUBLISHED, NOW)
    assert signing(folder) == ["e1"]
    crashing[0] = 99
    make(folder, new(free_selector(folder / "example.org", ED25519, NOW)), KeyState.PUBLISHED, NOW)
    assert signing(folder) == ["e1"]


def test_a_crash_never_lets_a_retired_key_sign_again(folder: Path, crashing: list[int]) -> None:
    crashing[0] = 99
    make(folder, new("e1"), KeyState.SIGNING, NOW)
    make(folder, new("e2"), KeyState.PUBLISHED, NOW)
    switch(folder / "example.org", next_step(folder, NOW), NOW, KEEP)
    crashing[0] = 0
    with pytest.raises(_Crash):
        remove(folder / "example.org", next_step(folder, NOW + KEEP))
    assert signing(folder) == ["e2"]


def test_one_at_a_time(folder: Path) -> None:
    with locked(folder), pytest.raises(KeysError, match="another command"), locked(folder):
        pass
    with locked(folder):
        pass


def test_a_disk_that_cannot_be_written_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder, new("e1"), KeyState.SIGNING, NOW)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeysError, match="No space left on device"):
        make(folder, new("e2"), KeyState.PUBLISHED, NOW)
    assert {path.name for path in (folder / "example.org").iterdir()} == {"e1.pem", "rotation.json"}
