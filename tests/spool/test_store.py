"""`EmbeddedSpool`: what is stored is there, whole, until it is done with."""

import asyncio
import gc
import hashlib
import random
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.delivery.lanes import waiting_of
from forwarder.model.address import Address
from forwarder.model.destination import Destination, Hop
from forwarder.model.letter import Change, Kind, Letter, Part, Progress, Query, State
from forwarder.model.message import Delivery, MemoryContent, StrippedContent
from forwarder.ports import SpoolError
from forwarder.spool import store
from forwarder.spool.files import FiledContent
from forwarder.spool.hands import Inline
from tests.fakes import RecordingLog
from tests.spool.material import (
    DELIVERED,
    HELD,
    NOW,
    QUEUED,
    comparable,
    letter,
    letters,
    names,
    number,
    octets,
    opened,
    part,
)


@settings(max_examples=60)
@given(one=letters())
def test_any_letter_survives_a_restart(one: Letter) -> None:
    """Invariant: what was stored is fetched equal after closing and opening, and found equal."""

    async def scene(folder: Path) -> None:
        spool = await opened(folder)
        await spool.store([one])
        await spool.close()
        spool = await opened(folder)
        fetched = await spool.fetch(one.message.id)
        assert fetched is not None
        assert comparable(fetched) == comparable(one)
        assert [comparable(found) for found in await spool.find(Query())] == [comparable(one)]
        queued = [p for p in one.progress if p.state is State.QUEUED]
        assert [waiting.progress for waiting in await spool.waiting()] == queued
        await spool.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scene(Path(folder)))


async def test_a_letter_ends_when_all_its_parts_are_final(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1, parts=2)])
    await spool.store([], [Change(part(1, 0), DELIVERED)])
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert kept.progress == (DELIVERED, QUEUED)
    await spool.store([], [Change(part(1, 1), Progress(State.BOUNCED))])
    assert await spool.fetch(number(1)) is None
    assert await spool.find(Query()) == []
    assert names(tmp_path, "messages") == set()
    await spool.close()


async def test_a_letter_that_is_done_with_when_it_comes_is_not_kept(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    content = await spool.files.write(number(1), MemoryContent(b"x"))
    await spool.store([letter(1, content, progress=(DELIVERED,)), letter(2, progress=(DELIVERED,))])
    assert names(tmp_path, "messages") == set()
    assert await spool.find(Query()) == []
    await spool.close()


async def test_new_letters_and_changes_are_one_step(tmp_path: Path) -> None:
    """A bounce and that its letter was bounced: neither without the other."""
    spool = await opened(tmp_path)
    await spool.store([letter(1)])
    with pytest.raises(SpoolError, match="no part 7"):
        await spool.store([letter(2)], [Change(part(1), DELIVERED), Change(part(1, 7), DELIVERED)])
    assert await spool.fetch(number(2)) is None
    assert names(tmp_path, "messages") == {number(1)}
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert kept.progress == (QUEUED,)
    await spool.store([letter(2)], [Change(part(1), DELIVERED)])
    assert [one.message.id for one in await spool.find(Query())] == [number(2)]
    await spool.close()


async def test_a_bad_request_fails_alone_in_its_group(tmp_path: Path) -> None:
    """Threads: all five wait for one commit, in which one of them cannot be written."""
    spool = await opened(tmp_path, hands=None)
    bad = replace(letter(3), author="\ud800")
    several = [letter(1), letter(2), bad, letter(4), letter(5)]
    results = await asyncio.gather(*(spool.store([one]) for one in several), return_exceptions=True)
    assert [isinstance(result, SpoolError) for result in results] == [False, False, True, False, False]
    assert [one.message.id for one in await spool.find(Query())] == [number(n) for n in (1, 2, 4, 5)]
    assert names(tmp_path, "messages") == {number(n) for n in (1, 2, 4, 5)}
    await spool.close()


async def test_what_waits_together_is_committed_together(tmp_path: Path) -> None:
    spool = await opened(tmp_path, hands=None)
    commits: list[str] = []
    connection = spool._database._connection
    connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    hands = spool._hands
    block = threading.Event()
    waiter = asyncio.ensure_future(hands.database(block.wait))
    stores = [asyncio.ensure_future(spool.remember({b"%d" % n: b"1"})) for n in range(40)]
    for _ in range(5):
        await asyncio.sleep(0)
    block.set()
    await waiter
    await asyncio.gather(*stores)
    assert len(commits) == 1
    assert len(await spool.memories()) == 40
    await spool.close()


async def test_an_id_is_taken_once(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1, b"first")])
    for again in ([letter(1, b"second")], [letter(2), letter(1, b"second")], [letter(3), letter(3)]):
        with pytest.raises(SpoolError):
            await spool.store(again)
    adopted = spool.files.adopt(number(1), 5, hashlib.sha256(b"first").digest(), False)
    with pytest.raises(SpoolError, match="already"):
        await spool.store([letter(1, adopted)])
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert octets(kept.message.content) == b"first"
    assert names(tmp_path, "messages") == {number(1)}
    await spool.close()


