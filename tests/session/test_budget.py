"""No name server holds a sender up for longer than a message's share of time."""

from collections.abc import Awaitable, Callable

import pytest

from forwarder.ports import Answer, DnsStatus, Mx, Resolver
from forwarder.session.budget import BudgetedResolver
from tests.fakes import FakeClock, FakeResolver

ZONE = {
    ("a.test", "MX"): ["10 mx.a.test."],
    ("a.test", "A"): ["192.0.2.1"],
    ("a.test", "AAAA"): ["2001:db8::1"],
    ("a.test", "TXT"): ["text"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["a.test"],
}
QUESTIONS: dict[str, tuple[Callable[[Resolver], Awaitable[object]], object]] = {
    "mx": (lambda resolver: resolver.mx("a.test"), Mx(10, "mx.a.test")),
    "a": (lambda resolver: resolver.addresses("a.test", ipv6=False), "192.0.2.1"),
    "aaaa": (lambda resolver: resolver.addresses("a.test", ipv6=True), "2001:db8::1"),
    "txt": (lambda resolver: resolver.txt("a.test"), b"text"),
    "ptr": (lambda resolver: resolver.ptr("192.0.2.1"), "a.test"),
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_within_the_time_questions_are_passed_on(name: str) -> None:
    ask, record = QUESTIONS[name]
    clock, resolver = FakeClock(), FakeResolver(ZONE)
    budgeted = BudgetedResolver(resolver, clock, 15.0)
    clock.advance(14.9)
    answer = await ask(budgeted)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.records) == (DnsStatus.FOUND, (record,))
    assert len(resolver.asked) == 1


@pytest.mark.parametrize("name", QUESTIONS)
async def test_after_the_time_nothing_is_asked(name: str) -> None:
    ask, _ = QUESTIONS[name]
    clock, resolver = FakeClock(), FakeResolver(ZONE)
    budgeted = BudgetedResolver(resolver, clock, 15.0)
    clock.advance(15.0)
    answer = await ask(budgeted)
    assert answer == Answer(DnsStatus.FAILED, reason="DNS has taken too long for this message")
    assert resolver.asked == []


async def test_each_message_has_its_own_time() -> None:
    clock, resolver = FakeClock(), FakeResolver(ZONE)
    first = BudgetedResolver(resolver, clock, 10.0)
    clock.advance(8)
    second = BudgetedResolver(resolver, clock, 10.0)
    clock.advance(5)
    assert (await first.txt("a.test")).status is DnsStatus.FAILED
    assert (await second.txt("a.test")).status is DnsStatus.FOUND
