"""What the courier does with refusals of us, and with new settings while it runs."""

from dataclasses import replace

import pytest

from forwarder.delivery.settings import CourierSettings
from forwarder.model.destination import Hop as NextHop
from forwarder.model.outcome import Verdict
from forwarder.smtp.client import TlsUse
from tests.delivery.desk import desk, message
from tests.delivery.hop import PLAIN, Answer, Hop, listening

BLOCKED = "554 5.7.1 Service unavailable; Client host [127.0.0.1] blocked using zen.spamhaus.org"


async def test_a_refusal_of_us_is_temporary_and_alerts() -> None:
    async with listening(Hop(rcpt={"me@inbox.test": BLOCKED})) as hop, desk(hop.port) as ours:
        (outcome,) = await ours.send(message("me@inbox.test"))
    assert outcome.verdict is Verdict.DEFERRED
    assert str(outcome.reply) == BLOCKED
    (alert,) = ours.log.named("alert")
    assert "block list" in str(alert["text"])


@pytest.mark.parametrize("verb", ["GREETING", "EHLO"])
async def test_what_is_said_of_us_before_mail_alerts_although_another_host_stands_in(verb: str) -> None:
    says: dict[str, list[Answer]] = {verb: [BLOCKED] * 2, "HELO": [BLOCKED] * 2}
    async with (
        listening(Hop()) as second,
        listening(Hop(says=says), "127.0.0.2", second.port),
        desk(second.port) as ours,
    ):
        outcomes = [*await ours.send(message("a@two.test")), *await ours.send(message("a@two.test"))]
    assert [outcome.verdict for outcome in outcomes] == [Verdict.DELIVERED] * 2
    (alert,) = ours.log.named("alert")
    assert (alert["relay"], alert["component"]) == (f"first.two.test[127.0.0.2]:{second.port}", "delivery")
    assert "block list" in str(alert["text"])


async def test_what_is_said_of_us_before_mail_alerts_where_nobody_stands_in() -> None:
    async with listening(Hop(says={"GREETING": [BLOCKED]})) as hop, desk(hop.port) as ours:
        outcomes = await ours.send(message("a@inbox.test", "b@inbox.test"))
    assert [(one.verdict, str(one.reply)) for one in outcomes] == [(Verdict.DEFERRED, BLOCKED)] * 2
    assert len(ours.log.named("alert")) == 1


async def test_a_refusal_of_the_recipient_stays_one() -> None:
    async with (
        listening(Hop(rcpt={"me@inbox.test": "550 5.7.1 we do not want this message"})) as hop,
        desk(hop.port) as ours,
    ):
        (outcome,) = await ours.send(message("me@inbox.test"))
    assert outcome.verdict is Verdict.REFUSED
    assert ours.log.named("alert") == []


async def test_new_settings_count_from_the_next_message_on() -> None:
    async with listening(Hop(offers=PLAIN)) as hop, listening(Hop(offers=PLAIN)) as other, desk(hop.port) as ours:
        await ours.send(message("me@inbox.test"))
        routed = CourierSettings("mx.ours.test", port=hop.port, routes={"inbox.test": NextHop("127.0.0.1", other.port)})
        ours.courier.reconfigure(routed)
        await ours.send(message("me@inbox.test"))
        ours.courier.reconfigure(replace(routed, tls=TlsUse.REQUIRE))
        (outcome,) = await ours.send(message("me@inbox.test"))
    assert (len(hop.taken), len(other.taken)) == (1, 1)
    assert outcome.reply.enhanced == "4.7.5"


@pytest.mark.parametrize(("first", "then", "copies"), [(100.0, 0.0, 2), (0.0, 0.0, 2), (100.0, 200.0, 1)])
async def test_how_long_it_is_remembered_is_a_setting(first: float, then: float, copies: int) -> None:
    refusing: dict[str, Answer] = {"b@inbox.test": "450 4.2.1 later"}
    async with listening(Hop(rcpt=refusing)) as hop, desk(hop.port, remember=first) as ours:
        await ours.send(message("a@inbox.test", "b@inbox.test"))
        ours.ledger.keep_for(then)
        await ours.send(message("a@inbox.test", "b@inbox.test"))
    assert [line for taken in hop.taken for line in taken.rcpt].count("RCPT TO:<a@inbox.test>") == copies


async def test_what_was_delivered_is_remembered_across_new_settings() -> None:
    refusing: dict[str, object] = {"b@inbox.test": "450 4.2.1 later"}
    async with listening(Hop(rcpt=refusing)) as hop, desk(hop.port) as ours:  # type: ignore[arg-type]
        await ours.send(message("a@inbox.test", "b@inbox.test"))
        ours.courier.reconfigure(CourierSettings("other.ours.test", port=hop.port))
        await ours.send(message("a@inbox.test", "b@inbox.test"))
        assert [line for taken in hop.taken for line in taken.rcpt].count("RCPT TO:<a@inbox.test>") == 1