@pytest.mark.parametrize("id", ["", "../../etc/passwd", "0" * 15, "0" * 17, "0000000000000O00", "000000000000000a"])
async def test_what_is_no_id_is_refused(tmp_path: Path, id: str) -> None:
    spool = await opened(tmp_path)
    bad = replace(letter(1), message=replace(letter(1).message, id=id))
    for call in (spool.fetch(id), spool.store([bad]), spool.files.write(id, MemoryContent(b""))):
        with pytest.raises(SpoolError, match="is not an id"):
            await call
    await spool.close()


async def test_the_digest_is_that_of_what_is_stored(tmp_path: Path) -> None:
    """`StrippedContent` names the digest of something else."""
    spool = await opened(tmp_path)
    await spool.store([letter(1, StrippedContent(MemoryContent(b"A: forged\r\nB: b\r\n"), [(0, 11)]))])
    kept = await spool.fetch(number(1))
    assert kept is not None
    assert kept.message.content.digest == hashlib.sha256(b"B: b\r\n").digest()
    assert octets(kept.message.content) == b"B: b\r\n"
    await spool.close()


async def test_a_file_that_a_worker_wrote_is_taken_as_it_is(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    content = await spool.files.write(number(1), MemoryContent(b"octets"))
    before = (tmp_path / "spool" / "messages" / number(1)).stat().st_ino
    adopted = spool.files.adopt(number(1), content.size, content.digest, content.eight_bit)
    await spool.store([letter(1, adopted)])
    assert (tmp_path / "spool" / "messages" / number(1)).stat().st_ino == before
    for lie in (spool.files.adopt(number(2), 6, content.digest, False), _short(await _written(spool, 3))):
        with pytest.raises(SpoolError, match="message file"):
            await spool.store([letter(2 if lie.path.name == number(2) else 3, lie)])
    await spool.close()


async def _written(spool: object, n: int) -> FiledContent:
    return await spool.files.write(number(n), MemoryContent(b"octets"))  # type: ignore[attr-defined,no-any-return]


def _short(content: FiledContent) -> FiledContent:
    return FiledContent(content._disk, Inline(), content.path, content.size + 1, content.digest, eight_bit=False)


async def test_a_part_is_leased_to_one(tmp_path: Path) -> None:
    spool = await opened(tmp_path, hands=None)
    await spool.store([letter(1, parts=3)])
    await spool.store([], [Change(part(1, 2), HELD)])
    wanted = [part(1, 0), part(1, 1), part(1, 2), part(1, 9), part(2)]
    both = await asyncio.gather(spool.lease(wanted), spool.lease(wanted))
    assert sorted(one.number for given in both for one in given) == [0, 1]
    assert await spool.lease(wanted) == []
    await spool.give_back([part(1, 0)])
    assert await spool.lease(wanted) == [part(1, 0)]
    await spool.store([], [Change(part(1, 1), replace(QUEUED, attempts=1))])
    assert await spool.lease(wanted) == [part(1, 1)]
    await spool.close()
    spool = await opened(tmp_path)
    assert await spool.lease(wanted) == [part(1, 0), part(1, 1)]
    await spool.close()


async def test_waiting_tells_the_lane(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    via = Destination(Address("me", "corp.example"), Hop("192.0.2.7", 25))
    deliveries = (letter(1).message.deliveries[0], Delivery(Address("a", "b.example"), via, b""))
    message = replace(letter(1).message, deliveries=deliveries, authenticated=True)
    await spool.store([replace(letter(1), message=message, progress=(QUEUED, QUEUED)), letter(2)])
    assert [(one.part, one.lane, one.trusted) for one in await spool.waiting()] == [
        (part(1, 0), "gmail.example", True),
        (part(1, 1), "[192.0.2.7]:25", True),
        (part(2), "gmail.example", False),
    ]
    await spool.close()


@pytest.mark.parametrize("kind", Kind)
async def test_a_restart_puts_letters_into_the_same_lanes(tmp_path: Path, kind: Kind) -> None:
    spool = await opened(tmp_path)
    one = replace(letter(1, parts=2), kind=kind)
    await spool.store([one])
    assert [waiting.lane for waiting in await spool.waiting()] == [waiting_of(one, n).lane for n in range(2)]
    await spool.close()


@pytest.mark.parametrize("slice", [1, 2, 3, 7, 100])
async def test_waiting_is_whole_however_it_is_sliced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice: int
) -> None:
    monkeypatch.setattr(store, "_PARTS", slice)
    spool = await opened(tmp_path)
    await spool.store([letter(n, parts=3) for n in range(5)])
    await spool.store([], [Change(part(2, 1), HELD)])
    found = [one.part for one in await spool.waiting()]
    assert found == [part(n, index) for n in range(5) for index in range(3) if (n, index) != (2, 1)]
    assert gc.isenabled()
    await spool.close()


@pytest.mark.parametrize("slice", [1, 2, 7])
@pytest.mark.parametrize("key", ["5", "x'ff'", "CAST(x'ff' AS TEXT)", "CAST(x'30ff' AS TEXT)"])
async def test_keys_that_were_spoilt_do_not_end_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice: int, key: str
) -> None:
    """They come before, between or after the others, where no slice can go on from them."""
    monkeypatch.setattr(store, "_PARTS", slice)
    spool = await opened(tmp_path)
    await spool.store([letter(n, parts=3) for n in range(3)])
    statement = f"UPDATE parts SET letter = {key} WHERE letter = ?"
    spool._database._connection.execute(statement, (number(1),))
    found = [one.part for one in await spool.waiting()]
    assert found == [part(n, index) for n in (0, 2) for index in range(3)]
    assert len(names(tmp_path, "quarantine")) == 1
    await spool.close()


