"""Message files: the content of each letter in a file of its own that never changes.

`write` is durable on return: a new file in `incoming/`, written, fsynced, renamed into `messages/`, that folder
fsynced. That the old name is gone need not be durable: opening the spool removes it. It raises `SpoolFull`, or
`SpoolError` for any other error of the disk, and leaves nothing behind; after a failed fsync it raises `SpoolBroken`,
and nothing is tried again.

A worker process may use it alone: the spool's owner `adopt`s the file that it wrote. The database is not touched here;
a file without a row there was never acknowledged.
"""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from threading import Lock

from forwarder.model.message import Content
from forwarder.ports import SpoolError
from forwarder.spool.disk import Disk, Kind, Status
from forwarder.spool.faults import SpoolBroken, of_files
from forwarder.spool.hands import Hands

_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{16}")
_PIECE = 1 << 18


class Spoilt(SpoolError):  # noqa: N818 - it says what is the matter
    """A message file is missing or is not what was stored."""


class Occupied(SpoolError):  # noqa: N818 - it says what is the matter
    """An id has a message file already."""


def is_id(name: str) -> bool:
    """Say whether a name is an id as `Gateway.new_id` makes them."""
    return _ID.fullmatch(name) is not None


def require_id(name: str) -> str:
    """Give the id back; raise `SpoolError` if it is none, so that no other name ever becomes a path."""
    if not is_id(name):
        raise SpoolError(f"{name[:40]!r} is not an id")
    return name


class FiledContent:
    """A `Content` in a message file, which is opened when it is first read and closed with the last reference.

    Once open it can be read to its end, even if the file is removed. Reading raises OSError. Closing is left to
    `hands`: to give up a file that has been removed means work for the disk.
    """

    __slots__ = ("_disk", "_file", "_hands", "digest", "eight_bit", "path", "size")

    def __init__(self, disk: Disk, hands: Hands, path: Path, size: int, digest: bytes, *, eight_bit: bool) -> None:
        self._disk = disk
        self._hands = hands
        self._file: _File | None = None
        self.path = path
        self.size = size
        self.digest = digest
        self.eight_bit = eight_bit

    def head(self, limit: int) -> bytes:
        """Give the first `limit` octets, or all there are."""
        return self._read(0, min(limit, self.size))

    def chunks(self) -> Iterator[bytes]:
        """Give the octets in pieces of 256 KiB."""
        return (self._read(start, min(_PIECE, self.size - start)) for start in range(0, self.size, _PIECE))

    def check(self) -> None:
        """Read everything; raise `Spoilt` where it is not what was stored, OSError where it cannot be read."""
        try:
            _require_sound(self._disk.open_status(self._open().descriptor), self.size)
            found = hashlib.sha256()
            for chunk in self.chunks():
                found.update(chunk)
        except FileNotFoundError:
            raise Spoilt("the message file is missing") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Spoilt("the message file is a symbolic link") from None
            raise
        if found.digest() != self.digest:
            raise Spoilt("the message file is not what was stored: its SHA-256 differs")

    def _open(self) -> "_File":
        if self._file is None:
            self._file = _File(self._disk, self._hands, self.path)
        return self._file

    def _read(self, start: int, length: int) -> bytes:
        descriptor = self._open().descriptor
        octets = self._disk.read(descriptor, length, start)
        while len(octets) < length:
            more = self._disk.read(descriptor, length - len(octets), start + len(octets))
            if not more:
                raise OSError(errno.EIO, "a message file is shorter than it was")
            octets += more
        return octets


class _File:
    """An open file that is closed with its last reference."""

    __slots__ = ("_disk", "_hands", "descriptor")

    def __init__(self, disk: Disk, hands: Hands, path: Path) -> None:
        self._disk = disk
        self._hands = hands
        self.descriptor = -1
        self.descriptor = disk.open(path)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            self._hands.leave(partial(self._disk.close, self.descriptor))


