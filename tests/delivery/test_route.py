"""Where mail is offered, as tables: a zone and what comes of it."""

import asyncio
import gc
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from forwarder.delivery.route import Router, Target, Unroutable, Way
from forwarder.delivery.settings import CourierSettings, IpPreference, Limits
from forwarder.model.address import parse_mailbox
from forwarder.model.destination import Destination, Hop
from forwarder.model.outcome import Verdict
from tests.fakes import FakeResolver

R, T = Verdict.REFUSED, Verdict.DEFERRED

SETTINGS = CourierSettings("us.test", own_addresses=frozenset({("192.0.2.99", 25), ("2001:db8::99", 25)}))

ZONE = {
    ("one.test", "MX"): ["10 mx.one.test"],
    ("mx.one.test", "A"): ["192.0.2.1"],
    ("mx.one.test", "AAAA"): ["2001:db8::1"],
    ("order.test", "MX"): ["30 c.test", "10 a.test", "20 b.test"],
    ("a.test", "A"): ["192.0.2.10"],
    ("b.test", "A"): ["192.0.2.11"],
    ("c.test", "A"): ["192.0.2.12"],
    ("implicit.test", "A"): ["192.0.2.20"],
    ("alias.test", "CNAME"): ["one.test"],
    ("empty.test", "TXT"): ["x"],
    ("null.test", "MX"): ["0 ."],
    ("half-null.test", "MX"): ["0 .", "10 a.test"],
    ("bare.test", "MX"): ["10 nowhere.test", "20 a.test"],
    ("hollow.test", "MX"): ["10 nowhere.test", "10 empty.test"],
    ("shaky.test", "MX"): ["10 broken.test"],
    ("half-shaky.test", "MX"): ["10 broken.test", "20 a.test"],
    ("ours.test", "MX"): ["10 us.test"],
    ("backup.test", "MX"): ["10 a.test", "20 us.test", "20 b.test", "30 c.test"],
    ("equal.test", "MX"): ["10 a.test", "10 us.test"],
    ("behind.test", "MX"): ["10 us.test", "20 a.test"],
    ("by-address.test", "MX"): ["10 other-name.test"],
    ("backup-by-address.test", "MX"): ["10 a.test", "20 other-name.test", "20 b.test"],
    ("other-name.test", "A"): ["192.0.2.99"],
    ("us.test", "A"): ["192.0.2.99"],
    ("own-implicit.test", "AAAA"): ["2001:db8::99"],
    ("many.test", "MX"): [f"{n} many{n}.test" for n in range(30)],
    **{(f"many{n}.test", "A"): [f"192.0.2.{n}" for n in range(100, 103)] for n in range(30)},
}
SILENCE = "the name server did not answer"
FAILING = frozenset({"broken.test", "silent.test"})


def destination(mailbox: str, via: Hop | None = None) -> Destination:
    return Destination(parse_mailbox(mailbox), via)


async def found(router: Router, where: Destination) -> list[str]:
    return [str(target) async for target in router.targets(router.way(where))]


def router(settings: CourierSettings = SETTINGS, zone: Mapping[tuple[str, str], list[str]] = ZONE) -> Router:
    return Router(settings, FakeResolver(zone, FAILING), random.Random(0))


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("one.test", ["mx.one.test[192.0.2.1]:25", "mx.one.test[2001:db8::1]:25"]),
        ("order.test", ["a.test[192.0.2.10]:25", "b.test[192.0.2.11]:25", "c.test[192.0.2.12]:25"]),
        ("implicit.test", ["implicit.test[192.0.2.20]:25"]),
        ("alias.test", ["mx.one.test[192.0.2.1]:25", "mx.one.test[2001:db8::1]:25"]),
        ("half-null.test", ["a.test[192.0.2.10]:25"]),
        ("bare.test", ["a.test[192.0.2.10]:25"]),
        ("half-shaky.test", ["a.test[192.0.2.10]:25"]),
        ("backup.test", ["a.test[192.0.2.10]:25"]),
        ("backup-by-address.test", ["a.test[192.0.2.10]:25"]),
        ("[192.0.2.7]", ["192.0.2.7[192.0.2.7]:25"]),
        ("[IPv6:2001:db8::7]", ["2001:db8::7[2001:db8::7]:25"]),
    ],
)
async def test_targets(domain: str, expected: list[str]) -> None:
    assert await found(router(), destination(f"a@{domain}")) == expected


