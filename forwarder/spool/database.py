"""The database's one connection, and group commit: what waits together is committed together, by one fsync.

Contract: `run` gives what the work gave, after its commit; the work runs on the database's thread with the connection
and may raise anything, which undoes it alone. When the commit itself fails everything in its group fails: with
`SpoolFull` where there was no room, else with `SpoolBroken`, and from then on every `run` does.

SQLite's own checkpoints ignore errors, fsync's included, so they are off and done here: an error in one is an fsync
error like any other. With `locking_mode = EXCLUSIVE` there is no shared memory file, which would raise SIGBUS on a full
disk, and no other program can open the database while we have it (POSIX locks: nothing here may open its file twice).
"""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from forwarder.ports import SpoolError, SpoolFull
from forwarder.spool.disk import Disk
from forwarder.spool.faults import SpoolBroken, SpoolRefused, is_full
from forwarder.spool.files import sync_folder
from forwarder.spool.hands import Hands
from forwarder.spool.rows import SCHEMA, VERSION

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

# Between checkpoints the -wal file grows to a few MB, and is then written over.
_COMMITS = 200
_CHANGES = 2000
_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
)


@dataclass(slots=True)
class _Request(Generic[T]):
    work: Work[T]
    done: "asyncio.Future[None]"
    result: list[T] = field(default_factory=list)
    error: Exception | None = None


class Database:
    """See the module. `open` and `close` block, and run on the database's thread."""

    def __init__(self, path: Path, disk: Disk, hands: Hands) -> None:
        self._path = path
        self._disk = disk
        self._hands = hands
        self._opened: sqlite3.Connection | None = None
        self._requests: list[_Request[object]] = []
        self._rounds: asyncio.Task[None] | None = None
        self._commits = 0
        self._changes = 0
        self.broken = "the database is closed"  # why nothing is done (any more); "" while all is well

    def open(self) -> None:
        """Open the database, making its tables where it is empty; raise `SpoolRefused`."""
        try:
            self._opened = self._disk.connect(self._path)
            _prepare(self._opened, self._path)
            sync_folder(self._disk, self._path.parent)  # a journal that came back would undo everything
        except (OSError, sqlite3.Error) as error:
            raise SpoolRefused((f"{self._path}: {error}: {_ADVICE}",)) from error
        self._changes = self._opened.total_changes
        self.broken = ""

    def close(self) -> None:
        """Close; what was committed is durable already."""
        self.broken = self.broken or "the database is closed"
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    async def ended(self) -> None:
        """Wait until all that was asked for is done, also where nobody waits for it any more."""
        while self._rounds is not None:
            await asyncio.wait((self._rounds,))

    async def run(self, work: Work[T]) -> T:
        """Do the work in the next group; durable on return."""
        if self.broken:
            raise SpoolBroken(self.broken)
        request = _Request(work, asyncio.get_running_loop().create_future())
        self._requests.append(request)  # type: ignore[arg-type] # each result goes back to its own caller
        if self._rounds is None:
            self._rounds = asyncio.ensure_future(self._work_off())
        await request.done
        if request.error is not None:
            raise request.error
        return request.result[0]

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            raise SpoolBroken("the database is closed")
        return self._opened

    async def _work_off(self) -> None:
        """Do what waits, group after group: one way to the database's thread and back for each."""
        group: list[_Request[object]] = []
        try:
            while self._requests:
                group, self._requests = self._requests, []
                await self._hands.database(partial(self._do, group))
                for request in group:
                    if not request.done.done():  # its caller may be gone
                        request.done.set_result(None)
        finally:
            self._rounds = None
            for request in (*group, *self._requests):  # left over only where the threads or the loop are ended
                if not request.done.done():
                    request.error = SpoolBroken("the database is closed")
                    request.done.set_result(None)

    def _do(self, requests: list[_Request[object]]) -> None:
        try:
            self._commit(requests)
        except Exception as error:  # the group's: all of it is undone
            self._undo()
            failure = self._judge(error)
            for request in requests:
                request.error = failure
        if not self.broken:
            self._checkpoint()

    def _commit(self, requests: list[_Request[object]]) -> None:
        if self.broken:
            raise SpoolBroken(self.broken)
        before = self._connection.total_changes
        self._connection.execute("BEGIN")
        for request in requests:
            self._perform(request)
        self._connection.execute("COMMIT")
        if self._connection.total_changes != before:
            self._commits += 1

    def _perform(self, request: _Request[object]) -> None:
        self._connection.execute("SAVEPOINT request")
        try:
            request.result.append(request.work(self._connection))
        except Exception as error:
            if not self._connection.in_transaction:  # SQLite gave up the whole transaction
                raise
            if isinstance(error, sqlite3.OperationalError):  # of the disk, not of this request
                raise
            self._connection.execute("ROLLBACK TO request")
            request.error = error if isinstance(error, SpoolError) else _told(error)
        self._connection.execute("RELEASE request")

    def _undo(self) -> None:
        try:
            if self._opened is not None and self._opened.in_transaction:
                self._opened.execute("ROLLBACK")
        except sqlite3.Error as error:
            self.broken = self.broken or f"a transaction could not be undone: {error}"

    def _judge(self, error: Exception) -> SpoolError:
        if isinstance(error, sqlite3.Error) and is_full(error):
            full = SpoolFull(f"the database has no room: {error}")
            full.__cause__ = error
            return full
        self.broken = self.broken or f"the database could not commit: {error}"
        broken = SpoolBroken(self.broken)
        broken.__cause__ = error
        return broken

    def _checkpoint(self) -> None:
        """Move what was committed from the log into the database, now and then."""
        changes = self._connection.total_changes
        if self._commits < _COMMITS and changes - self._changes < _CHANGES:
            return
        self._commits, self._changes = 0, changes
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            if not is_full(error):  # without room the log grows on: nothing is lost
                self.broken = f"the database's log could not be moved: {error}"


_TEXT = partial(str, encoding="utf-8", errors="surrogateescape")  # a damaged row keeps us from no other
_ADVICE = "restore the folder, or move it aside to begin with an empty one; nothing was changed"


def _told(error: Exception) -> SpoolError:
    told = SpoolError(f"the database refused it: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.text_factory = _TEXT
    connection.create_function("casefold", 1, _casefold, deterministic=True)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()  # before anything is read: no shared memory then
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    refuse_version(path, version)
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise SpoolRefused((f"{path}: is damaged ({' '.join(found.split())}): {_ADVICE}",))
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        raise SpoolRefused((f"{path}: is the database of another program: move it aside",))
    for setting in _SETTINGS:
        connection.execute(setting).fetchall()
    if version == 0:
        _create(connection)


def refuse_version(path: Path, version: int) -> None:
    """Raise `SpoolRefused` if a newer version of ours wrote the database."""
    if not 0 <= version <= VERSION:
        text = (
            f"{path}: is of version {version}, and this release knows versions up to {VERSION}: install the newer one"
        )
        raise SpoolRefused((text,))


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    for statement in (*SCHEMA, f"PRAGMA user_version = {VERSION}"):
        connection.execute(statement)
    connection.execute("COMMIT")


def _casefold(text: object) -> str | None:
    return text.casefold() if isinstance(text, str) else None
