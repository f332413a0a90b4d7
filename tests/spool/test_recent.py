"""What was stored a moment ago needs no reading back, and is never other than what the database holds."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.model.letter import Change, Query, State
from forwarder.ports import Damaged, SpoolError
from forwarder.spool import fresh
from tests.spool.material import (
    DELIVERED,
    HELD,
    QUEUED,
    DatabaseDisk,
    FailingDisk,
    comparable,
    letter,
    names,
    number,
    opened,
    part,
)


async def test_it_is_what_a_reading_gives_and_given_once(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1, parts=2)])
    recent = spool.recent(number(1))
    fetched = await spool.fetch(number(1))
    assert recent is not None
    assert fetched is not None
    assert comparable(recent) == comparable(fetched)
    assert b"".join(recent.message.content.chunks()) == b"".join(fetched.message.content.chunks())
    assert spool.recent(number(1)) is None
    await spool.close()


async def test_what_was_in_memory_needs_no_file(tmp_path: Path) -> None:
    disk = FailingDisk()
    spool = await opened(tmp_path, disk=disk)
    await spool.store([letter(1, b"Subject: x\r\n\r\nbody\r\n")])
    disk.steps.clear()
    recent = spool.recent(number(1))
    assert recent is not None
    assert b"".join(recent.message.content.chunks()) == b"Subject: x\r\n\r\nbody\r\n"
    assert disk.steps == []
    await spool.close()


async def test_what_has_changed_is_read_again(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1, parts=2), letter(2)])
    await spool.store([], [Change(part(1), HELD)])
    assert spool.recent(number(1)) is None
    assert spool.recent(number(2)) is not None
    assert await spool.lease([part(1), part(1, 1)]) == [part(1, 1)]
    await spool.close()


async def test_a_change_that_is_under_way_is_seen(tmp_path: Path) -> None:
    """Who asks after a change was given, asks after it."""
    spool = await opened(tmp_path)
    await spool.store([letter(1)])
    changing = asyncio.create_task(spool.store([], [Change(part(1), HELD)]))
    await asyncio.sleep(0)
    assert spool.recent(number(1)) is None
    await changing
    assert await spool.lease([part(1)]) == []
    await spool.close()


@pytest.mark.parametrize("seen_by", ["fetch", "find", "waiting"])
async def test_what_is_in_quarantine_is_not_there(tmp_path: Path, seen_by: str) -> None:
    disk = DatabaseDisk()
    spool = await opened(tmp_path, disk=disk)
    await spool.store([letter(1)])
    if seen_by == "fetch":
        (tmp_path / "spool" / "messages" / number(1)).write_bytes(b"spoilt")
        with pytest.raises(Damaged):
            await spool.fetch(number(1))
    else:
        disk.connection.execute("UPDATE parts SET progress_checksum = 0")
        assert await (spool.find(Query()) if seen_by == "find" else spool.waiting()) == []
    assert number(1) in names(tmp_path, "quarantine")
    assert spool.recent(number(1)) is None
    assert await spool.lease([part(1)]) == []
    with pytest.raises(Damaged):
        await spool.store([], [Change(part(1), DELIVERED)])
    await spool.close()


async def test_what_failed_is_not_there(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1)])
    with pytest.raises(SpoolError):
        await spool.store([letter(2)], [Change(part(3), DELIVERED)])
    assert spool.recent(number(2)) is None
    await spool.close()
    assert spool.recent(number(1)) is None


async def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "_LETTERS", 2)
    spool = await opened(tmp_path)
    for n in range(1, 4):
        await spool.store([letter(n)])
    await spool.store([letter(4, parts=fresh._PARTS + 1)])
    assert [n for n in range(1, 5) if spool.recent(number(n))] == [2, 3]
    monkeypatch.setattr(fresh, "_OCTETS", 100)
    for n, size in ((5, 60), (6, 60), (7, 40), (8, 101)):
        await spool.store([letter(n, b"x" * size)])
        if n == 7:
            assert [n for n in range(5, 8) if spool.recent(number(n))] == [6, 7]
    assert spool.recent(number(8)) is None
    await spool.close()


_STEPS = st.tuples(st.sampled_from(("lease", "give back", "hold", "queue", "deliver", "recent")), st.integers(0, 2))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(_STEPS, max_size=14))
def test_leases_go_by_what_the_database_holds(steps: list[tuple[str, int]]) -> None:
    """Invariant: a part is leased if and only if it is QUEUED and nobody has it, whatever came before."""

    async def scene(folder: Path) -> None:
        spool = await opened(folder)
        await spool.store([letter(1, parts=3)])
        states, leased = [State.QUEUED] * 3, set[int]()
        for what, n in steps:
            if what == "lease":
                free = states[n] is State.QUEUED and n not in leased
                assert await spool.lease([part(1, n)]) == ([part(1, n)] if free else [])
                leased |= {n} if free else set()
            elif what == "give back":
                await spool.give_back([part(1, n)])
                leased.discard(n)
            elif what == "recent":
                recent = spool.recent(number(1))
                assert recent is None or [one.state for one in recent.progress] == states
            elif any(not state.final for m, state in enumerate(states) if m != n):  # the letter stays
                progress = {"hold": HELD, "queue": QUEUED, "deliver": DELIVERED}[what]
                await spool.store([], [Change(part(1, n), progress)])
                states[n] = progress.state
                leased.discard(n)
        await spool.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scene(Path(folder)))