async def test_memory_survives(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.remember({b"a": b"1", b"b": b"2", b"\0\xff": b"\0"})
    await spool.remember({b"a": b"", b"b": b"3", b"never": b""})
    await spool.close()
    spool = await opened(tmp_path)
    assert await spool.memories() == {b"b": b"3", b"\0\xff": b"\0"}
    await spool.close()


FOUND = [
    (Query(), [1, 2, 3]),
    (Query(limit=2), [1, 2]),
    (Query(ids=(number(2),)), [2]),
    (Query(ids=(number(2).lower(), number(3))), [2, 3]),
    (Query(ids=(number(1)[:12], number(2))), [1, 2, 3]),
    (Query(ids=("Z",)), []),
    (Query(to="SHOP@Example.org"), [1]),
    (Query(to='"odd one"@b.example'), [2]),
    (Query(to="me@GMAIL.example"), [1, 3]),
    (Query(domain="b.EXAMPLE"), [2]),
    (Query(domain="xample"), []),
    (Query(domain="gmail.example", states=frozenset({State.HELD})), [3]),
    (Query(states=frozenset({State.QUEUED})), [1, 2]),
    (Query(ids=(number(1)[:12],), states=frozenset({State.HELD})), [3]),
    (Query(sender="ÄRGER@a.example"), [2]),
    (Query(sender="<>"), [3]),
    (Query(sender="shop@example.org", to="me@gmail.example"), [1]),
    (Query(to="%@gmail.example"), []),
]


@pytest.mark.parametrize(("query", "expected"), FOUND, ids=[str(number) for number in range(len(FOUND))])
async def test_letters_are_found(tmp_path: Path, query: Query, expected: list[int]) -> None:
    spool = await opened(tmp_path)
    second = replace(
        letter(2).message,
        original_sender=Address("ärger", "a.example"),
        deliveries=(Delivery(Address("odd one", "b.example"), Destination(Address("x", "c.example")), b""),),
    )
    other = Delivery(Address("y", "d.example"), Destination(Address("me", "gmail.example")), b"")
    third = replace(letter(3).message, original_sender=None, deliveries=(other,))
    await spool.store([replace(letter(3), message=third, progress=(HELD,))])
    await spool.store([letter(1), replace(letter(2), message=second)])
    assert [one.message.id for one in await spool.find(query)] == [number(n) for n in expected]
    assert await spool.ids(query) == [number(n) for n in expected]
    await spool.close()


async def test_many_ids_can_be_asked_for(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(n) for n in range(250)])
    found = await spool.find(Query(ids=(*map(number, range(100_000, 140_000)), number(7))))
    assert [one.message.id for one in found] == [number(7)]
    assert len(await spool.find(Query())) == 250
    await spool.close()