class MessageFiles:
    """The folders `messages` and `incoming` below `folder`, which must exist. What is no id raises `SpoolError`."""

    def __init__(self, folder: Path, disk: Disk, hands: Hands) -> None:
        self._messages = folder / "messages"
        self._incoming = folder / "incoming"
        self._disk = disk
        self._hands = hands
        self._names = _Names(self._messages, disk)
        self._doomed: list[Path] = []
        self._removal: asyncio.Task[None] | None = None

    async def write(self, id: str, content: Content) -> FiledContent:
        """Store a content; durable on return. Its digest is that of the octets as they are stored.

        An id that has a file already raises `Occupied`. Work that was begun is ended, cancelled or not.
        """
        path = self._messages / require_id(id)
        return await self._hands.file(lambda: self._write(id, path, content))

    def adopt(self, id: str, size: int, digest: bytes, eight_bit: bool) -> FiledContent:
        """Give the content that another process wrote, or that a row tells of; nothing is looked at."""
        path = self._messages / require_id(id)
        return FiledContent(self._disk, self._hands, path, size, digest, eight_bit=eight_bit)

    def holds(self, id: str, content: Content) -> bool:
        """Say whether a content is already the message file of that id here."""
        return isinstance(content, FiledContent) and content.path == self._messages / id

    def present(self, content: FiledContent) -> None:
        """Look that the file is there, ours, and with its right size; raise `Spoilt` if not.

        Within the loop: it was made a moment ago, so that nothing has to be read from the disk for it.
        """
        try:
            _require_sound(self._disk.status(content.path), content.size)
        except FileNotFoundError:
            raise Spoilt("the message file is missing") from None
        except OSError as error:
            raise of_files(error, "a message file") from error

    async def verify(self, content: FiledContent) -> None:
        """Read the content whole; raise `Spoilt` where it is not what was stored, `SpoolError` if it cannot be read."""
        try:
            await self._hands.file(content.check)
        except OSError as error:
            raise of_files(error, "a message file cannot be read") from error

    def remove(self, id: str) -> None:
        """Remove the file of an id if there is one, soon; not durable: what a crash brings back, opening removes."""
        self._doomed.append(self._messages / require_id(id))
        if self._removal is None:
            self._removal = asyncio.ensure_future(self._remove_doomed())

    async def removed(self) -> None:
        """Wait until there is nothing more to remove."""
        while self._removal is not None:
            await asyncio.wait((self._removal,))

    async def _remove_doomed(self) -> None:
        """Work off what is to go: one way to a thread and back for all that waits."""
        try:
            while self._doomed:
                paths, self._doomed = self._doomed, []
                await self._hands.file(partial(self._drop_all, paths))
        finally:
            self._removal = None

    def _drop_all(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._drop(path)

    def _write(self, id: str, path: Path, content: Content) -> FiledContent:
        temporary = self._incoming / id
        try:
            descriptor = self._disk.create(temporary)
        except OSError as error:
            raise of_files(error, "a message file cannot be made") from error
        try:
            filed = self._fill(descriptor, path, content)
            self._refuse_second(path)
            self._disk.rename(temporary, path)
        except OSError as error:
            self._drop(temporary)
            raise of_files(error, "a message file cannot be written") from error
        except BaseException:
            self._drop(temporary)
            raise
        self._settle(path)
        return filed

    def _fill(self, descriptor: int, path: Path, content: Content) -> FiledContent:
        size, eight_bit, found = 0, False, hashlib.sha256()
        try:
            for chunk in content.chunks():
                write_all(self._disk, descriptor, chunk)
                found.update(chunk)
                size += len(chunk)
                eight_bit = eight_bit or not chunk.isascii()
            synced(self._disk, descriptor, "a message file")
        finally:
            self._disk.close(descriptor)
        return FiledContent(self._disk, self._hands, path, size, found.digest(), eight_bit=eight_bit)

    def _refuse_second(self, path: Path) -> None:
        try:
            self._disk.status(path)
        except FileNotFoundError:
            return
        raise Occupied(f"there is a message {path.name} already")

    def _settle(self, path: Path) -> None:
        """Make the new name durable."""
        try:
            self._names.settle()
        except SpoolError:
            self._drop(path)
            raise

    def _drop(self, path: Path) -> None:
        try:
            self._disk.unlink(path)
        except OSError:
            return  # opening the spool, or its sweep, removes it


class _Names:
    """The names in a folder, made durable by one fsync for all threads that wait for it at that moment."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._counting = Lock()
        self._syncing = Lock()
        self._asked = 0
        self._settled = 0
        self._broken = ""

    def settle(self) -> None:
        """Return when the names that were there at the call are durable; raise `SpoolError`, after a failure always."""
        with self._counting:
            self._asked += 1
            mine = self._asked
        with self._syncing:
            if self._broken:
                raise SpoolBroken(self._broken)
            if self._settled < mine:
                self._sync()

    def _sync(self) -> None:
        with self._counting:
            asked = self._asked  # whoever asked up to now has made its name already
        try:
            sync_folder(self._disk, self._folder)
        except SpoolBroken as error:
            self._broken = str(error)
            raise
        self._settled = asked


def _require_sound(status: Status, size: int) -> None:
    """Raise `Spoilt` unless this is a file that only we (or root) can have written, of the right size."""
    if status.kind is not Kind.FILE:
        raise Spoilt(f"the message file is a {status.kind.value}")
    if status.owner not in (os.geteuid(), 0):
        raise Spoilt(f"the message file belongs to user {status.owner}")
    if status.mode & 0o022:
        raise Spoilt(f"the message file could be written by others (mode {status.mode:03o})")
    if status.size != size:
        raise Spoilt(f"the message file has {status.size} octets in place of {size}")


def write_all(disk: Disk, descriptor: int, octets: bytes) -> None:
    """Write octets however many calls it takes; raise OSError."""
    rest = memoryview(octets)
    while rest:
        written = disk.write(descriptor, rest)
        if written <= 0:
            raise OSError(errno.EIO, "nothing was written")
        rest = rest[written:]


def synced(disk: Disk, descriptor: int, what: str) -> None:
    """Do an fsync; whatever fails in it is `SpoolBroken`."""
    try:
        disk.sync(descriptor)
    except OSError as error:
        raise SpoolBroken(f"{what} could not be made durable: {error.strerror or error}") from error


def sync_folder(disk: Disk, path: Path) -> None:
    """Make the names in a folder durable; raise `SpoolBroken`, or `SpoolError` if that was not even begun."""
    try:
        descriptor = disk.open_folder(path)
    except OSError as error:
        raise of_files(error, f"the folder {path.name} cannot be opened") from error
    try:
        synced(disk, descriptor, f"the folder {path.name}")
    finally:
        disk.close(descriptor)
