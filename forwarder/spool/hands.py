"""How work that blocks is run: beside the event loop in threads, or, where the order must be known, within it.

Contract: `file` work may run several at a time; `database` work runs one at a time and in the order in which it was
given. What the work raises is raised here. Work that was given is done, even if its caller is cancelled.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, Protocol, TypeVar

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

    def leave(self, work: Callable[[], None]) -> None:
        """Run work with files that nobody waits for, errors included. May be called from anywhere, at any time."""
        ...


@dataclass(slots=True)
class _Errand(Generic[T]):
    work: Callable[[], T]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"
    result: list[T] = field(default_factory=list)
    error: BaseException | None = None


class Threads:
    """A small pool for files and one thread for the database, for one event loop. `close` waits for what was begun.

    What is left (`leave`) has a thread and a queue of its own, since finalizers run in the middle of anything, also
    within the locks of a pool; of all ways to hand work over `SimpleQueue.put` alone may be called there.
    """

    def __init__(self, file_threads: int = _FILE_THREADS) -> None:
        self._files = ThreadPoolExecutor(file_threads, "spool-file")
        self._database = ThreadPoolExecutor(1, "spool-database")
        self._ending = Lock()
        self._ended: list[_Errand[Any]] = []
        self._left: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._leaving = Thread(target=self._work_off, name="spool-left", daemon=True)
        self._leaving.start()

    async def file(self, work: Callable[[], T]) -> T:
        """Run work with files."""
        return await self._run(self._files, work)

    async def database(self, work: Callable[[], T]) -> T:
        """Run work with the database."""
        return await self._run(self._database, work)

    def leave(self, work: Callable[[], None]) -> None:
        """Run work with files that nobody waits for, errors included. May be called from anywhere, at any time."""
        self._left.put(work)
        if self._closed:
            self._finish()

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Do as `run_in_executor` does, at less than half its cost; several that end together wake the loop once."""
        loop = asyncio.get_running_loop()
        errand = _Errand(work, loop, loop.create_future())
        pool.submit(self._do, errand)
        await errand.done
        if errand.error is not None:
            raise errand.error
        return errand.result[0]

    def _do(self, errand: "_Errand[T]") -> None:
        try:
            errand.result.append(errand.work())
        except BaseException as error:
            errand.error = error
        with self._ending:
            self._ended.append(errand)
            wake = len(self._ended) == 1
        if wake:
            errand.loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        with self._ending:
            ended, self._ended = self._ended, []
        for errand in ended:
            if not errand.done.done():  # whoever asked may be gone
                errand.done.set_result(None)

    def close(self) -> None:
        """End the threads."""
        self._files.shutdown()
        self._database.shutdown()
        self._left.put(None)
        self._leaving.join()
        self._closed = True
        self._finish()

    def _work_off(self) -> None:
        while (work := self._left.get()) is not None:
            _attempt(work)

    def _finish(self) -> None:
        """Do what was left when nobody was there to do it any more."""
        with suppress(Empty):
            while True:
                if (work := self._left.get_nowait()) is not None:
                    _attempt(work)


def _attempt(work: Callable[[], None]) -> None:
    with suppress(OSError):  # nobody could do anything about it
        work()


class Inline:
    """Runs everything at once, where it stands: for simulations, and where nobody else waits."""

    async def file(self, work: Callable[[], T]) -> T:
        """Run work with files."""
        return work()

    async def database(self, work: Callable[[], T]) -> T:
        """Run work with the database."""
        return work()

    def leave(self, work: Callable[[], None]) -> None:
        """Run work with files that nobody waits for, errors included. May be called from anywhere, at any time."""
        _attempt(work)
