"""Which connections are used again, and who waits."""

from hypothesis import given
from hypothesis import strategies as st

from forwarder.delivery.pool import Pool, PoolKey, Slots, Use
from forwarder.delivery.settings import Limits
from forwarder.smtp.client import TlsUse

KEY = PoolKey("192.0.2.1", 25, TlsUse.OPPORTUNISTIC, None)
LIMITS = Limits(per_destination=2, messages=3, idle=10, age=60)


def test_the_one_used_last_is_taken_first() -> None:
    pool: Pool[str] = Pool(LIMITS)
    assert pool.take(KEY, 0) is None
    assert pool.put(KEY, "a", Use(0), 1) == []
    assert pool.put(KEY, "b", Use(0, 2), 2) == []
    assert pool.take(KEY, 3) == ("b", Use(0, 2))
    assert pool.take(KEY, 3) == ("a", Use(0))
    assert (pool.take(KEY, 3), len(pool)) == (None, 0)


def test_only_the_same_key_will_do() -> None:
    pool: Pool[str] = Pool(LIMITS)
    pool.put(KEY, "a", Use(0), 0)
    for other in (
        PoolKey("192.0.2.2", 25, KEY.tls, None),
        PoolKey(KEY.address, 26, KEY.tls, None),
        PoolKey(KEY.address, 25, TlsUse.REQUIRE, None),
        PoolKey(KEY.address, 25, KEY.tls, "192.0.2.9"),
    ):
        assert pool.take(other, 0) is None
    assert pool.take(KEY, 0) is not None


def test_enough_messages() -> None:
    pool: Pool[str] = Pool(LIMITS)
    assert pool.put(KEY, "a", Use(0).once_more().once_more().once_more(), 0) == ["a"]
    assert len(pool) == 0


def test_too_long_idle() -> None:
    pool: Pool[str] = Pool(LIMITS)
    pool.put(KEY, "a", Use(0), 0)
    assert pool.expired(9.9) == []
    assert pool.take(KEY, 10) is None
    assert pool.expired(10) == ["a"]
    assert len(pool) == 0


def test_too_old() -> None:
    pool: Pool[str] = Pool(LIMITS)
    assert pool.put(KEY, "a", Use(0), 60) == ["a"]
    pool.put(KEY, "a", Use(0), 55)
    assert pool.expired(60) == ["a"]


def test_too_many() -> None:
    pool: Pool[str] = Pool(LIMITS)
    assert [pool.put(KEY, name, Use(0), 0) for name in "abc"] == [[], [], ["a"]]
    assert sorted(pool.clear()) == ["b", "c"]
    assert len(pool) == 0


def test_too_many_in_all() -> None:
    pool: Pool[int] = Pool(Limits(connections=3))
    keys = [PoolKey(f"192.0.2.{n}", 25, TlsUse.NEVER, None) for n in range(5)]
    assert [pool.put(key, n, Use(0), n) for n, key in enumerate(keys)] == [[], [], [], [0], [1]]
    assert len(pool) == 3


def test_slots_are_counted_for_each_key() -> None:
    slots: Slots[str] = Slots(2)
    assert [slots.take("x"), slots.take("x"), slots.take("x"), slots.take("y")] == [True, True, False, True]
    slots.wait("x", "first")
    slots.wait("x", "second")
    assert slots.free("x") == "first"
    assert slots.leave("x", "second")
    assert not slots.leave("x", "first")
    assert slots.free("x") is None
    assert slots.take("x")


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from(["enter", "exit", "leave"])), max_size=60))
def test_slots_are_never_exceeded_nor_lost(steps: list[tuple[str, str]]) -> None:
    slots: Slots[int] = Slots(2)
    inside = {"x": 0, "y": 0}
    waiting: dict[str, list[int]] = {"x": [], "y": []}
    for number, (key, step) in enumerate(steps):
        if step == "enter":
            if slots.take(key):
                inside[key] += 1
            else:
                slots.wait(key, number)
                waiting[key].append(number)
        elif step == "leave" and waiting[key]:
            assert slots.leave(key, waiting[key].pop())
        elif step == "exit" and inside[key]:
            next_one = slots.free(key)
            assert next_one == (waiting[key].pop(0) if waiting[key] else None)
            inside[key] -= next_one is None
        assert 0 <= inside[key] <= 2
        assert not waiting[key] or inside[key] == 2
