"""The checks of one message from its first octet to the findings, with DNS that is slow, silent or counted."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from forwarder.auth.arc.verify import ArcStatus
from forwarder.auth.dkim.verify import DkimStatus
from forwarder.auth.dmarc.verify import DmarcStatus
from forwarder.auth.iprev import IprevStatus
from forwarder.auth.results import Authentication
from forwarder.auth.spf.verify import SpfStatus
from forwarder.model.address import Address, parse_mailbox
from forwarder.net.resolver import DnsResolver
from forwarder.ops.clock import SystemClock
from forwarder.policy.dmarc import Enforcement
from forwarder.ports import Answer, DnsStatus, Mx, Resolver
from forwarder.session.examination import DNS_SECONDS, Checks, Examination, Question
from tests.auth.arc.sealer import NAME as RELAY_KEY
from tests.auth.arc.sealer import chain
from tests.auth.dkim.signer import NAME as KEY
from tests.auth.dkim.signer import NOW, rsa_key, sign
from tests.fakes import FakeClock, FakeResolver
from tests.net.nameserver import records, serving

T = TypeVar("T")
ALICE = parse_mailbox("alice@sender.test")
PTR = "1.2.0.192.in-addr.arpa"
SPF, POLICY = "sender.test", "_dmarc.sender.test"
ZONE = {
    (SPF, "TXT"): ["v=spf1 ip4:192.0.2.0/24 -all"],
    (POLICY, "TXT"): ["v=DMARC1; p=reject"],
    (PTR, "PTR"): ["mail.sender.test"],
    ("mail.sender.test", "A"): ["192.0.2.1"],
    (KEY, "TXT"): [rsa_key().record],
    (RELAY_KEY, "TXT"): [rsa_key().record],
}
SIGNED = sign()


@dataclass
class GatedResolver:
    """Answers as another resolver once `gate` is open; `waiting` are the questions that stand before it."""

    answers: FakeResolver
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: list[tuple[str, str]] = field(default_factory=list)

    async def mx(self, name: str) -> Answer[Mx]:
        return await self._wait((name, "MX"), lambda: self.answers.mx(name))

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        return await self._wait((name, "A"), lambda: self.answers.addresses(name, ipv6=ipv6))

    async def txt(self, name: str) -> Answer[bytes]:
        return await self._wait((name, "TXT"), lambda: self.answers.txt(name))

    async def ptr(self, address: str) -> Answer[str]:
        return await self._wait((PTR, "PTR"), lambda: self.answers.ptr(address))

    async def _wait(self, question: tuple[str, str], ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self.waiting.append(question)
        try:
            await self.gate.wait()
        finally:
            self.waiting.remove(question)
        return await ask()


def begin(
    resolver: Resolver, checks: Checks | None = None, sender: Address | None = ALICE, clock: FakeClock | None = None
) -> Examination:
    question = Question("192.0.2.1", "mail.sender.test", sender, "mx.ours.test")
    clock = clock or FakeClock(datetime.fromtimestamp(NOW, UTC))
    return Examination(checks or Checks(), question, resolver, clock, 1_000_000)


async def examine(message: bytes, checks: Checks | None = None, sender: Address | None = ALICE) -> Authentication:
    examination = begin(FakeResolver(ZONE), checks, sender)
    examination.feed(message)
    return await examination.finish()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_everything_is_found() -> None:
    found = await examine(chain(1, SIGNED))
    assert (found.client, found.helo, found.sender) == ("192.0.2.1", "mail.sender.test", ALICE)
    assert found.iprev is not None
    assert (found.iprev.status, found.iprev.name) == (IprevStatus.PASS, "mail.sender.test")
    assert found.spf is not None
    assert found.spf.mail_from.status is SpfStatus.PASS
    assert found.spf.helo.status is SpfStatus.NONE
    assert [each.status for each in found.dkim] == [DkimStatus.PASS]
    assert found.arc is not None
    assert found.arc.status is ArcStatus.PASS
    assert found.dmarc is not None
    assert found.dmarc.status is DmarcStatus.PASS
    assert found.dmarc.aligned_spf
    assert found.dmarc.aligned_dkim


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 16])
async def test_pieces_of_any_size_give_the_same(size: int) -> None:
    examination = begin(FakeResolver(ZONE))
    for start in range(0, len(SIGNED), size):
        examination.feed(SIGNED[start : start + size])
    assert await examination.finish() == await examine(SIGNED)


@pytest.mark.parametrize(
    "message", [b"", b"no header at all\r\n", b"From: a@sender.test\r\n", b"\r\nbody\r\n", b"\r\n"]
)
async def test_messages_without_much_of_a_message(message: bytes) -> None:
    found = await examine(message)
    assert found.dkim == ()
    assert found.dmarc is not None
    assert found.arc is not None
    assert not others()


async def test_an_overlong_header_is_not_taken_for_an_unsigned_message() -> None:
    found = await examine(b"X: y\r\n" * 200_000 + SIGNED)
    assert [each.status for each in found.dkim] == [DkimStatus.PERMERROR]
    assert found.dmarc is None
    assert found.arc is not None
    assert found.arc.status is ArcStatus.FAIL


async def test_the_null_sender() -> None:
    found = await examine(SIGNED, sender=None)
    assert found.spf is not None
    assert found.spf.mail_from is found.spf.helo


async def test_spf_can_be_switched_off() -> None:
    found = await examine(SIGNED, Checks(spf=False))
    assert found.spf is None
    assert found.iprev is not None
    assert found.dmarc is not None
    assert (found.dmarc.status, found.dmarc.aligned_spf) == (DmarcStatus.PASS, False)


async def test_dkim_can_be_switched_off() -> None:
    found = await examine(SIGNED, Checks(dkim=False))
    assert (found.dkim, found.dkim_checked) == ((), False)
    assert found.dmarc is not None
    assert (found.dmarc.status, found.dmarc.aligned_dkim) == (DmarcStatus.PASS, False)


async def test_arc_can_be_switched_off() -> None:
    assert (await examine(chain(1, SIGNED), Checks(arc=False))).arc is None


async def test_dmarc_can_be_switched_off() -> None:
    assert (await examine(SIGNED, Checks(dmarc=Enforcement.OFF))).dmarc is None
    assert (await examine(SIGNED, Checks(dmarc=Enforcement.REPORT))).dmarc is not None


@pytest.mark.parametrize(
    ("checks", "unasked"),
    [
        (Checks(spf=False), {SPF}),
        (Checks(dkim=False), {KEY}),
        (Checks(arc=False), {RELAY_KEY}),
        (Checks(dmarc=Enforcement.OFF), {POLICY, "_dmarc.test"}),
    ],
)
async def test_dns_is_not_asked_for_what_is_switched_off(checks: Checks, unasked: set[str]) -> None:
    everything, some = FakeResolver(ZONE), FakeResolver(ZONE)
    for resolver, chosen in ((everything, Checks()), (some, checks)):
        examination = begin(resolver, chosen)
        examination.feed(chain(1, SIGNED))
        await examination.finish()
    assert unasked <= {name for name, _ in everything.asked}
    assert not unasked & {name for name, _ in some.asked}


async def test_dns_is_asked_while_the_message_arrives_and_side_by_side() -> None:
    resolver = GatedResolver(FakeResolver(ZONE))
    examination = begin(resolver)
    await settle()
    assert Counter(resolver.waiting) == Counter({(PTR, "PTR"): 1, ("sender.test", "TXT"): 1})
    header, _, body = SIGNED.partition(b"\r\n\r\n")
    examination.feed(header + b"\r\n\r\n")
    await settle()
    assert {(KEY, "TXT"), (POLICY, "TXT"), (PTR, "PTR")} <= set(resolver.waiting)
    assert len(resolver.waiting) == len(set(resolver.waiting))
    examination.feed(body)
    resolver.gate.set()
    found = await examination.finish()
    assert found.dmarc is not None
    assert found.dmarc.status is DmarcStatus.PASS


async def test_name_servers_are_asked_each_question_once() -> None:
    """Asked ahead, by several signatures and by the checks themselves: the resolver's cache makes it one query."""
    table = {key: records(*(f"{key[0]} 300 {key[1]} {data(key[1], text)}" for text in ZONE[key])) for key in ZONE}
    async with serving(table) as server:
        resolver = DnsResolver([server.where], SystemClock())
        examination = begin(resolver)
        examination.feed(sign(sign(chain(2, SIGNED))))
        found = await examination.finish()
        await resolver.close()
    assert [each.status for each in found.dkim] == [DkimStatus.PASS] * 3
    counted = Counter((name, kind) for name, kind, _ in server.asked)
    assert set(counted.values()) == {1}
    assert set(counted) == {*ZONE, ("mail.sender.test", "TXT"), ("_dmarc.test", "TXT")}


