"""How work that blocks is run: beside the event loop in threads, or, where the order must be known, within it.

Contract: `file` work may run several at a time; `database` work runs one at a time and in the order in which it was
given. What the work raises is raised here.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")

_FILE_THREADS = 16  # they wait for the disk, which takes several fsyncs in one go


class Hands(Protocol):
    """Runs blocking work."""

    async def file(self, work: Callable[[], T]) -> T:
        """Run work with files."""
        ...

    async def database(self, work: Callable[[], T]) -> T:
        """Run work with the database."""
        ...


class Threads:
    """A small pool for files and one thread for the database. `close` waits for what was begun."""

    def __init__(self, file_threads: int = _FILE_THREADS) -> None:
        self._files = ThreadPoolExecutor(file_threads, "spool-file")
        self._database = ThreadPoolExecutor(1, "spool-database")

    async def file(self, work: Callable[[], T]) -> T:
        """Run work with files."""
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    async def database(self, work: Callable[[], T]) -> T:
        """Run work with the database."""
        return await asyncio.get_running_loop().run_in_executor(self._database, work)

    def close(self) -> None:
        """End the threads."""
        self._files.shutdown()
        self._database.shutdown()


class Inline:
    """Runs everything at once, where it stands: for simulations, and where nobody else waits."""

    async def file(self, work: Callable[[], T]) -> T:
        """Run work with files."""
        return work()

    async def database(self, work: Callable[[], T]) -> T:
        """Run work with the database."""
        return work()
