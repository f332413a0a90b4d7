"""The table of section 3 of the design, seen from the session: what the sender is told, what the spool is given."""

import asyncio
from collections.abc import Callable

import pytest

from forwarder.model.letter import Letter, Part
from forwarder.model.message import Delivery
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from tests.session.stage import DELIVERED, MESSAGE, UNTRIED, Stage, stop_when

HOP = "mx[192.0.2.9]:25"
REFUSED = Outcome(Verdict.REFUSED, Reply(550, "5.7.1", "spam"), HOP, remote=True)
BUSY = Outcome(Verdict.DEFERRED, Reply(450, "4.2.1", "busy"), HOP, remote=True)
DOWN = Outcome(Verdict.DEFERRED, Reply(451, "4.4.1", "nobody there"))
RUNNING = Outcome(Verdict.RUNNING, Reply(451, "4.4.7", "not answered yet"))
OURS = Outcome(
    Verdict.DEFERRED,
    Reply(550, "5.7.25", "no PTR"),
    HOP,
    remote=True,
    ruling=Ruling("ptr", Scope.ADDRESS, Fate.OURS, alert=True),
)
SPAMMY = Outcome(
    Verdict.DEFERRED,
    Reply(421, "4.7.0", "the nature of the content"),
    HOP,
    remote=True,
    ruling=Ruling("content", Scope.MESSAGE, Fate.NEVER_QUEUE),
)
SPF = {("sender.example", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"], ("1.2.0.192.in-addr.arpa", "PTR"): ["mail.test"]}


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def known(stage: Stage) -> Stage:
    """A stage whose client's mail is authenticated by SPF."""
    stage.resolver.zone = SPF
    return stage


def first_gets(first: Outcome, rest: Outcome) -> Callable[[Delivery], Outcome]:
    return lambda delivery: first if delivery.destination.address.local == "me" else rest


async def send(stage: Stage, outcome: Callable[[Delivery], Outcome], octets: bytes = MESSAGE) -> Reply:
    stage.courier.outcome = outcome
    await stage.begin("<a@sender.example>", "<both@ours.example>")
    return await stage.send(octets)


@pytest.mark.parametrize("outcome", [BUSY, DOWN, RUNNING, OURS])
async def test_what_nobody_took_is_queued_for_an_authenticated_sender(known: Stage, outcome: Outcome) -> None:
    reply = await send(known, lambda _: outcome)
    assert (reply.code, reply.enhanced) == (250, "2.0.0")
    ((letter, outcomes),) = known.keeper.kept
    assert outcomes == [outcome, outcome]
    assert letter.message.authenticated
    assert letter.bounceable
    assert known.courier.untold == []
    assert [message.id for message, _ in known.courier.entrusted] == [letter.message.id]


@pytest.mark.parametrize("outcome", [BUSY, DOWN, RUNNING, OURS])
async def test_what_nobody_took_is_left_to_anyone_elses_server(stage: Stage, outcome: Outcome) -> None:
    reply = await send(stage, lambda _: outcome)
    assert reply.code == 451
    assert stage.keeper.kept == []
    assert stage.courier.entrusted == []
    assert len(stage.courier.untold) == (outcome is RUNNING)  # it may yet be delivered, and the sender comes again


@pytest.mark.parametrize("authenticated", [True, False])
@pytest.mark.parametrize("rest", [BUSY, DOWN, RUNNING, OURS, REFUSED])
async def test_the_rest_is_kept_when_some_have_it(stage: Stage, authenticated: bool, rest: Outcome) -> None:
    if authenticated:
        stage.resolver.zone = SPF
    reply = await send(stage, first_gets(DELIVERED, rest))
    assert reply.code == 250
    ((letter, outcomes),) = stage.keeper.kept
    assert outcomes == [DELIVERED, rest]
    assert letter.bounceable == authenticated
    assert stage.courier.untold == []


@pytest.mark.parametrize("authenticated", [True, False])
async def test_what_all_refuse_is_refused(stage: Stage, authenticated: bool) -> None:
    if authenticated:
        stage.resolver.zone = SPF
    reply = await send(stage, lambda _: REFUSED)
    assert (reply.code, reply.enhanced) == (550, "5.7.1")
    assert "spam" in reply.text
    assert stage.keeper.kept == []


async def test_mail_that_is_suspicious_by_its_content_is_never_queued(known: Stage) -> None:
    reply = await send(known, lambda _: SPAMMY)
    assert (reply.code, known.keeper.kept) == (451, [])


async def test_the_null_sender_is_nobody_who_could_be_told(known: Stage) -> None:
    known.courier.outcome = lambda _: BUSY
    await known.begin("<>", "<me@ours.example>")
    assert (await known.send()).code == 451
    assert known.keeper.kept == []


@pytest.mark.parametrize("header", [b"List-Id: <list.sender.example>\r\n", b"Auto-Submitted: auto-replied\r\n"])
async def test_lists_and_machines_are_queued_and_not_answered(known: Stage, header: bytes) -> None:
    assert (await send(known, lambda _: BUSY, header + MESSAGE)).code == 250
    ((letter, _),) = known.keeper.kept
    assert not letter.bounceable


async def test_a_letter_says_who_wrote_it(known: Stage) -> None:
    octets = b"From: =?x?= <a@sender.example>\r\nMessage-ID:\r\n <1\x1b@sender.example>\r\n\r\n"
    await send(known, lambda _: BUSY, octets)
    ((letter, _),) = known.keeper.kept
    assert (letter.author, letter.message_id) == ("=?x?= <a@sender.example>", "<1?@sender.example>")
    assert letter.received == known.clock.now()


@pytest.mark.parametrize("first", [BUSY, RUNNING, DELIVERED])
async def test_without_room_the_sender_keeps_the_message(known: Stage, first: Outcome) -> None:
    known.keeper.trouble = Reply(452, "4.3.1", "no room")
    reply = await send(known, first_gets(first, BUSY))
    assert (reply.code, reply.enhanced) == (452, "4.3.1")
    assert known.courier.entrusted == []
    assert len(known.courier.untold) == (first is not BUSY)
    assert known.log.named("alert")[0]["text"] == "the disk is full"


async def test_a_full_disk_is_told_before_the_message_is_sent(stage: Stage) -> None:
    stage.keeper.full = Reply(452, "4.3.1", "no room")
    await stage.say("EHLO client.example")
    assert await stage.say("MAIL FROM:<a@sender.example>") == "452 4.3.1"
    stage.keeper.full = None
    assert await stage.say("MAIL FROM:<a@sender.example>") == "250 2.1.0"


async def test_custody_goes_through_when_the_sender_goes_away(known: Stage) -> None:
    known.keeper.gate.clear()
    await stop_when(send(known, lambda _: RUNNING), known.courier, 1)
    assert known.keeper.kept == []
    known.keeper.gate.set()
    while not known.courier.untold:
        await asyncio.sleep(0)
    ((letter, _),) = known.keeper.kept
    assert [message.id for message, _ in known.courier.entrusted] == [letter.message.id]
    assert [message.id for message in known.courier.untold] == [letter.message.id]


async def test_custody_that_fails_when_the_sender_has_gone_is_nobodys(known: Stage) -> None:
    known.keeper.gate.clear()
    known.keeper.trouble = Reply(452, "4.3.1", "no room")
    await stop_when(send(known, lambda _: BUSY), known.courier, 1)
    known.keeper.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (known.courier.entrusted, known.courier.untold) == ([], [])


async def test_custody_that_fails_when_the_sender_has_gone_leaves_known_what_was_delivered(known: Stage) -> None:
    known.keeper.gate.clear()
    known.keeper.trouble = Reply(452, "4.3.1", "no room")
    await stop_when(send(known, first_gets(DELIVERED, BUSY)), known.courier, 1)
    known.keeper.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert [message.id for message in known.courier.untold] == [known.courier.messages[0].id]


async def test_what_is_stopped_is_taken_once_however_often_its_sender_comes(stage: Stage) -> None:
    """A loop of one recipient: its sender is told by a DSN, and not by another one for each retry unheard."""
    await stage.begin("<a@sender.example>", "<me@ours.example>", "<both@ours.example>")
    octets = b"Delivered-To: both@ours.example\r\n" + MESSAGE
    assert (await stage.send(octets)).code == 250
    ((_, outcomes),) = stage.keeper.kept
    assert sorted(outcome.verdict.value for outcome in outcomes) == ["delivered", "refused"]
    stage.courier.already = DELIVERED  # as the courier says of what it was told is in custody
    await stage.begin("<a@sender.example>", "<me@ours.example>", "<both@ours.example>")
    assert (await stage.send(octets)).code == 250
    assert len(stage.keeper.kept) == 1


async def test_how_a_running_attempt_ends_is_told_to_the_keeper(known: Stage) -> None:
    await send(known, first_gets(DELIVERED, RUNNING))
    ((message, settled),) = known.courier.entrusted
    settled(1, BUSY)
    assert known.keeper.reports == [(Part(message.id, 1), BUSY)]


class TestQueueFirst:
    @pytest.fixture
    def queueing(self, known: Stage) -> Stage:
        object.__setattr__(known.gateway.settings, "queue_first", True)
        return known

    async def test_nobody_is_asked_before_the_sender_is_told(self, queueing: Stage) -> None:
        reply = await send(queueing, lambda _: DELIVERED)
        assert (reply.code, reply.text.startswith("Queued")) == (250, True)
        assert queueing.courier.messages == []
        ((letter, outcomes),) = queueing.keeper.kept
        assert outcomes == [UNTRIED, UNTRIED]
        assert [message.id for message, _ in queueing.courier.entrusted] == [letter.message.id]

    async def test_others_go_cut_through(self, queueing: Stage) -> None:
        queueing.resolver.zone = {}
        assert (await send(queueing, lambda _: DELIVERED)).code == 250
        assert queueing.keeper.kept == []
        assert queueing.sent_to() == ["me@inbox.example", "other@inbox.example"]

    async def test_a_retry_of_what_was_taken_before_is_not_queued_again(self, queueing: Stage) -> None:
        queueing.courier.already = DELIVERED
        assert (await send(queueing, lambda _: DELIVERED)).code == 250
        assert (queueing.keeper.kept, queueing.courier.messages) == ([], [])


class TestReportsOfSuccess:
    async def ask(self, stage: Stage, outcome: Outcome) -> list[tuple[Letter, list[Outcome]]]:
        stage.courier.outcome = lambda _: outcome
        await stage.begin("<a@sender.example>")
        assert await stage.say("RCPT TO:<me@ours.example> NOTIFY=SUCCESS,FAILURE") == "250 2.1.5"
        assert (await stage.send()).code == 250
        return stage.keeper.kept

    async def test_who_asks_for_one_that_the_next_hop_does_not_send_has_it_from_us(self, known: Stage) -> None:
        ((_, outcomes),) = await self.ask(known, DELIVERED)
        assert outcomes == [DELIVERED]

    async def test_it_is_left_to_a_next_hop_that_knows_dsn(self, known: Stage) -> None:
        told = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"), HOP, remote=True, notifies=True)
        assert await self.ask(known, told) == []

    async def test_nobody_unproven_gets_one(self, stage: Stage) -> None:
        assert await self.ask(stage, DELIVERED) == []

    async def test_without_room_it_is_left_out_and_the_message_is_delivered_all_the_same(self, known: Stage) -> None:
        known.keeper.trouble = Reply(452, "4.3.1", "no room")
        assert await self.ask(known, DELIVERED) == []