@pytest.mark.parametrize(
    ("domain", "verdict", "reply"),
    [
        ("nowhere.test", R, "550 5.1.2 the domain nowhere.test does not exist"),
        ("null.test", R, "556 5.1.10 null.test takes no mail"),
        ("empty.test", R, "550 5.4.4 no mail host of empty.test has an address"),
        ("hollow.test", R, "550 5.4.4 no mail host of hollow.test has an address"),
        ("silent.test", T, f"451 4.4.3 the mail hosts of silent.test could not be looked up: {SILENCE}"),
        ("shaky.test", T, f"451 4.4.3 the mail hosts of shaky.test could not be looked up: broken.test: {SILENCE}"),
        ("ours.test", R, "554 5.4.6 the mail of ours.test comes to this gateway"),
        ("equal.test", R, "554 5.4.6 the mail of equal.test comes to this gateway"),
        ("behind.test", R, "554 5.4.6 the mail of behind.test comes to this gateway"),
        ("by-address.test", R, "554 5.4.6 the mail of by-address.test comes to this gateway"),
        ("own-implicit.test", R, "554 5.4.6 the mail of own-implicit.test comes to this gateway"),
        ("[192.0.2.99]", R, "554 5.4.6 the next hop [192.0.2.99] is this gateway"),
    ],
)
async def test_nobody_to_ask(domain: str, verdict: Verdict, reply: str) -> None:
    with pytest.raises(Unroutable) as caught:
        await found(router(), destination(f"a@{domain}"))
    assert (caught.value.outcome.verdict, str(caught.value.outcome.reply)) == (verdict, reply)
    assert not caught.value.outcome.remote


class TestExplicit:
    ROUTED = replace(SETTINGS, port=2525, routes={"one.test": Hop("192.0.2.50"), "order.test": Hop("a.test", 26)})

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (destination("a@one.test"), ["192.0.2.50[192.0.2.50]:2525"]),
            (destination("a@order.test"), ["a.test[192.0.2.10]:26"]),
            (destination("a@one.test", Hop("192.0.2.60", 27)), ["192.0.2.60[192.0.2.60]:27"]),
            (destination("a@nowhere.test", Hop("2001:db8::5")), ["2001:db8::5[2001:db8::5]:2525"]),
            (destination("a@implicit.test"), ["implicit.test[192.0.2.20]:2525"]),
        ],
    )
    async def test_comes_first(self, where: Destination, expected: list[str]) -> None:
        assert await found(router(self.ROUTED), where) == expected

    async def test_asks_for_no_mx(self) -> None:
        resolver = FakeResolver(ZONE)
        await found(Router(self.ROUTED, resolver, random.Random(0)), destination("a@order.test"))
        assert resolver.asked == [("a.test", "A"), ("a.test", "AAAA")]

    async def test_another_port_of_our_address_is_not_us(self) -> None:
        assert await found(router(), destination("a@x.test", Hop("192.0.2.99", 2525))) == [
            "192.0.2.99[192.0.2.99]:2525"
        ]

    @pytest.mark.parametrize("host", ["nowhere.test", "empty.test", "broken.test"])
    async def test_without_an_address_defers(self, host: str) -> None:
        with pytest.raises(Unroutable) as caught:
            await found(router(), destination("a@x.test", Hop(host)))
        assert (caught.value.outcome.verdict, caught.value.outcome.reply.enhanced) == (T, "4.4.4")


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        (IpPreference.PREFER_IPV4, ["192.0.2.1", "2001:db8::1"]),
        (IpPreference.PREFER_IPV6, ["2001:db8::1", "192.0.2.1"]),
        (IpPreference.IPV4, ["192.0.2.1"]),
        (IpPreference.IPV6, ["2001:db8::1"]),
    ],
)
async def test_kinds_of_address(preference: IpPreference, expected: list[str]) -> None:
    one = router(replace(SETTINGS, ip=preference))
    assert [target.address async for target in one.targets(Way("one.test"))] == expected


async def test_the_order_within_one_preference_is_random() -> None:
    zone = {**ZONE, ("same.test", "MX"): ["10 a.test", "10 b.test", "10 c.test", "5 mx.one.test"]}
    one = router(zone=zone)
    orders = [await found(one, destination("x@same.test")) for _ in range(50)]
    assert len({tuple(order) for order in orders}) == 6
    assert {order[0] for order in orders} == {"mx.one.test[192.0.2.1]:25"}


@pytest.mark.parametrize(("limits", "count"), [(Limits(), 8), (Limits(addresses=2), 2), (Limits(hosts=2), 6)])
async def test_not_everything_is_tried(limits: Limits, count: int) -> None:
    assert len(await found(router(replace(SETTINGS, limits=limits)), destination("x@many.test"))) == count


async def test_addresses_are_looked_up_as_they_are_needed() -> None:
    resolver = FakeResolver(ZONE)
    targets = Router(SETTINGS, resolver, random.Random(0)).targets(Way("order.test"))
    assert await anext(targets) == Target("a.test", "192.0.2.10", 25)
    assert [name for name, _ in resolver.asked] == ["order.test", "a.test", "a.test"]
    await targets.aclose()


@pytest.mark.parametrize("domain", ["order.test", "[192.0.2.7]"])
async def test_nothing_is_left_to_the_garbage_collector(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[object] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", lambda *work: left.append(work))
    one = router()
    targets = one.targets(one.way(destination(f"a@{domain}")))
    await anext(targets)
    await targets.aclose()
    del targets
    gc.collect()
    assert left == []


def test_ways_that_are_equal_go_together() -> None:
    one = router(TestExplicit.ROUTED)
    assert one.way(destination("a@x.test")) == one.way(destination("b@x.test")) == Way("x.test")
    assert one.way(destination("a@one.test")) == one.way(destination("b@y.test", Hop("192.0.2.50")))
    assert str(one.way(destination("a@one.test"))) == "[192.0.2.50]"
    assert str(Way("x.test")) == "x.test"
