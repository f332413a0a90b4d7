"""How the spool fails, besides what `ports` names, and what an error of the system means."""

import errno
import sqlite3

from forwarder.ports import SpoolError, SpoolFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SpoolBroken(SpoolError):  # noqa: N818 - it says what is the matter
    """What was written may not be what is on the disk: an fsync or a commit failed.

    Nothing is tried again, since the kernel forgets what it could not write (it reports an error once and then
    counts the pages as clean). Only opening the spool anew tells what is there.
    """


class SpoolRefused(SpoolError):  # noqa: N818 - it says what is the matter
    """The spool cannot be opened as it is, and nothing of it was changed. `problems` are sentences for the operator."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def of_files(error: OSError, doing: str) -> SpoolError:
    """Give what an error of a file operation other than fsync means."""
    text = f"{doing}: {error.strerror or error}"
    return SpoolFull(text) if error.errno in _FULL else SpoolError(text)


def is_full(error: sqlite3.Error) -> bool:
    """Say whether the database had no room: no fsync failed, and what had been written does not count."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
