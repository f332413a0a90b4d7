"""Row 59: a folder that cannot be trusted is refused with a clear sentence, and nothing in it is changed."""

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder.model.letter import Query
from forwarder.spool.faults import SpoolRefused
from tests.fakes import RecordingLog
from tests.spool.material import letter, names, number, opened


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in a folder: names, modes, owners, octets."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        octets = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, octets)
    return found


def link(inside: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / inside
        elsewhere = folder.parent / "elsewhere"
        if path.exists():
            path.rename(elsewhere)
        path.symlink_to(elsewhere)

    return spoil


def mode(inside: str, bits: int) -> Callable[[Path], None]:
    return lambda folder: (folder / inside).chmod(bits)


def version(folder: Path) -> None:
    connection = sqlite3.connect(folder / "queue.db")
    connection.execute("PRAGMA user_version = 7")
    connection.close()


def no_database(folder: Path) -> None:
    (folder / "queue.db").unlink()


def with_journal(spoil: Callable[[Path], None]) -> Callable[[Path], None]:
    """No message waits, and there is a journal: SQLite has its say before we look at the database."""

    def spoil_both(folder: Path) -> None:
        shutil.rmtree(folder / "messages")
        (folder / "messages").mkdir(0o700)
        spoil(folder)
        (folder / "queue.db-journal").touch(0o600)

    return spoil_both


def stray_journal(folder: Path) -> None:
    (folder / "queue.db-journal").write_bytes(b"")
    (folder / "queue.db-journal").chmod(0o600)


def only_log(folder: Path) -> None:
    (folder / "queue.db").rename(folder / "queue.db-wal")
    shutil.rmtree(folder / "messages")


def overwrite(octets: bytes, at: int = 0) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "queue.db"
        old = path.read_bytes()
        path.write_bytes(old[:at] + octets + old[at + len(octets) :])

    return spoil


def empty(folder: Path) -> None:
    (folder / "queue.db").write_bytes(b"")


def another_program(folder: Path) -> None:
    (folder / "queue.db").unlink()
    connection = sqlite3.connect(folder / "queue.db")
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    (folder / "queue.db").chmod(0o600)


def not_a_folder(folder: Path) -> None:
    shutil.rmtree(folder / "messages")
    (folder / "messages").write_bytes(b"")
    (folder / "messages").chmod(0o600)


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "messages is a link": (link("messages"), "messages: is a symbolic link"),
    "database is a link": (link("queue.db"), r"queue.db: is a symbolic link"),
    "lock is a link": (link("lock"), "lock: is a symbolic link"),
    "ballast is a link": (link("ballast"), "ballast: is a symbolic link"),
    "wal is a link": (link("queue.db-wal"), "queue.db-wal: is a symbolic link"),
    "a message is a link": (link(f"messages/{number(1)}"), f"{number(1)}: is a symbolic link: remove it"),
    "incoming holds a link": (link("incoming/x"), "incoming/x: is a symbolic link"),
    "quarantine holds a link": (link("quarantine/x"), "quarantine/x: is a symbolic link"),
    "folder is open": (mode(".", 0o750), r"others may open it \(mode 750\)"),
    "database is open": (mode("queue.db", 0o604), r"queue.db: others may open it \(mode 604\)"),
    "messages are open": (mode("messages", 0o711), r"messages: others may open it"),
    "a newer version": (version, r"is of version 7, and this release knows versions up to 1"),
    "a newer version, a journal": (with_journal(version), r"is of version 7, and this release knows versions up to 1"),
    "garbage, a journal": (with_journal(overwrite(b"From: me\r\n\r\n")), r"queue.db: file is not a database"),
    "a broken page, a journal": (with_journal(overwrite(b"\xff" * 300, 4096)), r"queue.db: .*nothing was changed"),
    "a journal though messages wait": (stray_journal, r"queue.db-journal: is there though 2 messages wait"),
    "no database": (no_database, r"queue.db: is missing though 2 messages wait"),
    "a log without database": (only_log, r"queue.db: is missing though queue.db-wal is there"),
    "no database at all": (overwrite(b"From: me\r\n\r\n"), r"queue.db: is not a database"),
    "a cut header": (lambda folder: os.truncate(folder / "queue.db", 50), r"queue.db: is not a database"),
    "a cut database": (lambda folder: os.truncate(folder / "queue.db", 8192), r"queue.db: .*nothing was changed"),
    "a broken page": (overwrite(b"\xff" * 300, 4096), r"queue.db: .*nothing was changed"),
    "an empty database": (empty, r"queue.db: is empty though 2 messages wait"),
    "another program's": (another_program, r"queue.db: is the database of another program"),
    "messages is a file": (not_a_folder, r"messages: expected a folder, found a file"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_folder_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1), letter(2)])
    await spool.close()
    spoil, text = HOSTILE[name]
    spoil(tmp_path / "spool")
    before = snapshot(tmp_path)
    with pytest.raises(SpoolRefused, match=text) as refused:
        await opened(tmp_path)
    assert all(str(tmp_path) in problem for problem in refused.value.problems)
    assert snapshot(tmp_path) == before


