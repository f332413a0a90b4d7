"""What the tests of the courier share: a clock that runs, messages, and a courier with a zone of its own."""

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from forwarder.delivery.courier import CutThroughCourier, Surroundings
from forwarder.delivery.ledger import LocalLedger
from forwarder.delivery.settings import CourierSettings, Limits, Timeouts
from forwarder.model.address import parse_mailbox
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions
from forwarder.model.message import Content, Delivery, MemoryContent, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.net.dialer import TcpDialer
from forwarder.ports import Pacer
from forwarder.smtp.client import TlsUse
from tests.fakes import FakeResolver, FreePacer, RecordingLog

HEAD = b"Received: from a by b\r\n"
BODY = b"Subject: hello\r\n\r\n.one dot\r\n..two\r\n.\r\nend\r\n"


class RunningClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def message(
    *to: str,
    content: Content | bytes = BODY,
    sender: str | None = "from@srs.test",
    options: MailOptions | None = None,
    head: bytes = HEAD,
) -> Outgoing:
    """A message to these destinations, all through the alias alias@ours.test."""
    deliveries = (Delivery(parse_mailbox("alias@ours.test"), Destination(parse_mailbox(one)), head) for one in to)
    return Outgoing(
        "id1",
        parse_mailbox(sender) if sender else None,
        parse_mailbox("original@stranger.test"),
        options or MailOptions(),
        MemoryContent(content) if isinstance(content, bytes) else content,
        tuple(deliveries),
    )


@dataclass
class Desk:
    courier: CutThroughCourier
    log: RecordingLog
    resolver: FakeResolver
    ledger: LocalLedger

    async def send(self, outgoing: Outgoing, seconds: float = 10.0) -> Sequence[Outcome]:
        """As a session that has no spool: what is not delivered whole is to be sent again."""
        outcomes = await self.courier.hand_on(outgoing, time.monotonic() + seconds)
        if any(outcome.verdict is not Verdict.DELIVERED for outcome in outcomes):
            await self.courier.unheard(outgoing)
        return outcomes


ZONE = {
    ("inbox.test", "MX"): ["10 mx.inbox.test"],
    ("mx.inbox.test", "A"): ["127.0.0.1"],
    ("two.test", "MX"): ["10 first.two.test", "20 second.two.test"],
    ("first.two.test", "A"): ["127.0.0.2"],
    ("second.two.test", "A"): ["127.0.0.1"],
}


@asynccontextmanager
async def desk(
    port: int,
    *,
    zone: dict[tuple[str, str], list[str]] | None = None,
    tls: TlsUse = TlsUse.OPPORTUNISTIC,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    source: str = "",
    remember: float = 432_000.0,
    pacer: Pacer | None = None,
) -> AsyncIterator[Desk]:
    settings = CourierSettings(
        "mx.ours.test",
        port=port,
        tls=tls,
        source_addresses=(source,) if source else (),
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
    )
    log, resolver = RecordingLog(), FakeResolver(zone or ZONE)
    clock = RunningClock()
    ledger = LocalLedger(clock, log, seconds=remember)
    surroundings = Surroundings(
        resolver=resolver,
        dialer=TcpDialer(),
        clock=clock,
        randomness=random.Random(1),
        ledger=ledger,
        pacer=pacer or FreePacer(),
        log=log,
    )
    courier = CutThroughCourier(settings, surroundings)
    try:
        yield Desk(courier, log, resolver, ledger)
    finally:
        await courier.close(0)
