"""Looks at a spool's folder before it is used: makes it where it is missing, refuses it where it cannot be trusted.

Contract: `enter` gives the `Premises`, locked for us, or raises `SpoolRefused` with every problem it saw, having
changed nothing. Of message files only the kind is looked at here, which costs no call for each; whose they are, who may
write to them and their size is looked at when a letter is fetched (`files`). What is in the database is for `database`
to judge.

A lock lives as long as any process has the descriptor: whoever forks with the spool open shares the lock.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from forwarder.ports import SpoolError
from forwarder.spool.database import refuse_version
from forwarder.spool.disk import Disk, Kind, Status
from forwarder.spool.faults import SpoolRefused
from forwarder.spool.files import is_id, sync_folder

DATABASE = "queue.db"
FOLDERS = ("messages", "incoming", "quarantine")
_JOURNAL = f"{DATABASE}-journal"
_LOCK = "lock"
_MAGIC = b"SQLite format 3\0"
_VERSION_AT = 60  # https://www.sqlite.org/fileformat.html 1.3: the user version, four octets

Entries = Sequence[tuple[str, Kind]]


@dataclass(frozen=True, slots=True)
class Premises:
    """What was found: the ids that have files, and names that are not ours, as `folder/name`."""

    lock: int
    messages: frozenset[str]
    incoming: frozenset[str]
    foreign: tuple[str, ...]


def enter(folder: Path, disk: Disk) -> Premises:
    """Check the folder, make what is missing, take the lock; raise `SpoolRefused`."""
    try:
        return _enter(folder, disk)
    except SpoolRefused:
        raise
    except (OSError, SpoolError) as error:
        raise SpoolRefused((f"{folder}: {error}",)) from error


def _enter(folder: Path, disk: Disk) -> Premises:
    if _missing(folder, disk):
        _make(folder, disk)
    if problems := tuple(_problems(folder, disk)):
        raise SpoolRefused(problems)
    lock = _lock(folder, disk)
    try:
        missing = [name for name in FOLDERS if _missing(folder / name, disk)]
        inner = {name: [] if name in missing else disk.scan(folder / name) for name in FOLDERS}
        if links := tuple(_links(folder, inner)):
            raise SpoolRefused(links)
        messages, incoming = inner["messages"], inner["incoming"]
        ours = frozenset(name for name, kind in messages if _is_ours(name, kind))
        _check_database(folder, disk, ours)
        for name in missing:
            _make(folder / name, disk)
        written = frozenset(name for name, kind in incoming if _is_ours(name, kind))
        return Premises(
            lock, ours, written, (*_foreign("messages", messages, ours), *_foreign("incoming", incoming, written))
        )
    except BaseException:
        disk.close(lock)
        raise


def _is_ours(name: str, kind: Kind) -> bool:
    return kind is Kind.FILE and is_id(name)


def _foreign(inner: str, entries: Entries, ours: frozenset[str]) -> tuple[str, ...]:
    return tuple(f"{inner}/{name}" for name, _ in entries if name not in ours)


def _missing(path: Path, disk: Disk) -> bool:
    try:
        disk.status(path)
    except FileNotFoundError:
        return True
    return False


def _make(folder: Path, disk: Disk) -> None:
    with suppress(FileExistsError):  # another gateway that starts; the lock decides
        disk.make_folder(folder)
    sync_folder(disk, folder.parent)


def _problems(folder: Path, disk: Disk) -> Iterator[str]:
    status = disk.status(folder)
    yield from _faults(folder, status, Kind.FOLDER)
    if status.kind is not Kind.FOLDER:
        return
    for name, _ in disk.scan(folder):
        yield from _faults(folder / name, disk.status(folder / name), Kind.FOLDER if name in FOLDERS else None)


def _links(folder: Path, inner: Mapping[str, Entries]) -> Iterator[str]:
    for name, entries in inner.items():
        links = (one for one, kind in entries if kind is Kind.LINK)
        yield from (f"{folder / name / one}: is a symbolic link: remove it" for one in links)


def _faults(path: Path, status: Status, wanted: Kind | None) -> Iterator[str]:
    if status.kind is Kind.LINK:
        yield f"{path}: is a symbolic link: put what it leads to in its place"
        return
    if wanted is not None and status.kind is not wanted:
        yield f"{path}: expected a {wanted.value}, found a {status.kind.value}"
    if wanted is None and path.name in (_LOCK, DATABASE) and status.kind is not Kind.FILE:
        yield f"{path}: expected a file, found a {status.kind.value}"
    if status.owner != os.geteuid():
        yield f"{path}: belongs to user {status.owner}, and the gateway runs as user {os.geteuid()}: use chown"
    if status.mode & 0o077:
        yield f"{path}: others may open it (mode {status.mode:03o}): use chmod go="


def _lock(folder: Path, disk: Disk) -> int:
    try:
        return disk.lock(folder / _LOCK)
    except BlockingIOError:
        raise SpoolRefused((f"{folder}: another gateway uses this spool: stop it first",)) from None


def _check_database(folder: Path, disk: Disk, messages: frozenset[str]) -> None:
    """Refuse what SQLite must not touch; make the database's file, empty, where there is nothing yet."""
    path = folder / DATABASE
    try:
        size = disk.status(path).size
    except FileNotFoundError:
        left = [name for name in (f"{DATABASE}-wal", _JOURNAL) if not _missing(folder / name, disk)]
        if messages or left:
            found = f"{len(messages)} messages wait for it" if messages else f"{left[0]} is there"
            text = f"{path}: is missing though {found}: restore it, or move the folder aside"
            raise SpoolRefused((text,)) from None
        disk.close(disk.create(path))
        sync_folder(disk, folder)
        return
    journal = not _missing(folder / _JOURNAL, disk)
    if journal and messages:  # none is left once letters are taken, and SQLite would undo the database with it
        found = f"is there though {len(messages)} messages wait"
        raise SpoolRefused((f"{folder / _JOURNAL}: {found}: restore the folder, or move it aside",))
    if size and not journal:  # with one, SQLite undoes a creation that was cut off, and `database` checks what is left
        _check_header(path, disk)
    elif messages:
        text = f"{path}: is empty though {len(messages)} messages wait: restore it, or move the folder aside"
        raise SpoolRefused((text,))


def _check_header(path: Path, disk: Disk) -> None:
    descriptor = disk.open(path)
    try:
        header = disk.read(descriptor, _VERSION_AT + 4, 0)
    finally:
        disk.close(descriptor)
    if not header.startswith(_MAGIC) or len(header) < _VERSION_AT + 4:
        raise SpoolRefused((f"{path}: is not a database: restore it, or move the folder aside",))
    refuse_version(path, int.from_bytes(header[_VERSION_AT:], "big"))
