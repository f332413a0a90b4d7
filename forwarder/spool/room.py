"""Whether there is room on the disk, and the ballast that is thrown off when there is none.

The ballast is a file whose blocks are really taken. On a full disk it makes room for outcomes: that a message was
delivered must be recorded, or it is delivered twice. While it is gone no new mail is taken.

Errors of the disk count as no room; nothing here raises, except `SpoolBroken` after a failed fsync.
"""

from dataclasses import dataclass
from pathlib import Path

from forwarder.ports import SpoolError
from forwarder.spool.disk import Disk, Kind
from forwarder.spool.faults import SpoolBroken
from forwarder.spool.files import sync_folder, synced

_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """How much must be free: octets besides the ballast, and files. `ballast` is in octets."""

    minimum_free: int = 100_000_000
    minimum_files: int = 1000
    ballast: int = 8 << 20


class Room:
    """Looks after the space where `folder` is. Every method blocks."""

    def __init__(self, folder: Path, disk: Disk, settings: SpoolSettings) -> None:
        self._folder = folder
        self._path = folder / "ballast"
        self._disk = disk
        self._settings = settings
        self.ballast = False  # whether it is there

    def enter(self) -> None:
        """Find the ballast or make it, as far as there is room at all."""
        try:
            status = self._disk.status(self._path)
            whole = status.kind is Kind.FILE and min(status.size, status.allocated) >= self._settings.ballast
        except OSError:
            whole = False
        self.ballast = whole
        if not whole:
            self._make()

    def shortage(self) -> str:
        """Make the ballast anew if there is room for it twice; say what is short, "" while all is well."""
        settings = self._settings
        try:
            space = self._disk.space(self._folder)
            if not self.ballast and space.octets >= settings.minimum_free + 2 * settings.ballast:
                self._make()
        except OSError as error:
            return f"the free space is not known: {error.strerror or error}"
        if not self.ballast:
            return "the ballast could not be made again yet"
        needed = settings.minimum_free + settings.ballast
        if space.octets < needed:
            free, enough = space.octets // _MB, -(-needed // _MB)
            return f"{free} MB are free, {enough} MB must be (spool.minimum_free and the ballast)"
        if space.files is not None and space.files < settings.minimum_files:
            return f"{space.files} files can be made"
        return ""

    def release(self) -> None:
        """Throw the ballast off."""
        self.ballast = False
        for step in (self._disk.truncate, self._disk.unlink):  # where unlinking needs room of its own, truncating helps
            try:
                step(self._path)
            except OSError:
                continue

    def _make(self) -> None:
        try:
            self._clear()
            descriptor = self._disk.create(self._path)
            try:
                if self._settings.ballast:
                    self._disk.allocate(descriptor, self._settings.ballast)
                synced(self._disk, descriptor, "the ballast")
            finally:
                self._disk.close(descriptor)
            sync_folder(self._disk, self._folder)
            self.ballast = True
        except SpoolBroken:
            raise
        except (OSError, SpoolError):
            self.release()

    def _clear(self) -> None:
        try:
            self._disk.unlink(self._path)
        except FileNotFoundError:
            return
