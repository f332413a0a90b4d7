"""The courier and the spool: what is entrusted, what is carried for it, and turns that the pacer gives."""

import asyncio
import time
from collections.abc import Callable

from forwarder.delivery.classify import provider_of
from forwarder.delivery.pacer import LocalPacer
from forwarder.delivery.pacing import Pacing
from forwarder.delivery.providers import PacingSettings
from forwarder.delivery.route import Target
from forwarder.delivery.settings import Timeouts
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ports import Held, Turn
from tests.delivery.desk import Desk, RunningClock, desk, message
from tests.delivery.hop import PLAIN, Answer, Hop, Trick, listening
from tests.fakes import FreePacer

D, R, T, RUNNING, UNTRIED = (
    Verdict.DELIVERED,
    Verdict.REFUSED,
    Verdict.DEFERRED,
    Verdict.RUNNING,
    Verdict.UNTRIED,
)
SPAMMY = "421-4.7.0 This message is suspicious due to the nature of the content. a-1.gsmtp"


async def soon(ours: Desk, seconds: float = 0.05) -> float:
    return time.monotonic() + seconds


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


class TestEntrusting:
    async def test_the_end_of_a_running_attempt_is_told_once(self) -> None:
        told: list[tuple[int, Outcome]] = []
        slow: dict[str, list[Answer]] = {"DOT": [Trick.WAIT]}
        async with listening(Hop(says=slow)) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test")
            (outcome,) = await ours.courier.hand_on(sent, await soon(ours))
            assert outcome.verdict is RUNNING
            ours.courier.entrust(sent, lambda index, outcome: told.append((index, outcome)))
            hop.go.set()
            await until(lambda: told)
        ((index, ended),) = told
        assert (index, ended.verdict) == (0, D)
        assert ours.log.named("delivered") == []  # whoever is told says so

    async def test_an_end_that_came_first_is_told_all_the_same(self) -> None:
        told: list[Outcome] = []
        slow: dict[str, list[Answer]] = {"DOT": [Trick.WAIT]}
        async with listening(Hop(says=slow)) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test")
            await ours.courier.hand_on(sent, await soon(ours))
            hop.go.set()
            await until(lambda: hop.taken)
            await until(lambda: ours.log.named("delivered"))
            ours.courier.entrust(sent, lambda _, outcome: told.append(outcome))
            await until(lambda: told)
        assert [outcome.verdict for outcome in told] == [D]

    async def test_only_what_was_running_is_told(self) -> None:
        told: list[int] = []
        answers: dict[str, Answer] = {"b@inbox.test": "450 4.2.1 later"}
        async with listening(Hop(rcpt=answers)) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test", "b@inbox.test")
            await ours.courier.hand_on(sent, await soon(ours, 10))
            ours.courier.entrust(sent, lambda index, _: told.append(index))
            await asyncio.sleep(0)
        assert told == []

    async def test_a_retry_of_what_was_entrusted_unheard_is_answered_as_delivered(self) -> None:
        answers: dict[str, Answer] = {"b@inbox.test": "450 4.2.1 later"}
        async with listening(Hop(rcpt=answers)) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test", "b@inbox.test")
            await ours.courier.hand_on(sent, await soon(ours, 10))
            ours.courier.entrust(sent, lambda _, __: None)
            await ours.courier.unheard(sent)
            outcomes = await ours.courier.hand_on(sent, await soon(ours, 10))
            assert [outcome.verdict for outcome in outcomes] == [D, D]
            assert len(hop.taken) == 1
            await asyncio.sleep(0)
            outcomes = await ours.courier.hand_on(sent, await soon(ours, 10))  # it was heard: this is another one
            assert [outcome.verdict for outcome in outcomes] == [D, T]

    async def test_what_was_entrusted_and_heard_is_a_new_message_when_it_comes_again(self) -> None:
        answers: dict[str, Answer] = {"b@inbox.test": "450 4.2.1 later"}
        async with listening(Hop(rcpt=answers)) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test", "b@inbox.test")
            for _ in range(2):
                await ours.courier.hand_on(sent, await soon(ours, 10))
                ours.courier.entrust(sent, lambda _, __: None)
                await asyncio.sleep(0)
        assert len(hop.taken) == 2

    async def test_a_retry_that_fails_again_leaves_it_known(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test")
            for _ in range(4):
                outcomes = await ours.courier.hand_on(sent, await soon(ours, 10))
                await ours.courier.unheard(sent)  # for something else, as that another copy was over a limit
                await until(lambda: not ours.courier._forgetting)
                assert [outcome.verdict for outcome in outcomes] == [D]
        assert len(hop.taken) == 1


class TestKnown:
    async def test_what_nobody_knows_is_untried(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            outcomes = await ours.courier.known(message("a@inbox.test"))
        assert [outcome.verdict for outcome in outcomes] == [UNTRIED]
        assert hop.connections == 0

    async def test_what_was_delivered_unheard_is_known_once(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test")
            await ours.courier.hand_on(sent, await soon(ours, 10))
            await ours.courier.unheard(sent)
            assert [outcome.verdict for outcome in await ours.courier.known(sent)] == [D]
            await asyncio.sleep(0)
            assert [outcome.verdict for outcome in await ours.courier.known(sent)] == [UNTRIED]
            await ours.courier.unheard(sent)
            assert [outcome.verdict for outcome in await ours.courier.known(sent)] == [D]

    async def test_an_attempt_under_way_is_running_and_can_be_entrusted(self) -> None:
        told: list[Outcome] = []
        async with listening(Hop(says={"DOT": [Trick.WAIT]})) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test")
            await ours.courier.hand_on(sent, await soon(ours))
            await ours.courier.unheard(sent)
            assert [outcome.verdict for outcome in await ours.courier.known(sent)] == [RUNNING]
            ours.courier.entrust(sent, lambda _, outcome: told.append(outcome))
            hop.go.set()
            await until(lambda: told)
            await asyncio.sleep(0)
            assert await ours.ledger.recall([]) == []
            assert [outcome.verdict for outcome in await ours.courier.known(sent)] == [UNTRIED]
        assert len(hop.taken) == 1

    async def test_an_attempt_of_another_process_is_nothing_to_compete_with(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as first, desk(hop.port) as second:
            sent = message("a@inbox.test")
            first.courier._ledger = second.ledger  # one ledger for both
            hop.says["DOT"] = [Trick.WAIT]
            await first.courier.hand_on(sent, await soon(first))
            await first.courier.unheard(sent)
            (outcome,) = await second.courier.hand_on(sent, await soon(second, 10))
            assert (outcome.verdict, outcome.remote) == (T, False)
            hop.go.set()
            await until(lambda: first.log.named("delivered"))
            await asyncio.sleep(0)
            (outcome,) = await second.courier.hand_on(sent, await soon(second, 10))
            assert outcome.verdict is D
        assert len(hop.taken) == 1


class TestCarrying:
    async def test_every_delivery_is_decided_and_nothing_is_remembered(self) -> None:
        answers: dict[str, Answer] = {"b@inbox.test": "450 4.2.1 later", "c@inbox.test": "550 5.7.1 no"}
        async with listening(Hop(rcpt=answers)) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test", "b@inbox.test", "c@inbox.test")
            for _ in range(2):
                outcomes = await ours.courier.carry(sent)
                assert [outcome.verdict for outcome in outcomes] == [D, T, R]
            assert len(hop.taken) == 2
        assert ours.log.named("delivered") == []  # the spool says so

    async def test_it_asks_nobody_who_is_remembered(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test")
            await ours.courier.hand_on(sent, await soon(ours, 10))
            await ours.courier.unheard(sent)
            await ours.courier.carry(sent)  # the spool knows what it does
        assert len(hop.taken) == 2

    async def test_when_it_is_called_off_its_attempts_end(self) -> None:
        async with listening(Hop(says={"GREETING": [Trick.SILENT]})) as hop, desk(hop.port) as ours:
            carrying = asyncio.create_task(ours.courier.carry(message("a@inbox.test")))
            await until(lambda: hop.connections)
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)
            await until(lambda: not ours.courier._tasks)

    async def test_at_the_end_only_what_has_begun_goes_on(self) -> None:
        pacer = LocalPacer(Pacing(PacingSettings(1), provider_of), RunningClock())
        async with (
            listening(Hop(says={"DOT": [Trick.WAIT]})) as hop,
            desk(hop.port, pacer=pacer) as ours,
        ):
            begun, waiting = (asyncio.create_task(ours.courier.carry(message(f"{n}@inbox.test"))) for n in "ab")
            await until(lambda: "DATA" in hop.verbs)
            ours.courier.begin_no_more()
            assert [outcome.verdict for outcome in await waiting] == [UNTRIED]
            assert [one.verdict for one in await ours.courier.carry(message("c@inbox.test"))] == [UNTRIED]
            hop.go.set()
            assert [outcome.verdict for outcome in await begun] == [D]
        assert [taken.rcpt for taken in hop.taken] == [["RCPT TO:<a@inbox.test>"]]


class TestContent:
    async def test_a_suspicious_content_is_refused_the_third_time(self) -> None:
        zone = {("gmail.test", "MX"): ["10 mx.google.com"], ("mx.google.com", "A"): ["127.0.0.1"]}
        async with (
            listening(Hop(says={"DOT": [SPAMMY.replace("421-", "421 ")] * 3})) as hop,
            desk(hop.port, zone=zone) as ours,
        ):
            sent = message("me@gmail.test")
            found = [(await ours.courier.hand_on(sent, await soon(ours, 10)))[0] for _ in range(3)]
        assert [outcome.verdict for outcome in found] == [T, T, R]
        assert (found[2].reply.code, found[2].reply.enhanced) == (550, "5.7.1")


class TestTurns:
    async def test_the_pacer_knows_what_goes_where_and_hears_what_came_of_it(self) -> None:
        pacer = FreePacer()
        answers: dict[str, Answer] = {"b@inbox.test": "450 4.2.1 later"}
        async with listening(Hop(rcpt=answers)) as hop, desk(hop.port, pacer=pacer, source="127.0.0.1") as ours:
            await ours.send(message("A@inbox.test", "b@inbox.test"))
        (load,) = pacer.loads
        assert (load.host, load.source, load.domain, load.sender) == (
            "mx.inbox.test",
            "127.0.0.1",
            "srs.test",
            "stranger.test",
        )
        assert (load.mailboxes, load.trusted) == (("a@inbox.test", "b@inbox.test"), False)
        ((turn, heard),) = pacer.heard
        assert turn.number == 1
        assert sorted(outcome.verdict.value for outcome in heard) == ["deferred", "delivered"]

    async def test_each_target_needs_a_turn_and_one_out_of_reach_says_nothing(self) -> None:
        pacer = FreePacer()
        async with listening(Hop()) as hop, desk(hop.port, pacer=pacer) as ours:  # nobody listens at 127.0.0.2
            (outcome,) = await ours.send(message("me@two.test"))
        assert outcome.verdict is D
        assert [load.host for load in pacer.loads] == ["first.two.test", "second.two.test"]
        assert [len(heard) for _, heard in pacer.heard] == [0, 1]

    async def test_what_is_held_is_deferred_without_an_attempt(self) -> None:
        wait = Held(Reply(451, "4.4.5", "the provider asked us to wait"), 600.0)
        async with listening(Hop()) as hop, desk(hop.port, pacer=FreePacer({"me@inbox.test": wait})) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, outcome.reply, outcome.wait) == (T, wait.reply, 600.0)
        assert hop.connections == 0

    async def test_a_held_mailbox_does_not_hold_the_others(self) -> None:
        wait = Held(Reply(451, "4.2.1", "too much for this mailbox"), 60.0)
        pacer = FreePacer({"b@inbox.test": wait})
        async with listening(Hop()) as hop, desk(hop.port, pacer=pacer) as ours:
            outcomes = await ours.send(message("a@inbox.test", "b@inbox.test", "c@inbox.test"))
        assert [outcome.verdict for outcome in outcomes] == [D, T, D]
        assert outcomes[1].reply == wait.reply
        assert hop.taken[0].rcpt == ["RCPT TO:<a@inbox.test>", "RCPT TO:<c@inbox.test>"]

    async def test_apart_means_a_transaction_each(self) -> None:
        pacer = FreePacer(turns=[Turn(1, {}, apart=True)])
        async with listening(Hop()) as hop, desk(hop.port, pacer=pacer) as ours:
            await ours.send(message("a@inbox.test", "b@inbox.test"))
        assert [len(taken.rcpt) for taken in hop.taken] == [1, 1]
        assert hop.connections == 1

    async def test_secure_means_no_clear_text(self) -> None:
        pacer = FreePacer(turns=[Turn(1, {}, secure=True)])
        async with listening(Hop(offers=PLAIN)) as hop, desk(hop.port, pacer=pacer) as ours:
            (outcome,) = await ours.send(message("a@inbox.test"))
        assert (outcome.verdict, outcome.reply.enhanced, hop.taken) == (T, "4.7.5", [])

    async def test_a_connection_carries_as_many_messages_as_the_provider_likes(self) -> None:
        pacer = FreePacer(turns=[Turn(n, {}, messages=2) for n in range(1, 5)])
        async with listening(Hop()) as hop, desk(hop.port, pacer=pacer) as ours:
            for n in range(4):
                await ours.send(message("a@inbox.test", content=b"\r\n%d\r\n" % n))
        assert (hop.connections, len(hop.taken)) == (2, 4)

    async def test_ipv4_means_that_ipv6_is_not_tried(self) -> None:
        pacer = FreePacer(turns=[Turn(1, {}, ipv4=True), Turn(2, {}, ipv4=True)])
        zone = {
            ("inbox.test", "MX"): ["10 six.inbox.test", "20 mx.inbox.test"],
            ("six.inbox.test", "AAAA"): ["::1"],
            ("mx.inbox.test", "A"): ["127.0.0.1"],
        }
        async with listening(Hop()) as hop, desk(hop.port, pacer=pacer, zone=zone) as ours:
            (outcome,) = await ours.send(message("a@inbox.test"))
        assert outcome.verdict is D
        failed = [fields for fields in ours.log.named("attempt") if fields.get("outcome") == "failed"]
        assert [fields["relay"] for fields in failed] == [str(Target("six.inbox.test", "::1", hop.port))]


async def test_a_host_that_never_says_a_word_is_asked_last_for_a_while() -> None:
    mute: dict[str, list[Answer]] = {"GREETING": [Trick.SILENT] * 5}
    async with (
        listening(Hop()) as second,
        listening(Hop(says=mute), "127.0.0.2", second.port) as first,
        desk(second.port, timeouts=Timeouts(greeting=0.2)) as ours,
    ):
        for number in range(3):
            (outcome,) = await ours.send(message("me@two.test", content=b"\r\n%d\r\n" % number))
            assert outcome.verdict is D
    assert first.connections == 1