async def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    (tmp_path / "spool").rename(tmp_path / "elsewhere")
    (tmp_path / "spool").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpoolRefused, match="spool: is a symbolic link"):
        await opened(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("inside", [".", "queue.db", "messages", "lock"])
async def test_what_belongs_to_another_user_is_refused(tmp_path: Path, inside: str) -> None:
    await (await opened(tmp_path)).close()
    os.chown(tmp_path / "spool" / inside, 12345, 12345)
    before = snapshot(tmp_path)
    with pytest.raises(SpoolRefused, match="belongs to user 12345, and the gateway runs as user 0"):
        await opened(tmp_path)
    assert snapshot(tmp_path) == before


async def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    for name in ("queue.db", "messages"):
        (tmp_path / "spool" / name).chmod(0o777)
    with pytest.raises(SpoolRefused) as refused:
        await opened(tmp_path)
    assert len(refused.value.problems) == 2


async def test_one_owner_at_a_time(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1)])
    with pytest.raises(SpoolRefused, match="another gateway uses this spool"):
        await opened(tmp_path)
    assert await spool.fetch(number(1)) is not None
    await spool.close()
    await (await opened(tmp_path)).close()


async def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = """
        import asyncio, os, pathlib, sys
        from tests.spool.material import opened
        async def main():
            await opened(pathlib.Path(sys.argv[1]))
            os._exit(9)
        asyncio.run(main())
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=False, timeout=60)
    assert child.returncode == 9
    await (await opened(tmp_path)).close()


async def test_a_state_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpoolRefused, match="No such file"):
        await opened(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


async def test_a_first_start_that_was_cut_off_is_taken_up(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    (tmp_path / "spool" / "queue.db").write_bytes(b"")
    shutil.rmtree(tmp_path / "spool" / "quarantine")
    spool = await opened(tmp_path)
    await spool.store([letter(1)])
    await spool.close()


async def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    foreign = [
        tmp_path / "spool" / name for name in ("messages/README", "incoming/.nfs01", f"messages/{number(1)}.bak")
    ]
    for path in foreign:
        path.write_bytes(b"theirs")
    (tmp_path / "spool" / "messages" / number(5)).mkdir()
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.sweep(-1e9)
    assert [path.read_bytes() for path in foreign] == [b"theirs"] * 3
    assert [str(alert["text"])[:30] for alert in log.named("alert")] == ["4 files in the spool are not t"]
    await spool.close()


async def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    """Files without rows were never acknowledged, or their letters are done with."""
    spool = await opened(tmp_path)
    await spool.store([letter(1)])
    await spool.close()
    for name in (f"messages/{number(2)}", f"incoming/{number(3)}", f"incoming/{number(1)}"):
        (tmp_path / "spool" / name).write_bytes(b"left")
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    assert names(tmp_path, "messages") == {number(1)}
    assert names(tmp_path, "incoming") == set()
    assert [event["files"] for event in log.named("recovered")] == [3]
    assert log.named("alert") == []
    assert len(await spool.find(Query())) == 1
    await spool.close()
