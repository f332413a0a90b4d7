"""What was handed on though its sender does not know survives a restart, and clocks that jump."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.delivery.ledger import LocalLedger, _decoded
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from tests.delivery.memory_spool import MemorySpool
from tests.fakes import FakeClock, RecordingLog

DONE = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "taken"), "mx.test[192.0.2.1]:25", remote=True, tls="TLSv1.3")
A, B = b"a" * 32, b"b" * 32


async def reopened(spool: MemorySpool, clock: FakeClock) -> LocalLedger:
    ledger = LocalLedger(clock, RecordingLog(), spool)
    await ledger.load()
    return ledger


async def test_what_was_remembered_is_known_after_a_restart_until_it_is_forgotten() -> None:
    spool, clock = MemorySpool(), FakeClock()
    ledger = await reopened(spool, clock)
    await ledger.remember({A: DONE})
    ledger = await reopened(spool, clock)
    assert await ledger.recall([A, B]) == [DONE, None]
    await ledger.forget([A, B])
    assert await ledger.recall([A]) == [None]
    assert await (await reopened(spool, clock)).recall([A]) == [None]


@pytest.mark.parametrize("jump", [timedelta(days=3650), timedelta(days=-1), timedelta(days=6)])
async def test_a_clock_that_jumps_forgets_nothing(jump: timedelta) -> None:
    spool, clock = MemorySpool(), FakeClock()
    await (await reopened(spool, clock)).remember({A: DONE})
    clock.time += jump
    assert await (await reopened(spool, clock)).recall([A]) == [DONE]


async def test_an_attempt_of_another_process_is_running_until_it_has_ended() -> None:
    ledger = LocalLedger(FakeClock(), RecordingLog())
    ledger.running([A])
    ledger.running([A])
    ledger.ended([A])
    (outcome,) = await ledger.recall([A])
    assert outcome is not None
    assert outcome.verdict is Verdict.RUNNING
    ledger.ended([A])
    ledger.ended([A])
    assert await ledger.recall([A]) == [None]


async def test_strikes_are_counted_for_some_hours() -> None:
    clock = FakeClock()
    ledger = LocalLedger(clock, RecordingLog())
    assert [await ledger.strike(A) for _ in range(3)] == [1, 2, 3]
    assert await ledger.strike(B) == 1
    clock.advance(14_401)
    assert await ledger.strike(A) == 1


async def test_a_disk_that_fails_is_told_and_memory_goes_on() -> None:
    spool, log = MemorySpool(), RecordingLog()
    ledger = LocalLedger(FakeClock(), log, spool)
    spool.fail("remember")
    await ledger.remember({A: DONE})
    assert await ledger.recall([A]) == [DONE]
    assert "not on disk" in str(log.named("alert")[0]["text"])


@given(st.binary())
def test_whatever_the_disk_holds_is_an_entry_or_nothing(octets: bytes) -> None:
    entry = _decoded(octets)
    assert entry is None or isinstance(entry.at, float)


async def test_what_is_no_entry_is_dropped() -> None:
    spool, clock = MemorySpool(), FakeClock()
    await spool.remember({b"handed-on:" + A: b"\xc1", b"pacing": b"kept"})
    await reopened(spool, clock)
    assert await spool.memories() == {b"pacing": b"kept"}
