"""Where the content of a message is kept while it passes: in memory up to 1 MiB, else in a file without a name.

`Receiver.add` takes the octets as they come and `finish` gives the `Content`. The file is readable by its owner only
and has no name, so nothing is left of it after a crash; it is closed when the last reference to its `Content` goes.

What can fail: the disk. `add` and `finish` raise `NoRoom`, which carries the reply for the client: 452 when there is no
room, 451 for anything else; both are temporary and name nothing of ours. A read error later raises OSError.
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from forwarder.model.faults import NO_ROOM, NOT_STORED
from forwarder.model.message import Content, MemoryContent

IN_MEMORY = 1 << 20
_PIECE = 1 << 16

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE}


class NoRoom(Exception):  # noqa: N818 - it says what is the matter
    """The content could not be stored. `reply` is for the client; the OSError is the cause."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"content could not be stored: {error.strerror}")
        self.reply = NO_ROOM if error.errno in _FULL else NOT_STORED


class Receiver:
    """Takes the content of one message. `directory` is where the file goes when it does not stay in memory."""

    __slots__ = ("_directory", "_file", "_hash", "_in_memory", "_octets", "_size")

    def __init__(self, directory: Path, in_memory: int = IN_MEMORY) -> None:
        self._directory = directory
        self._in_memory = in_memory
        self._octets = bytearray()
        self._file: _File | None = None
        self._hash = hashlib.sha256()
        self._size = 0

    def add(self, octets: bytes) -> None:
        """Take the next octets; raise `NoRoom`."""
        self._hash.update(octets)
        self._size += len(octets)
        self._octets += octets
        if self._file is not None or len(self._octets) > self._in_memory:
            self._spill()

    def finish(self, *, eight_bit: bool) -> Content:
        """Give what was taken. The receiver is of no use afterwards."""
        if self._file is None:
            return MemoryContent(bytes(self._octets), self._hash.digest())
        return SpilledContent(self._file, self._size, self._hash.digest(), eight_bit)

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = _File(self._directory)
            self._file.append(self._octets)
        except OSError as error:
            raise NoRoom(error) from error
        self._octets = bytearray()


class SpilledContent:
    """A `Content` in a file without a name. Reads at positions, so that several may read at once."""

    __slots__ = ("_file", "digest", "eight_bit", "size")

    def __init__(self, file: "_File", size: int, digest: bytes, eight_bit: bool) -> None:
        self._file = file
        self.size = size
        self.digest = digest
        self.eight_bit = eight_bit

    def head(self, limit: int) -> bytes:
        """Give the first `limit` octets, or all there are."""
        return self._file.read(0, min(limit, self.size))

    def chunks(self) -> Iterator[bytes]:
        """Give the octets in pieces of 64 KiB."""
        return (self._file.read(start, min(_PIECE, self.size - start)) for start in range(0, self.size, _PIECE))


class _File:
    """A file without a name that is closed with its last reference."""

    __slots__ = ("_descriptor",)

    def __init__(self, directory: Path) -> None:
        self._descriptor = -1
        self._descriptor = _open_nameless(directory)

    def append(self, octets: bytearray) -> None:
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def read(self, start: int, length: int) -> bytes:
        octets = os.pread(self._descriptor, length, start)
        while len(octets) < length:
            more = os.pread(self._descriptor, length - len(octets), start + len(octets))
            if not more:
                raise OSError(errno.EIO, "a spilled message is shorter than it was")
            octets += more
        return octets

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _open_nameless(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):  # some file systems cannot (open(2))
            raise
    descriptor, name = tempfile.mkstemp(dir=directory)  # 0600, close-on-exec
    Path(name).unlink()
    return descriptor
