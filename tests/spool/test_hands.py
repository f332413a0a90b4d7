"""Work that blocks: what is left to be done may come from anywhere."""

import gc
from concurrent.futures import thread
from threading import Event
from typing import Any

import pytest

from forwarder.spool.hands import Threads


class Litter:
    """Part of a cycle, so that only the garbage collector takes it away, wherever that happens to run."""

    def __init__(self, hands: Threads, done: list[int]) -> None:
        self.itself, self.hands, self.done = self, hands, done

    def __del__(self) -> None:
        self.hands.leave(lambda: self.done.append(1))


class Collecting(thread._WorkItem[None]):  # made within the locks of a pool
    def __init__(self, *arguments: Any) -> None:
        gc.collect()
        super().__init__(*arguments)


@pytest.mark.timeout(60)
async def test_finalizers_leave_work_in_the_middle_of_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "_WorkItem", Collecting)
    hands, done = Threads(2), list[int]()
    for _ in range(3):
        Litter(hands, done)
        await hands.file(lambda: None)
    hands.close()
    assert done == [1, 1, 1]


async def test_what_is_left_does_not_hold_the_loop_up() -> None:
    hands, go_on, done = Threads(), Event(), list[int]()
    hands.leave(lambda: done.append(int(go_on.wait(60))))
    assert done == []
    assert await hands.file(lambda: 7) == 7
    go_on.set()
    hands.close()
    assert done == [1]


def test_what_is_left_after_the_end_is_done_at_once() -> None:
    hands, done = Threads(), list[int]()
    hands.close()
    hands.leave(lambda: done.append(1))
    assert done == [1]


def test_an_error_in_what_is_left_stops_nothing() -> None:
    hands, done = Threads(), list[int]()

    def fail() -> None:
        raise OSError(5, "Input/output error")

    for work in (fail, lambda: done.append(1), fail):
        hands.leave(work)
    hands.close()
    hands.leave(fail)
    assert done == [1]
