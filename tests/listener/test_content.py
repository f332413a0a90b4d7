"""Content that stays in memory or spills: the same octets either way, defined errors, nothing left behind."""

import errno
import gc
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.listener.content import NoRoom, Receiver
from forwarder.model.faults import NO_ROOM, NOT_STORED
from forwarder.model.message import Content


def receive(directory: Path, pieces: list[bytes], in_memory: int = 100) -> Content:
    receiver = Receiver(directory, in_memory)
    for piece in pieces:
        receiver.add(piece)
    return receiver.finish(eight_bit=False)


def open_files() -> int:
    gc.collect()  # what other tests have left
    return len(os.listdir("/proc/self/fd"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=80), max_size=8), st.integers(0, 300))
def test_memory_and_file_are_alike(tmp_path: Path, pieces: list[bytes], limit: int) -> None:
    octets = b"".join(pieces)
    for in_memory in (0, 100, 10_000):
        kept = receive(tmp_path, pieces, in_memory)
        assert kept.size == len(octets)
        assert kept.digest == hashlib.sha256(octets).digest()
        assert kept.head(limit) == octets[:limit]
        assert b"".join(kept.chunks()) == octets
        assert b"".join(kept.chunks()) == octets  # again


def test_stays_in_memory_up_to_the_limit(tmp_path: Path) -> None:
    before = open_files()
    small = receive(tmp_path, [b"x" * 100])
    assert open_files() == before
    large = receive(tmp_path, [b"x" * 101])
    assert open_files() == before + 1
    assert small.size + large.size == 201


def test_row_19_spills_to_a_file_without_a_name(tmp_path: Path) -> None:
    kept = receive(tmp_path, [b"x" * 200_000])
    assert list(tmp_path.iterdir()) == []
    assert [len(piece) for piece in kept.chunks()] == [65_536, 65_536, 65_536, 3_392]


def test_the_file_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = os.open

    def spy(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real(path, flags, mode)
        seen.append(os.fstat(descriptor).st_mode & 0o777)
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    receive(tmp_path, [b"x" * 101])
    assert seen == [0o600]


def test_file_systems_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def cannot(path: Path | str, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", cannot)
    kept = receive(tmp_path, [b"x" * 101])
    assert list(tmp_path.iterdir()) == []
    assert kept.head(3) == b"xxx"


def test_freed_with_the_last_reference(tmp_path: Path) -> None:
    before = open_files()
    kept = receive(tmp_path, [b"x" * 200_000])
    pieces = kept.chunks()
    next(pieces)
    del kept
    assert len(next(pieces)) == 65_536  # a delivery under way still reads
    del pieces
    assert open_files() == before


def test_an_abandoned_receiver_is_freed(tmp_path: Path) -> None:
    before = open_files()
    receiver = Receiver(tmp_path, 10)
    receiver.add(b"x" * 11)
    del receiver
    assert open_files() == before


@pytest.mark.parametrize(
    ("number", "reply"),
    [(errno.ENOSPC, NO_ROOM), (errno.EDQUOT, NO_ROOM), (errno.EMFILE, NO_ROOM), (errno.EIO, NOT_STORED)],
)
def test_row_24_disk_errors_are_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reply: object
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, "secret", str(tmp_path))

    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(NoRoom) as caught:
            receive(tmp_path, [b"x" * 101])
    assert caught.value.reply == reply
    assert "secret" not in caught.value.reply.text
    del caught
    assert open_files() == before


def test_row_24_a_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NoRoom) as caught:
        receive(tmp_path / "gone", [b"x" * 101])
    assert caught.value.reply is NOT_STORED


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, octets: real(descriptor, octets[:7]))
    octets = bytes(range(256))
    assert b"".join(receive(tmp_path, [octets]).chunks()) == octets


def test_a_truncated_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = receive(tmp_path, [b"x" * 101])
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with pytest.raises(OSError, match="shorter"):
        kept.head(5)