def data(kind: str, text: str) -> str:
    """Write a record's data as a zone file has it."""
    if kind != "TXT":
        return text + "." * (kind == "PTR")
    return " ".join(f'"{text[start : start + 250]}"' for start in range(0, len(text), 250))


@pytest.mark.parametrize("fed", [b"", SIGNED[:10], SIGNED])
async def test_giving_up_leaves_nothing_behind(fed: bytes) -> None:
    resolver = GatedResolver(FakeResolver(ZONE))
    examination = begin(resolver)
    examination.feed(fed)
    await settle()
    assert resolver.waiting
    examination.cancel()
    await settle()
    assert not others()
    assert not resolver.waiting
    assert resolver.answers.asked == []


async def test_giving_up_after_the_answers_came() -> None:
    examination = begin(FakeResolver(ZONE))
    examination.feed(SIGNED)
    await settle()
    examination.cancel()
    examination.cancel()
    await settle()
    assert not others()


async def test_nothing_is_left_of_a_session_that_is_cut_off() -> None:
    resolver = GatedResolver(FakeResolver(ZONE))
    examination = begin(resolver)
    examination.feed(SIGNED)
    finishing = asyncio.create_task(examination.finish())
    await settle()
    finishing.cancel()
    await settle()
    assert finishing.cancelled()
    assert not others()
    assert not resolver.waiting


