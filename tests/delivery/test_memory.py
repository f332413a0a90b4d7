"""What is remembered of messages that were delivered in part."""

from dataclasses import replace

from forwarder.delivery.memory import Key, Memory, key_of
from forwarder.model.address import parse_mailbox
from forwarder.model.destination import Destination, Hop
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from tests.delivery.desk import message
from tests.fakes import FakeClock

DONE = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "taken"))
OTHER = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "taken by another"))


def key(number: int) -> Key:
    return Key(number.to_bytes(4, "big"))


def test_what_was_put_is_known_until_it_is_forgotten() -> None:
    memory = Memory(FakeClock())
    assert memory.get(key(1)) is None
    memory.put(key(1), DONE)
    assert (memory.get(key(1)), memory.get(key(2))) == (DONE, None)
    memory.forget(key(1))
    memory.forget(key(2))
    assert memory.get(key(1)) is None


def test_entries_grow_old() -> None:
    clock = FakeClock()
    memory = Memory(clock, seconds=100)
    memory.put(key(1), DONE)
    clock.advance(60)
    memory.put(key(2), DONE)
    clock.advance(40)
    assert (memory.get(key(1)), memory.get(key(2))) == (None, DONE)
    clock.advance(100)
    assert memory.get(key(2)) is None
    assert len(memory) == 0


def test_a_sender_that_retries_for_days_finds_its_entry_each_time() -> None:
    clock = FakeClock()
    memory = Memory(clock)
    memory.put(key(1), DONE)
    for hours in (12, 24, 48, 96, 119):
        clock.advance(hours * 3600)
        assert memory.get(key(1)) == DONE, hours
    clock.advance(5 * 86_400)
    assert memory.get(key(1)) is None


def test_what_is_used_again_is_the_youngest() -> None:
    clock = FakeClock()
    memory = Memory(clock, entries=2, seconds=100)
    memory.put(key(1), DONE)
    clock.advance(60)
    memory.put(key(2), DONE)
    memory.put(key(1), OTHER)
    clock.advance(60)
    memory.put(key(3), DONE)
    assert [memory.get(key(number)) for number in (1, 2, 3)] == [OTHER, None, DONE]


def test_the_age_can_be_changed() -> None:
    clock = FakeClock()
    memory = Memory(clock, seconds=100)
    memory.put(key(1), DONE)
    memory.put(key(2), DONE)
    clock.advance(60)
    memory.keep_for(1000)
    clock.advance(60)
    assert memory.get(key(1)) == DONE
    memory.keep_for(100)
    assert (memory.get(key(1)), memory.get(key(2))) == (DONE, None)


def test_the_oldest_goes_when_there_are_too_many() -> None:
    memory = Memory(FakeClock(), entries=3)
    for number in range(5):
        memory.put(key(number), DONE)
    assert [number for number in range(5) if memory.get(key(number))] == [2, 3, 4]
    assert len(memory) == 3


def test_the_id_and_our_headers_are_not_what_makes_a_message() -> None:
    one = message("me@inbox.test", head=b"Received: id 1\r\n")
    two = message("ME@inbox.test", head=b"Received: id 2\r\n", sender="other@srs.test")
    assert key_of(one, one.deliveries[0], b"d") == key_of(two, two.deliveries[0], b"d")


def test_whatever_else_differs_makes_another() -> None:
    one = message("me@inbox.test")
    delivery = one.deliveries[0]
    other = parse_mailbox("other@inbox.test")
    keys = [
        key_of(one, delivery, b"d"),
        key_of(one, delivery, b"e"),
        key_of(replace(one, original_sender=None), delivery, b"d"),
        key_of(replace(one, original_sender=other), delivery, b"d"),
        key_of(one, replace(delivery, recipient=other), b"d"),
        key_of(one, replace(delivery, destination=Destination(other)), b"d"),
        key_of(one, replace(delivery, destination=Destination(delivery.destination.address, Hop("192.0.2.1"))), b"d"),
    ]
    assert len(set(keys)) == len(keys)
