"""A disk on which the process dies: SIGKILL to itself at the N-th operation, before it or after it.

The statements given to SQLite count as operations too; what it does within one is left to kills from outside.
"""

import itertools
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forwarder.spool.disk import RealDisk

NEVER = -1
_OPERATIONS = (
    *("create", "open", "write", "read", "allocate", "sync", "close", "open_folder", "make_folder", "rename"),
    *("unlink", "truncate", "scan", "status", "open_status", "space", "lock"),
)


@dataclass(frozen=True, slots=True)
class Doom:
    """When to die: at the operation of that number, counted from 0, before or `after` it is done.

    Only operations whose name begins with `what` are counted.
    """

    at: int = NEVER
    after: bool = False
    what: str = ""


IMMORTAL = Doom()


class DeadlyDisk(RealDisk):
    """See the module. `dying` is told the operation's name just before."""

    def __init__(self, doom: Doom, dying: Callable[[str], None]) -> None:
        self._doom = doom
        self._dying = dying
        self._numbers = itertools.count()  # shared by all threads: `next` of it is one step

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Do one operation, if it comes to that."""
        number = next(self._numbers) if name.startswith(self._doom.what) else NEVER - 1
        if number == self._doom.at and not self._doom.after:
            self._die(f"before {name}")
        done = work()
        if number == self._doom.at:
            self._die(f"after {name}")
        return done

    def _die(self, what: str) -> None:
        self._dying(what)
        os.kill(os.getpid(), signal.SIGKILL)

    def connect(self, path: Path) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                name = sql.split(maxsplit=1)[0].lower()
                done: sqlite3.Cursor = disk.step(name, lambda: super(Connection, self).execute(sql, *arguments))
                return done

        uri = f"{path.as_uri()}?mode=rw"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=Connection)


def _counted(name: str) -> Callable[..., Any]:
    original = getattr(RealDisk, name)

    def operation(self: DeadlyDisk, *arguments: Any) -> Any:
        what = f"{name} {_place(arguments)}".strip()
        return self.step(what, lambda: original(self, *arguments))

    return operation


def _place(arguments: tuple[Any, ...]) -> str:
    """Name the folder that an operation is about, for the tally."""
    path = arguments[-1] if arguments and isinstance(arguments[-1], Path) else None
    if path is None:
        return ""
    return path.parent.name if path.parent.name in ("messages", "incoming") else path.name


for _name in _OPERATIONS:
    setattr(DeadlyDisk, _name, _counted(_name))
