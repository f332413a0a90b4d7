"""The file operations that the spool is made of, so that tests and simulations can put themselves in their place.

Contract: every method raises OSError and nothing else, `connect` also sqlite3.Error. Paths are absolute. No operation
follows a symbolic link in the last place of a path, and every descriptor is closed on exec.
"""

import errno
import fcntl
import os
import sqlite3
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC


class Kind(Enum):
    """What a name in a folder stands for."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "symbolic link"
    OTHER = "special file"


@dataclass(frozen=True, slots=True)
class Status:
    """What the file system knows of one name. `mode` is the permission bits; `modified` seconds since 1970."""

    kind: Kind
    owner: int
    mode: int
    size: int
    allocated: int
    modified: float


@dataclass(frozen=True, slots=True)
class Space:
    """What is free for us: octets, and files; `files` is None where the file system has no such limit."""

    octets: int
    files: int | None


class Disk(Protocol):
    """The operations. Descriptors are small numbers that `close` ends."""

    def create(self, path: Path) -> int:
        """Make a file that must not exist, 0600, and open it for writing."""
        ...

    def open(self, path: Path) -> int:
        """Open a file for reading."""
        ...

    def write(self, descriptor: int, octets: memoryview) -> int:
        """Write some of the octets; give how many."""
        ...

    def read(self, descriptor: int, length: int, start: int) -> bytes:
        """Give up to `length` octets from a position; b"" at the end."""
        ...

    def allocate(self, descriptor: int, length: int) -> None:
        """Make a file that long, its room taken."""
        ...

    def sync(self, descriptor: int) -> None:
        """Wait until what an open file or folder holds is on the disk (fsync)."""
        ...

    def close(self, descriptor: int) -> None:
        """End a descriptor."""
        ...

    def open_folder(self, path: Path) -> int:
        """Open a folder, for `sync` to wait until the names in it are on the disk."""
        ...

    def make_folder(self, path: Path) -> None:
        """Make a folder that must not exist, 0700."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name on the same file system."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file's name."""
        ...

    def truncate(self, path: Path) -> None:
        """Take a file's octets away."""
        ...

    def scan(self, path: Path) -> list[tuple[str, Kind]]:
        """Give the names in a folder, in no particular order."""
        ...

    def status(self, path: Path) -> Status:
        """Give what is known of a name."""
        ...

    def open_status(self, descriptor: int) -> Status:
        """Give what is known of an open file."""
        ...

    def space(self, path: Path) -> Space:
        """Give what is free where a folder is."""
        ...

    def lock(self, path: Path) -> int:
        """Open a file, made where it is missing, and lock it until it is closed; BlockingIOError if another has it."""
        ...

    def connect(self, path: Path) -> sqlite3.Connection:
        """Open a database that exists, for one thread at a time, in autocommit mode."""
        ...


class RealDisk:
    """The operating system's."""

    def create(self, path: Path) -> int:
        """Make a file that must not exist, 0600, and open it for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)

    def open(self, path: Path) -> int:
        """Open a file for reading."""
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | _SAFE)  # a FIFO must not hold us up

    def write(self, descriptor: int, octets: memoryview) -> int:
        """Write some of the octets; give how many."""
        return os.write(descriptor, octets)

    def read(self, descriptor: int, length: int, start: int) -> bytes:
        """Give up to `length` octets from a position; b"" at the end."""
        return os.pread(descriptor, length, start)

    def allocate(self, descriptor: int, length: int) -> None:
        """Make a file that long, its room taken."""
        os.posix_fallocate(descriptor, 0, length)

    def sync(self, descriptor: int) -> None:
        """Wait until what an open file or folder holds is on the disk (fsync)."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """End a descriptor."""
        os.close(descriptor)

    def open_folder(self, path: Path) -> int:
        """Open a folder, for `sync` to wait until the names in it are on the disk."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SAFE)

    def make_folder(self, path: Path) -> None:
        """Make a folder that must not exist, 0700."""
        path.mkdir(mode=0o700)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name on the same file system."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a file's name."""
        path.unlink()

    def truncate(self, path: Path) -> None:
        """Take a file's octets away."""
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | _SAFE))

    def scan(self, path: Path) -> list[tuple[str, Kind]]:
        """Give the names in a folder, in no particular order."""
        with os.scandir(path) as entries:
            return [(entry.name, _entry_kind(entry)) for entry in entries]

    def status(self, path: Path) -> Status:
        """Give what is known of a name."""
        return _status(path.lstat())

    def open_status(self, descriptor: int) -> Status:
        """Give what is known of an open file."""
        return _status(os.fstat(descriptor))

    def space(self, path: Path) -> Space:
        """Give what is free where a folder is."""
        free = os.statvfs(path)
        return Space(free.f_bavail * free.f_frsize, free.f_favail if free.f_files else None)  # btrfs counts no inodes

    def lock(self, path: Path) -> int:
        """Open a file, made where it is missing, and lock it until it is closed; BlockingIOError if another has it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def connect(self, path: Path) -> sqlite3.Connection:
        """Open a database that exists, for one thread at a time, in autocommit mode."""
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.ELOOP, "not a regular file", str(path))
        return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)


def _entry_kind(entry: "os.DirEntry[str]") -> Kind:
    if entry.is_file(follow_symlinks=False):
        return Kind.FILE
    if entry.is_symlink():
        return Kind.LINK
    return Kind.FOLDER if entry.is_dir(follow_symlinks=False) else Kind.OTHER


def _status(found: os.stat_result) -> Status:
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}
    kind = kinds.get(stat.S_IFMT(found.st_mode), Kind.OTHER)
    mode = stat.S_IMODE(found.st_mode)
    return Status(kind, found.st_uid, mode, found.st_size, found.st_blocks * 512, found.st_mtime)
