"""The instrument finds what it is made for: writers with one fault each are caught, sound ones pass every state."""

import hashlib
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.powercut import campaign, recorder, strace, writers
from tests.powercut.recorder import Made, Moved, Recording, Said, Synced, Written

needs_strace = pytest.mark.skipif(bool(strace.missing()), reason=strace.missing() or "strace works")
pytestmark = needs_strace


def record(kind: str, scratch: Path) -> Recording:
    folder = scratch / "disk"
    folder.mkdir()
    command = [sys.executable, "-I", "-S", writers.__file__, kind, str(folder)]
    return recorder.record(command, folder, scratch / "trace")


def check_files(folder: Path, promises: Sequence[str]) -> None:
    names = {place.name: place for place in folder.rglob("*") if place.is_file() and not place.name.startswith(".")}
    for name, place in names.items():
        octets = place.read_bytes()
        assert octets[:32] == hashlib.sha256(octets[32:]).digest(), f"{name} has its name and is not whole"
    assert set(promises) <= names.keys(), f"{set(promises) - names.keys()} is lost"


def check_table(folder: Path, promises: Sequence[str]) -> None:
    with closing(sqlite3.connect(folder / "db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        rows = dict(connection.execute("SELECT number, octets FROM kept").fetchall()) if tables else {}
    assert set(map(int, promises)) <= rows.keys(), "a row is lost"
    assert all(octets == writers.value(number) for number, octets in rows.items())


@pytest.mark.parametrize(("kind", "least"), [("file", 50), ("threads", 50), ("unnamed", 9)])
def test_sound_files_pass(kind: str, least: int, tmp_path: Path) -> None:
    recording = record(kind, tmp_path)
    tally = campaign.run(recording, check_files, campaign.all_states(recording, seed=1, rounds=3))
    assert tally.checked >= least


@pytest.mark.parametrize("kind", sorted(writers.FAULTY_FILES))
def test_faulty_files_are_caught(kind: str, tmp_path: Path) -> None:
    recording = record(kind, tmp_path)
    with pytest.raises(campaign.PromiseBroken):
        campaign.run(recording, check_files, campaign.all_states(recording, seed=1))


def test_a_sync_before_the_write_does_not_count(tmp_path: Path) -> None:
    recording = record("overtaken", tmp_path)

    def check(folder: Path, promises: Sequence[str]) -> None:
        for name in promises:
            assert (folder / name).read_bytes() == writers.value(1), "promised and not whole"

    with pytest.raises(campaign.PromiseBroken, match="promised and not whole"):
        campaign.run(recording, check, campaign.all_states(recording, seed=1))


@pytest.mark.parametrize("kind", sorted(writers.TABLES))
def test_sound_tables_pass(kind: str, tmp_path: Path) -> None:
    recording = record(kind, tmp_path)
    tally = campaign.run(recording, check_table, campaign.all_states(recording, seed=1))
    assert tally.checked > 100


@pytest.mark.parametrize("kind", sorted(writers.FAULTY_TABLES))
def test_faulty_tables_are_caught(kind: str, tmp_path: Path) -> None:
    recording = record(kind, tmp_path)
    with pytest.raises(campaign.PromiseBroken):
        campaign.run(recording, check_table, campaign.all_states(recording, seed=1))


def test_a_small_sample_catches_what_was_promised_too_early(tmp_path: Path) -> None:
    recording = record("no-folder-sync", tmp_path)
    with pytest.raises(campaign.PromiseBroken, match="is lost"):
        campaign.run(recording, check_files, campaign.sample(recording, seed=1, size=writers.COUNT))


def test_a_broken_promise_can_be_had_again(tmp_path: Path) -> None:
    recording = record("early-rename", tmp_path)
    with pytest.raises(campaign.PromiseBroken) as broken:
        campaign.run(recording, check_files, campaign.all_states(recording, seed=1), again="repeat")
    assert f"again: repeat {broken.value.state}" in str(broken.value)
    recording.save(tmp_path / "recording")
    with pytest.raises(campaign.PromiseBroken):
        campaign.run(recorder.load(tmp_path / "recording"), check_files, [broken.value.state])


def test_every_operation_is_recorded_with_its_octets(tmp_path: Path) -> None:
    recording = record("file", tmp_path)
    doings = [operation.doing for operation in recording.operations]
    first = next(doing for doing in doings if isinstance(doing, Made)).file
    written = [doing for doing in doings if isinstance(doing, Written) and doing.file == first]
    assert [(each.offset, len(each.octets)) for each in written] == [(0, 1000), (1000, len(writers.value(1)) - 1000)]
    assert b"".join(each.octets for each in written) == writers.value(1)
    order = [type(doing) for doing in doings[:7]]
    assert order == [Made, Written, Written, Synced, Moved, Synced, Said]
    assert doings[6] == Said("1")