async def test_nothing_is_left_when_all_was_found() -> None:
    await examine(SIGNED)
    assert not others()


@pytest.mark.parametrize(
    ("failing", "statuses"),
    [
        ({SPF}, ("pass", "temperror", "pass", "pass")),
        ({KEY}, ("pass", "pass", "temperror", "pass")),
        ({POLICY}, ("pass", "pass", "pass", "temperror")),
        ({PTR}, ("temperror", "pass", "pass", "pass")),
        ({SPF, KEY}, ("pass", "temperror", "temperror", "temperror")),
    ],
)
async def test_dns_that_does_not_answer_is_temporary(failing: set[str], statuses: tuple[str, ...]) -> None:
    examination = begin(FakeResolver(ZONE, frozenset(failing)))
    examination.feed(SIGNED)
    assert told(await examination.finish()) == statuses


def told(found: Authentication) -> tuple[str, ...]:
    assert found.iprev is not None
    assert found.spf is not None
    assert found.dmarc is not None
    (signature,) = found.dkim
    return found.iprev.status.value, found.spf.mail_from.status.value, signature.status.value, found.dmarc.status.value


@dataclass
class SlowResolver(FakeResolver):
    """Takes a while for each question, by the clock that it is given."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(datetime.fromtimestamp(NOW, UTC)))
    seconds: float = 0.0

    def _look(self, name: str, kind: str) -> tuple[DnsStatus, list[str]]:
        self.clock.advance(self.seconds)
        return super()._look(name, kind)


async def test_the_time_for_dns_is_bounded_for_each_message() -> None:
    resolver = SlowResolver(ZONE, seconds=DNS_SECONDS)
    examination = begin(resolver, clock=resolver.clock)
    examination.feed(SIGNED)
    found = await examination.finish()
    assert len(resolver.asked) == 2  # by the client's address, and what the signatures need
    assert found.dmarc is not None
    assert found.dmarc.status is DmarcStatus.TEMPERROR
    assert "DNS has taken too long" in found.dmarc.reason


async def test_signatures_are_judged_by_the_time_when_the_message_began() -> None:
    late = begin(FakeResolver(ZONE), clock=FakeClock(datetime.fromtimestamp(NOW + 10_000, UTC)))
    late.feed(sign(x=str(NOW + 60)))
    assert [each.status for each in (await late.finish()).dkim] == [DkimStatus.PERMERROR]


async def test_whatever_dns_says_there_are_findings() -> None:
    nonsense: Mapping[tuple[str, str], list[str]] = {
        (SPF, "TXT"): ["v=spf1 include:" + SPF + " exists:%{", "v=spf1 a"],
        (POLICY, "TXT"): ["v=DMARC1; p=", "v=DMARC1; p=reject; p=none"],
        (KEY, "TXT"): ["v=DKIM1; p=AAAA"],
        (PTR, "PTR"): [".", "a..b"],
    }
    examination = begin(FakeResolver(nonsense))
    examination.feed(SIGNED)
    assert told(await examination.finish())[1:3] == ("permerror", "permerror")


async def test_the_time_that_the_sender_takes_is_not_that_of_dns() -> None:
    clock = FakeClock(datetime.fromtimestamp(NOW, UTC))
    examination = begin(FakeResolver(ZONE), clock=clock)
    examination.feed(SIGNED[:50])
    await settle()
    clock.advance(10 * DNS_SECONDS)
    examination.feed(SIGNED[50:])
    found = await examination.finish()
    assert found.dmarc is not None
    assert found.dmarc.status is DmarcStatus.PASS