async def test_a_store_goes_on_when_its_caller_is_gone(tmp_path: Path) -> None:
    spool = await opened(tmp_path, hands=None)
    task = asyncio.ensure_future(spool.store([letter(1)]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await spool.close()
    spool = await opened(tmp_path)
    assert await spool.fetch(number(1)) is not None
    await spool.close()


async def test_after_closing_nothing_is_done(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.close()
    await spool.close()
    for call in (spool.store([letter(1)]), spool.waiting(), spool.fetch(number(1))):
        with pytest.raises(SpoolError, match="closed"):
            await call
    assert names(tmp_path, "messages") == set()


async def test_everything_is_private(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1)])
    folder = tmp_path / "spool"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}
    assert modes.pop("spool") == 0o700
    folders = {modes.pop(name) for name in ("messages", "incoming", "quarantine")}
    assert folders == {0o700}
    assert set(modes.values()) == {0o600}
    assert {"lock", "queue.db", "queue.db-wal", "ballast", number(1)} == set(modes)
    await spool.close()


_STEPS = st.lists(st.tuples(st.sampled_from("scccrlgo"), st.integers(0, 2**32)), max_size=40)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_STEPS)
def test_any_sequence_agrees_with_a_dictionary(steps: list[tuple[str, int]]) -> None:
    """Invariant: after any calls, closings included, the spool holds what a plain dictionary holds."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_play(Path(folder), steps))


async def _play(folder: Path, steps: list[tuple[str, int]]) -> None:
    spool = await opened(folder)
    model: dict[str, list[Progress]] = {}
    leased: set[Part] = set()
    for count, (step, seed) in enumerate(steps):
        dice = random.Random(seed)
        parts = [Part(id, n) for id, several in model.items() for n in range(len(several))]
        some = dice.sample(parts, min(len(parts), 3))
        if step == "s":
            size = dice.randint(1, 3)
            await spool.store([letter(count, b"%d" % count, size)])
            model[number(count)] = [QUEUED] * size
        elif step == "c":
            changes = [Change(one, Progress(dice.choice(list(State)), NOW, seed % 100)) for one in some]
            await spool.store([], changes)
            for change in changes:
                model[change.part.id][change.part.number] = change.progress
            leased.difference_update(some)
            for id in {change.part.id for change in changes}:
                if all(progress.state.final for progress in model[id]):
                    del model[id]
        elif step == "l":
            free = {one for one in some if one not in leased and model[one.id][one.number].state is State.QUEUED}
            assert set(await spool.lease(some)) == free
            leased |= free
        elif step == "g":
            await spool.give_back(some)
            leased.difference_update(some)
        elif step == "o":
            await spool.close()
            spool = await opened(folder, log := RecordingLog())
            assert log.events == []
            leased.clear()
    found = {one.message.id: list(one.progress) for one in await spool.find(Query())}
    assert found == model
    assert names(folder, "messages") == set(model)
    for id in model:
        fetched = await spool.fetch(id)
        assert fetched is not None
        assert number(int(octets(fetched.message.content))) == id
    await spool.close()
