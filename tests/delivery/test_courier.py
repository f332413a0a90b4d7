"""The courier over real sockets on loopback, against a next hop that does as it is told."""

import asyncio
import hashlib
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from forwarder.delivery.classify import provider_of
from forwarder.delivery.pacer import LocalPacer
from forwarder.delivery.pacing import Pacing
from forwarder.delivery.providers import PacingSettings
from forwarder.delivery.settings import CourierSettings, Limits, Timeouts
from forwarder.model.address import parse_mailbox
from forwarder.model.destination import Destination
from forwarder.model.destination import Hop as NextHop
from forwarder.model.envelope import Body, MailOptions, RcptOptions
from forwarder.model.outcome import Outcome, Verdict
from forwarder.ports import Load, Turn
from forwarder.smtp.client import TlsUse
from tests.delivery.desk import BODY, HEAD, RunningClock, desk, message
from tests.delivery.hop import ALL, PLAIN, Answer, Hop, Trick, listening
from tests.fakes import FreePacer

D, R, T, RUNNING = Verdict.DELIVERED, Verdict.REFUSED, Verdict.DEFERRED, Verdict.RUNNING

IMPATIENT = Timeouts(greeting=1, command=1, handshake=1, data=1, dot=1, quit=1)


def verdicts(outcomes: Sequence[Outcome]) -> list[Verdict]:
    return [outcome.verdict for outcome in outcomes]


class TestOneMessage:
    @pytest.mark.parametrize("offers", [ALL, PLAIN, ()])
    async def test_arrives_octet_for_octet(self, offers: Sequence[str]) -> None:
        async with listening(Hop(offers=offers)) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert outcome.verdict is D
        assert (str(outcome.reply), outcome.remote, outcome.tls) == ("250 2.0.0 taken", True, "")
        assert outcome.relay == f"mx.inbox.test[127.0.0.1]:{hop.port}"
        assert [taken.octets for taken in hop.taken] == [HEAD + BODY]
        assert hop.taken[0].rcpt == ["RCPT TO:<me@inbox.test>"]

    @pytest.mark.parametrize(
        "body", [b"", b"\r\n", b".\r\n", b"..\r\n.\r\n", b"x" * 70_000 + b"\r\n.\r\n", b"\xff\r\n"]
    )
    @pytest.mark.parametrize("head", [b"", HEAD])
    async def test_odd_contents_arrive_octet_for_octet(self, body: bytes, head: bytes) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            outcomes = await ours.send(message("me@inbox.test", content=body, head=head))
        assert verdicts(outcomes) == [D]
        assert hop.taken[0].octets == head + body

    async def test_pipelining_is_used_when_offered(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            await ours.send(message("a@inbox.test", "b@inbox.test"))
        assert hop.verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"]

    async def test_parameters_follow_what_is_offered(self) -> None:
        options = MailOptions(body=Body.EIGHT_BIT, smtputf8=True, ret="HDRS", envid="e1")
        asked = RcptOptions(frozenset({"NEVER"}), "rfc822;alias@ours.test")
        outgoing = message("me@inbox.test", options=options)
        outgoing = replace(outgoing, deliveries=(replace(outgoing.deliveries[0], options=asked),))
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            await ours.send(outgoing)
        size = len(HEAD + BODY)
        mail = f"MAIL FROM:<from@srs.test> SIZE={size} BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e1"
        assert hop.taken[0].mail == mail
        assert hop.taken[0].rcpt == ["RCPT TO:<me@inbox.test> NOTIFY=NEVER ORCPT=rfc822;alias@ours.test"]
        async with listening(Hop(offers=())) as hop, desk(hop.port) as ours:
            await ours.send(outgoing)
        assert (hop.taken[0].mail, hop.taken[0].rcpt) == ("MAIL FROM:<from@srs.test>", ["RCPT TO:<me@inbox.test>"])

    async def test_the_null_sender_stays_null(self) -> None:
        async with listening(Hop(offers=())) as hop, desk(hop.port) as ours:
            await ours.send(message("me@inbox.test", sender=None))
        assert hop.taken[0].mail == "MAIL FROM:<>"

    async def test_every_outcome_is_logged_with_its_relay(self) -> None:
        answers: dict[str, Answer] = {
            "b@inbox.test": "550 5.1.1 no\x1b[31m such user",
            "c@inbox.test": "450 4.2.1 later",
        }
        async with listening(Hop(rcpt=answers)) as hop, desk(hop.port) as ours:
            await ours.send(message("a@inbox.test", "b@inbox.test", "c@inbox.test"))
            relay = f"mx.inbox.test[127.0.0.1]:{hop.port}"
            by_name = dict(ours.log.events)
        assert set(by_name) == {"delivered", "attempt", "deferred"}
        assert all(fields["relay"] == relay and fields["id"] == "id1" for fields in by_name.values())
        assert by_name["attempt"]["outcome"] == "refused"
        assert by_name["attempt"]["reply"] == "550 5.1.1 no?[31m such user"
        assert (by_name["delivered"]["destination"], by_name["delivered"]["code"]) == ("a@inbox.test", 250)
        assert by_name["delivered"]["to"] == "alias@ours.test"


class TestRefusals:
    @pytest.mark.parametrize("offers", [ALL, PLAIN])
    @pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
    @pytest.mark.parametrize(("reply", "verdict"), [("550 5.7.1 no", R), ("450 4.2.0 later", T)])
    async def test_the_verdict_of_the_hop_is_ours(
        self, offers: Sequence[str], verb: str, reply: str, verdict: Verdict
    ) -> None:
        async with listening(Hop(offers=offers, says={verb: [reply] * 2})) as hop, desk(hop.port) as ours:
            outcomes = await ours.send(message("a@inbox.test", "b@inbox.test"))
        assert verdicts(outcomes) == [verdict] * 2
        assert {str(outcome.reply) for outcome in outcomes} == {reply}
        assert all(outcome.remote for outcome in outcomes)
        assert hop.taken == []

    @pytest.mark.parametrize("offers", [ALL, PLAIN])
    async def test_each_recipient_has_an_outcome_of_its_own(self, offers: Sequence[str]) -> None:
        answers: dict[str, Answer] = {"b@inbox.test": "550 5.1.1 no", "c@inbox.test": "450 4.2.1 later"}
        async with listening(Hop(offers=offers, rcpt=answers)) as hop, desk(hop.port) as ours:
            outcomes = await ours.send(message("a@inbox.test", "b@inbox.test", "c@inbox.test", "d@inbox.test"))
        assert verdicts(outcomes) == [D, R, T, D]
        assert [taken.octets for taken in hop.taken] == [HEAD + BODY]

    @pytest.mark.parametrize("verb", ["GREETING", "EHLO"])
    @pytest.mark.parametrize("reply", ["554 5.7.1 go away", "421 4.3.2 busy"])
    async def test_what_is_said_about_us_never_refuses_the_message(self, verb: str, reply: str) -> None:
        says: dict[str, list[Answer]] = {verb: [reply], "HELO": [reply]}
        async with listening(Hop(says=says)) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, str(outcome.reply), outcome.remote) == (T, reply, True)

    async def test_a_host_that_takes_no_mail_refuses_for_good(self) -> None:
        async with listening(Hop(says={"GREETING": ["521 no mail here"]})) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert outcome.verdict is R

    @pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
    async def test_421_midway_defers_with_its_text(self, verb: str) -> None:
        async with listening(Hop(says={verb: ["421 4.7.28 too fast"]})) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, str(outcome.reply)) == (T, "421 4.7.28 too fast")
        assert hop.connections == 1

    async def test_a_message_over_the_size_limit_is_not_offered(self) -> None:
        async with listening(Hop(offers=["SIZE 20"])) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, outcome.reply.code, outcome.reply.enhanced) == (R, 552, "5.3.4")
        assert hop.verbs == ["EHLO", "QUIT"]

    async def test_8_bit_content_is_not_sent_where_it_is_not_taken(self) -> None:
        async with listening(Hop(offers=["PIPELINING"])) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test", content=b"\r\n\xc3\xa9\r\n"))
        assert (outcome.verdict, outcome.reply.code, outcome.reply.enhanced) == (R, 554, "5.6.3")
        assert hop.verbs == ["EHLO", "QUIT"]

    async def test_a_header_in_utf8_needs_smtputf8(self) -> None:
        utf8 = MailOptions(smtputf8=True)
        header = message("me@inbox.test", content="Subject: é\r\n\r\nx\r\n".encode(), options=utf8)
        body = message("me@inbox.test", content="Subject: e\r\n\r\né\r\n".encode(), options=utf8)
        head = message("me@inbox.test", options=utf8, head="X-To: é\r\n".encode())
        async with listening(Hop(offers=["8BITMIME"])) as hop, desk(hop.port) as ours:
            (refused,) = await ours.send(header)
            (ours_refused,) = await ours.send(head)
            (taken,) = await ours.send(body)
        assert ours_refused.reply.enhanced == "5.6.7"
        assert (refused.verdict, refused.reply.code, refused.reply.enhanced) == (R, 550, "5.6.7")
        assert taken.verdict is D

    async def test_a_reply_without_end_is_cut_off(self) -> None:
        endless = b"250-" + b"x" * 60 + b"\r\n"
        async with listening(Hop(says={"DOT": [endless * 16_000]})) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert outcome.verdict is T
        assert "it is not known whether it was delivered" in outcome.reply.text
        assert len(outcome.reply.text) < 400

    async def test_a_long_reply_is_kept_in_part(self) -> None:
        long = b"550-5.7.1 \x1b[2J\x00" + b"x" * 60 + b"\r\n"
        async with listening(Hop(says={"DOT": [long * 500 + b"550 5.7.1 end\r\n"]})) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert outcome.verdict is R
        assert len(outcome.reply.text) <= 2_100
        assert outcome.reply.text.replace("\n", "").isprintable()


class TestOtherHosts:
    @pytest.mark.parametrize(
        "first",
        [
            Hop(says={"GREETING": ["554 no"]}),
            Hop(says={"GREETING": [Trick.CLOSE]}),
            Hop(says={"GREETING": [Trick.SILENT]}),
            Hop(says={"EHLO": ["550 no"], "HELO": ["550 no"]}),
            Hop(says={"MAIL": [Trick.CLOSE]}),
            Hop(says={"RCPT": ["421 4.3.0 shutting down"]}),
            Hop(says={"DATA": [Trick.CLOSE]}),
            Hop(says={"DATA": ["250 thank you"]}),
            Hop(says={"MAIL": [b"what?\r\n"]}),
        ],
        ids=lambda hop: str(hop.says),
    )
    async def test_the_next_one_is_asked_before_the_dot(self, first: Hop) -> None:
        first = Hop(says={verb: list(answers) for verb, answers in first.says.items()})
        async with (
            listening(Hop()) as second,
            listening(first, "127.0.0.2", second.port),
            desk(second.port, timeouts=IMPATIENT) as ours,
        ):
            (outcome,) = await ours.send(message("me@two.test"))
        assert outcome.verdict is D
        assert outcome.relay.startswith("second.two.test[127.0.0.1]")
        assert [taken.octets for taken in second.taken] == [HEAD + BODY]
        assert [fields["outcome"] for fields in ours.log.named("attempt")] == ["failed"]

    async def test_who_was_out_of_reach_is_asked_last_for_a_while(self) -> None:
        async with listening(Hop()) as second, desk(second.port) as ours:
            await ours.send(message("me@two.test"))
            await ours.send(message("me@two.test"))
            assert len(ours.log.named("attempt")) == 1
        async with desk(second.port) as ours:  # and now nobody is there at all: everybody is asked all the same
            for _ in range(2):
                await ours.send(message("me@two.test"))
            assert len(ours.log.named("attempt")) == 4

    async def test_the_next_one_is_asked_when_nobody_listens(self) -> None:
        async with listening(Hop()) as second, desk(second.port) as ours:
            (outcome,) = await ours.send(message("me@two.test"))
        assert outcome.verdict is D
        assert "connection refused" in str(ours.log.named("attempt")[0]["reply"])

    async def test_nobody_else_is_asked_when_the_attempt_took_too_long(self) -> None:
        async with (
            listening(Hop()) as second,
            listening(Hop(says={"MAIL": [Trick.SILENT]}), "127.0.0.2", second.port),
            desk(second.port, timeouts=Timeouts(attempt=0.3)) as ours,
        ):
            (outcome,) = await ours.send(message("me@two.test"))
        assert (outcome.verdict, second.connections) == (T, 0)
        assert "the attempt took longer than 0.3 s" in outcome.reply.text

    @pytest.mark.parametrize("answer", [Trick.CLOSE, Trick.SILENT, "354 go ahead", b"\x00\r\n"])
    async def test_nobody_else_is_asked_after_the_dot(self, answer: Answer) -> None:
        async with (
            listening(Hop()) as second,
            listening(Hop(says={"DOT": [answer]}), "127.0.0.2", second.port),
            desk(second.port, timeouts=IMPATIENT) as ours,
        ):
            (outcome,) = await ours.send(message("me@two.test"))
        assert outcome.verdict is T
        assert "it is not known whether it was delivered" in outcome.reply.text
        assert second.connections == 0

    async def test_those_decided_are_not_offered_again(self) -> None:
        first = Hop(rcpt={"b@two.test": "550 5.1.1 no"}, says={"DATA": [Trick.CLOSE]})
        async with listening(Hop()) as second, listening(first, "127.0.0.2", second.port), desk(second.port) as ours:
            outcomes = await ours.send(message("a@two.test", "b@two.test", "c@two.test"))
        assert verdicts(outcomes) == [D, R, D]
        assert second.taken[0].rcpt == ["RCPT TO:<a@two.test>", "RCPT TO:<c@two.test>"]

    async def test_a_verdict_on_the_message_is_not_appealed(self) -> None:
        first = Hop(says={"MAIL": ["450 4.7.1 greylisted"]})
        async with listening(Hop()) as second, listening(first, "127.0.0.2", second.port), desk(second.port) as ours:
            (outcome,) = await ours.send(message("me@two.test"))
        assert outcome.verdict is T
        assert second.connections == 0

    async def test_a_pause_asked_of_us_is_not_evaded(self) -> None:
        first = Hop(says={"MAIL": ["421 4.7.28 too fast"]})
        async with listening(Hop()) as second, listening(first, "127.0.0.2", second.port), desk(second.port) as ours:
            (outcome,) = await ours.send(message("me@two.test"))
        assert (outcome.verdict, second.connections) == (T, 0)

    async def test_when_all_fail_a_reply_of_a_host_is_told(self) -> None:
        async with (
            listening(Hop(says={"GREETING": ["554 5.7.1 your address is listed"]}), "127.0.0.2") as first,
            desk(first.port) as ours,
        ):
            (outcome,) = await ours.send(message("me@two.test"))
        assert (outcome.verdict, outcome.reply.text) == (T, "your address is listed")

    async def test_a_refused_connection_defers(self) -> None:
        async with listening(Hop()) as hop:
            pass
        async with desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, outcome.reply.enhanced, outcome.remote) == (T, "4.4.1", False)
        assert "connection refused" in outcome.reply.text

    async def test_dns_decides_where_there_is_no_host(self) -> None:
        zone = {("null.test", "MX"): ["0 ."], ("inbox.test", "MX"): ["10 mx.inbox.test"]}
        async with desk(1, zone=zone) as ours:
            ours.resolver.failing = frozenset({"silent.test"})
            outcomes = await ours.send(message("a@null.test", "a@nowhere.test", "a@silent.test"))
        assert verdicts(outcomes) == [R, R, T]
        assert [outcome.reply.enhanced for outcome in outcomes] == ["5.1.10", "5.1.2", "4.4.3"]

    async def test_helo_is_tried_where_ehlo_is_unknown(self) -> None:
        async with listening(Hop(says={"EHLO": ["502 5.5.1 what?"]})) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert outcome.verdict is D
        assert hop.verbs[:3] == ["EHLO", "HELO", "MAIL"]

    async def test_an_explicit_hop_needs_no_mx(self) -> None:
        async with listening(Hop(), "127.0.0.3") as hop, desk(1) as ours:
            outgoing = message("me@nowhere.test")
            via = NextHop("127.0.0.3", hop.port)
            delivery = replace(outgoing.deliveries[0], destination=Destination(parse_mailbox("me@nowhere.test"), via))
            (outcome,) = await ours.send(replace(outgoing, deliveries=(delivery,)))
        assert outcome.verdict is D
        assert ours.resolver.asked == []

    async def test_the_source_address_is_used(self) -> None:
        seen = []

        class Watching(Hop):
            async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                seen.append(writer.get_extra_info("peername")[0])
                await super().serve(reader, writer)

        async with listening(Watching()) as hop, desk(hop.port, source="127.0.0.9") as ours:
            await ours.send(message("me@inbox.test"))
        assert seen == ["127.0.0.9"]


class TestTls:
    async def test_is_used_where_offered(self) -> None:
        async with listening(Hop(tls=True)) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, outcome.tls) == (D, "TLSv1.3")
        assert hop.taken[0].tls
        assert hop.taken[0].octets == HEAD + BODY
        assert hop.verbs == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA", "QUIT"]

    @pytest.mark.parametrize(
        "answer", [Trick.GARBAGE_HANDSHAKE, "454 4.7.0 not now", "500 5.5.1 what?"], ids=["garbage", "454", "500"]
    )
    async def test_clear_text_will_do_when_it_fails(self, answer: Answer) -> None:
        async with listening(Hop(tls=True, says={"STARTTLS": [answer]})) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, outcome.tls) == (D, "")

    @pytest.mark.parametrize("answer", [Trick.GARBAGE_HANDSHAKE, Trick.CLOSE, Trick.SILENT, "454 4.7.0 not now"])
    async def test_clear_text_will_not_do_when_tls_is_required(self, answer: Answer) -> None:
        async with (
            listening(Hop(tls=True, says={"STARTTLS": [answer] * 3})) as hop,
            desk(hop.port, tls=TlsUse.REQUIRE, timeouts=IMPATIENT) as ours,
        ):
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert outcome.verdict is T
        assert "MAIL" not in hop.verbs

    async def test_required_and_not_offered_defers(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port, tls=TlsUse.REQUIRE) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, outcome.reply.enhanced) == (T, "4.7.5")
        assert "MAIL" not in hop.verbs

    async def test_required_and_offered_delivers(self) -> None:
        async with listening(Hop(tls=True)) as hop, desk(hop.port, tls=TlsUse.REQUIRE) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, outcome.tls) == (D, "TLSv1.3")

    async def test_replies_injected_behind_starttls_abort(self) -> None:
        injected = b"220 go\r\n250-hop.test\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 ok\r\n250 taken\r\n"
        async with listening(Hop(tls=True, says={"STARTTLS": [injected]})) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, outcome.reply.enhanced) == (T, "4.7.5")
        assert hop.taken == []
        assert "MAIL" not in hop.verbs


class TestReuse:
    async def test_one_connection_carries_several_messages(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            for _ in range(3):
                assert verdicts(await ours.send(message("me@inbox.test"))) == [D]
        assert (hop.connections, len(hop.taken)) == (1, 3)
        assert "RSET" not in hop.verbs

    async def test_a_failed_transaction_is_reset(self) -> None:
        async with listening(Hop(rcpt={"b@inbox.test": "550 no"})) as hop, desk(hop.port) as ours:
            outcomes = [*await ours.send(message("b@inbox.test")), *await ours.send(message("a@inbox.test"))]
        assert verdicts(outcomes) == [R, D]
        assert hop.connections == 1
        assert hop.verbs == ["EHLO", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]

    async def test_at_most_so_many_messages(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port, limits=Limits(messages=2)) as ours:
            for _ in range(4):
                await ours.send(message("me@inbox.test"))
        assert (hop.connections, len(hop.taken)) == (2, 4)

    @pytest.mark.parametrize("answer", [Trick.CLOSE, "421 4.4.2 idle for too long", "421 4.7.0 idle for too long"])
    async def test_a_dead_one_is_replaced(self, answer: Answer) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            await ours.send(message("me@inbox.test"))
            hop.says["MAIL"] = [answer]
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert outcome.verdict is D
        assert (hop.connections, len(hop.taken)) == (2, 2)
        assert ours.log.named("attempt") == []

    async def test_one_that_is_ended_at_the_reset_is_replaced(self) -> None:
        async with listening(Hop(rcpt={"b@inbox.test": "550 no"})) as hop, desk(hop.port) as ours:
            await ours.send(message("b@inbox.test"))
            hop.says["RSET"] = ["421 4.7.0 too many errors"]
            (outcome,) = await ours.send(message("a@inbox.test"))
        assert (outcome.verdict, hop.connections) == (D, 2)

    async def test_a_pause_that_the_fresh_one_hears_as_well_is_kept(self) -> None:
        async with (
            listening(Hop()) as second,
            listening(Hop(), "127.0.0.2", second.port) as first,
            desk(second.port) as ours,
        ):
            await ours.send(message("me@two.test"))
            first.says["MAIL"] = ["421 4.7.28 too fast"] * 2
            (outcome,) = await ours.send(message("me@two.test"))
        assert (outcome.verdict, str(outcome.reply)) == (T, "421 4.7.28 too fast")
        assert (first.connections, second.connections) == (2, 0)

    async def test_one_that_dies_later_is_a_failure_of_the_host(self) -> None:
        async with listening(Hop(offers=PLAIN)) as hop, desk(hop.port) as ours:
            await ours.send(message("me@inbox.test"))
            hop.says["RCPT"] = [Trick.CLOSE]
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert (outcome.verdict, hop.connections) == (T, 1)
        assert len(ours.log.named("attempt")) == 1

    async def test_one_that_was_closed_meanwhile_is_replaced(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            await ours.send(message("me@inbox.test"))
            await hop.stop()
            (outcome,) = await ours.send(message("me@inbox.test"))
        assert outcome.verdict is D
        assert hop.connections == 2

    async def test_those_that_spoke_up_meanwhile_are_not_asked(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.WAIT] * 2})) as hop, desk(hop.port) as ours:
            sent = [asyncio.create_task(ours.send(message("me@inbox.test"))) for _ in range(2)]
            async with asyncio.timeout(10):
                while hop.verbs.count("DATA") < 2:
                    await asyncio.sleep(0.01)
            hop.go.set()
            await asyncio.gather(*sent)
            hop.speak_up(b"421 4.4.2 idle for too long\r\n")
            await asyncio.sleep(0.05)
            hop.lines.clear()
            (outcome,) = await ours.send(message("me@inbox.test"))
            assert (outcome.verdict, hop.verbs) == (D, ["EHLO", "MAIL", "RCPT", "DATA"])

    NEW: Sequence[tuple[MailOptions | None, bytes, str]] = [
        (None, b"\r\n" + b"x" * 98 + b"\r\n", "me@inbox.test"),
        (None, b"\r\n\xc3\xa9\r\n", "me@inbox.test"),
        (MailOptions(smtputf8=True), b"Subject: \xc3\xa9\r\n\r\n", "me@inbox.test"),
        (MailOptions(smtputf8=True), BODY, "mé@inbox.test"),
    ]

    @pytest.mark.parametrize(("options", "content", "to"), NEW, ids=["size", "8-bit", "header", "address"])
    async def test_only_what_is_offered_now_refuses(self, options: MailOptions | None, content: bytes, to: str) -> None:
        """What was offered to an earlier message is asked again before it refuses one for good."""
        small = [f"SIZE {len(HEAD + BODY)}"]
        async with listening(Hop(offers=small)) as hop, desk(hop.port) as ours:
            await ours.send(message("me@inbox.test"))
            (refused,) = await ours.send(message(to, content=content, options=options))
            hop.offers = ALL
            (taken,) = await ours.send(message(to, content=content, options=options))
            assert verdicts([refused, taken]) == [R, D]
            assert (hop.connections, len(hop.taken)) == (3, 2)
            async with asyncio.timeout(10):
                while hop.open > 1:  # those with an old offer do not stay
                    await asyncio.sleep(0.01)

    async def test_one_that_says_more_than_it_was_asked_is_not_used_again(self) -> None:
        async with listening(Hop(says={"DOT": [b"250 taken\r\n250 and another\r\n"]})) as hop, desk(hop.port) as ours:
            for _ in range(2):
                assert verdicts(await ours.send(message("me@inbox.test"))) == [D]
        assert hop.connections == 2

    async def test_an_idle_one_is_closed_after_a_while(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port, limits=Limits(idle=0.05)) as ours:
            for _ in range(2):
                await ours.send(message("me@inbox.test"))
                async with asyncio.timeout(10):
                    while hop.open:
                        await asyncio.sleep(0.01)
        assert hop.verbs.count("QUIT") == 2


@dataclass
class _Selective(FreePacer):
    """Has no turns for the host slow.test; says in `asked` that somebody wants one for it."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def turn(self, load: Load, until: float) -> Turn:
        self.asked.set()
        if load.host == "slow.test":
            await asyncio.Event().wait()
        return await super().turn(load, until)


def _pacer(per_destination: int) -> LocalPacer:
    return LocalPacer(Pacing(PacingSettings(per_destination), provider_of), RunningClock())


class TestManyAtOnce:
    async def test_twenty_destinations(self) -> None:
        zone = {(f"d{n}.test", "A"): ["127.0.0.1"] for n in range(20)}
        async with listening(Hop()) as hop, desk(hop.port, zone=zone) as ours:
            outcomes = await ours.send(message(*(f"me@d{n}.test" for n in range(20))))
        assert verdicts(outcomes) == [D] * 20
        assert sorted(taken.rcpt[0] for taken in hop.taken) == sorted(f"RCPT TO:<me@d{n}.test>" for n in range(20))

    async def test_so_many_connections_to_one_destination(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port, pacer=_pacer(3)) as ours:
            sent = [ours.send(message("me@inbox.test", content=b"\r\n%d\r\n" % n)) for n in range(20)]
            outcomes = [outcome for (outcome,) in await asyncio.gather(*sent)]
        assert verdicts(outcomes) == [D] * 20
        assert hop.most_open <= 3

    async def test_who_has_no_turn_by_the_deadline_is_deferred(self) -> None:
        async with (
            listening(Hop(says={"GREETING": [Trick.WAIT]})) as hop,
            desk(hop.port, pacer=_pacer(1)) as ours,
        ):
            first = asyncio.create_task(ours.send(message("me@inbox.test")))
            await asyncio.sleep(0)
            (waited,) = await ours.send(message("me@inbox.test", content=b"\r\nother\r\n"), seconds=0.05)
            hop.go.set()
            (outcome,) = await first
            (after,) = await ours.send(message("me@inbox.test", content=b"\r\nother\r\n"))
        assert (waited.verdict, waited.reply.enhanced) == (T, "4.4.5")
        assert (outcome.verdict, after.verdict) == (D, D)
        assert len(hop.taken) == 2

    async def test_who_waits_for_one_provider_takes_no_room_from_others(self) -> None:
        zone = {("slow.test", "A"): ["127.0.0.2"], ("quick.test", "A"): ["127.0.0.1"]}
        pacer = _Selective()
        async with (
            listening(Hop()) as hop,
            desk(hop.port, zone=zone, limits=Limits(connections=1), pacer=pacer) as ours,
        ):
            waiting = asyncio.create_task(ours.send(message("me@slow.test"), seconds=60))
            await pacer.asked.wait()
            (outcome,) = await ours.send(message("me@quick.test"), seconds=60)
            waiting.cancel()
        assert outcome.verdict is D

    async def test_a_turn_that_found_no_connection_free_says_nothing_of_its_provider(self) -> None:
        pacer = _Selective()
        async with (
            listening(Hop(says={"GREETING": [Trick.WAIT]})) as hop,
            desk(hop.port, limits=Limits(connections=1), pacer=pacer) as ours,
        ):
            first = asyncio.create_task(ours.send(message("me@inbox.test")))
            await pacer.asked.wait()
            (waited,) = await ours.send(message("me@inbox.test", content=b"\r\nother\r\n"), seconds=0.05)
            hop.go.set()
            await first
        assert (waited.verdict, waited.reply.enhanced) == (T, "4.4.5")
        assert [[outcome.verdict for outcome in heard] for _, heard in pacer.heard] == [[Verdict.UNTRIED], [D]]

    async def test_so_many_recipients_in_one_transaction(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port, limits=Limits(recipients=2)) as ours:
            outcomes = await ours.send(message("a@inbox.test", "b@inbox.test", "c@inbox.test"))
        assert verdicts(outcomes) == [D] * 3
        assert sorted(len(taken.rcpt) for taken in hop.taken) == [1, 2]

    async def test_heads_of_their_own_go_in_transactions_of_their_own(self) -> None:
        outgoing = message("a@inbox.test", "b@inbox.test", "c@inbox.test")
        heads = [b"X-Forwarded-To: 1\r\n", b"X-Forwarded-To: 2\r\n", b"X-Forwarded-To: 1\r\n"]
        deliveries = tuple(replace(one, head=head) for one, head in zip(outgoing.deliveries, heads, strict=True))
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            outcomes = await ours.send(replace(outgoing, deliveries=deliveries))
        assert verdicts(outcomes) == [D] * 3
        assert sorted((taken.octets[:17], len(taken.rcpt)) for taken in hop.taken) == [
            (b"X-Forwarded-To: 1", 2),
            (b"X-Forwarded-To: 2", 1),
        ]


class TestDeadline:
    async def test_what_is_undecided_runs_on_and_is_remembered(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.WAIT]})) as hop, desk(hop.port) as ours:
            (outcome,) = await ours.send(message("me@inbox.test"), seconds=0.1)
            assert outcome.verdict is RUNNING
            hop.go.set()
            async with asyncio.timeout(10):
                while not ours.log.named("delivered"):
                    await asyncio.sleep(0.01)
            (again,) = await ours.send(message("me@inbox.test"))
        assert (again.verdict, str(again.reply)) == (D, "250 2.0.0 taken")
        assert len(hop.taken) == 1

    async def test_a_retry_joins_what_is_running(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.WAIT]})) as hop, desk(hop.port) as ours:
            await ours.send(message("me@inbox.test"), seconds=0.1)
            again = asyncio.create_task(ours.send(message("me@inbox.test")))
            await asyncio.sleep(0.05)
            hop.go.set()
            assert verdicts(await again) == [D]
        assert (hop.connections, len(hop.taken)) == (1, 1)

    async def test_a_part_delivered_is_not_delivered_again(self) -> None:
        answers: dict[str, Answer] = {"b@inbox.test": "450 4.2.1 later"}
        async with listening(Hop(rcpt=answers)) as hop, desk(hop.port) as ours:
            assert verdicts(await ours.send(message("a@inbox.test", "b@inbox.test"))) == [D, T]
            answers.clear()
            assert verdicts(await ours.send(message("a@inbox.test", "b@inbox.test"))) == [D, D]
            assert [taken.rcpt for taken in hop.taken] == [["RCPT TO:<a@inbox.test>"], ["RCPT TO:<b@inbox.test>"]]
            await asyncio.sleep(0)
            # and once all have it, the same message sent anew is a new one
            assert verdicts(await ours.send(message("a@inbox.test", "b@inbox.test"))) == [D, D]
        assert hop.taken[2].rcpt == ["RCPT TO:<a@inbox.test>", "RCPT TO:<b@inbox.test>"]

    async def test_another_content_sender_or_alias_is_another_message(self) -> None:
        async with listening(Hop(rcpt={"b@inbox.test": "450 4.2.1 later"})) as hop, desk(hop.port) as ours:
            first = message("a@inbox.test", "b@inbox.test")
            await ours.send(first)
            a, b = first.deliveries
            alias = parse_mailbox("other@ours.test")
            others = [
                message("a@inbox.test", "b@inbox.test", content=b"\r\nother\r\n"),
                replace(first, original_sender=parse_mailbox("else@stranger.test")),
                replace(first, deliveries=(replace(a, recipient=alias), replace(b, recipient=alias))),
            ]
            for other in others:
                assert verdicts(await ours.send(other)) == [D, T]
        assert len(hop.taken) == 4

    async def test_a_whole_success_is_not_remembered(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            for _ in range(2):
                assert verdicts(await ours.send(message("me@inbox.test"))) == [D]
        assert len(hop.taken) == 2

    async def test_a_caller_that_goes_away_is_remembered_for(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.WAIT]})) as hop, desk(hop.port) as ours:
            call = asyncio.create_task(ours.send(message("me@inbox.test")))
            async with asyncio.timeout(10):
                while "DATA" not in hop.verbs:
                    await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([call])
            hop.go.set()
            async with asyncio.timeout(10):
                while not ours.log.named("delivered"):
                    await asyncio.sleep(0.01)
            assert verdicts(await ours.send(message("me@inbox.test"))) == [D]
        assert len(hop.taken) == 1

    async def test_a_success_that_nobody_heard_of_makes_no_second_copy(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            sent = message("a@inbox.test", "b@inbox.test")
            await ours.send(sent)
            await ours.courier.unheard(sent)
            await ours.courier.unheard(message("c@inbox.test"))  # nothing is known of it
            assert verdicts(await ours.send(sent)) == [D, D]
            assert len(hop.taken) == 1
            await asyncio.sleep(0)
            assert verdicts(await ours.send(sent)) == [D, D]  # and now it was heard: this is a new one
        assert len(hop.taken) == 2

    async def test_equal_messages_at_once_are_each_delivered(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.WAIT] * 4})) as hop, desk(hop.port) as ours:
            sent = [asyncio.create_task(ours.send(message("a@inbox.test", "b@inbox.test"))) for _ in range(4)]
            async with asyncio.timeout(10):
                while hop.verbs.count("DATA") < 4:
                    await asyncio.sleep(0.01)
            hop.go.set()
            assert [verdicts(outcomes) for outcomes in await asyncio.gather(*sent)] == [[D, D]] * 4
        assert len(hop.taken) == 4

    async def test_equal_messages_that_all_run_on_are_all_joined(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.WAIT] * 3})) as hop, desk(hop.port) as ours:
            first = await asyncio.gather(*(ours.send(message("me@inbox.test"), seconds=0.2) for _ in range(3)))
            assert [verdicts(outcomes) for outcomes in first] == [[RUNNING]] * 3
            again = [asyncio.create_task(ours.send(message("me@inbox.test"))) for _ in range(3)]
            await asyncio.sleep(0.05)
            hop.go.set()
            assert [verdicts(outcomes) for outcomes in await asyncio.gather(*again)] == [[D]] * 3
            await ours.courier.close(10)
        assert len(hop.taken) == 3

    async def test_the_end_of_one_does_not_hide_an_equal_one_that_runs_on(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.DEFER, Trick.SILENT]})) as hop, desk(hop.port) as ours:
            first = await asyncio.gather(*(ours.send(message("me@inbox.test"), seconds=0.2 * n) for n in (1, 2)))
            assert [verdicts(outcomes) for outcomes in first] == [[RUNNING]] * 2
            hop.go.set()
            async with asyncio.timeout(10):
                while not ours.log.named("deferred"):
                    await asyncio.sleep(0.01)
            assert verdicts(await ours.send(message("me@inbox.test"), seconds=0.1)) == [RUNNING]
        assert hop.connections == 2

    async def test_the_success_of_an_equal_message_is_not_that_of_the_other(self) -> None:
        """One of two equal messages fails in part; that the other succeeds does not make its retry a second copy."""
        second: list[Answer] = [Trick.WAIT]
        async with listening(Hop(offers=PLAIN, says={"DOT": second})) as hop, desk(hop.port) as ours:
            slow = asyncio.create_task(ours.send(message("a@inbox.test", "b@inbox.test")))
            async with asyncio.timeout(10):
                while "DATA" not in hop.verbs:
                    await asyncio.sleep(0.01)
            hop.rcpt["b@inbox.test"] = "450 4.2.1 later"
            assert verdicts(await ours.send(message("a@inbox.test", "b@inbox.test"))) == [D, T]
            hop.rcpt.clear()
            hop.go.set()
            assert verdicts(await slow) == [D, D]
            assert verdicts(await ours.send(message("a@inbox.test", "b@inbox.test"))) == [D, D]
        assert sorted(line for taken in hop.taken for line in taken.rcpt) == [
            *["RCPT TO:<a@inbox.test>"] * 2,
            *["RCPT TO:<b@inbox.test>"] * 2,
        ]

    async def test_close_waits_for_what_is_under_way(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.WAIT]})) as hop, desk(hop.port) as ours:
            await ours.send(message("me@inbox.test"), seconds=0.1)
            asyncio.get_running_loop().call_later(0.05, hop.go.set)
            await ours.courier.close(10)
            assert len(ours.log.named("delivered")) == 1

    async def test_close_ends_what_takes_too_long(self) -> None:
        async with listening(Hop(says={"DOT": [Trick.SILENT]})) as hop, desk(hop.port) as ours:
            sending = asyncio.create_task(ours.send(message("me@inbox.test")))
            async with asyncio.timeout(10):
                while "DATA" not in hop.verbs:
                    await asyncio.sleep(0.01)
            await ours.courier.close(0.01)
            (outcome,) = await sending
        assert (outcome.verdict, outcome.reply.enhanced) == (T, "4.3.2")


class TestReconfiguration:
    async def test_what_begins_later_goes_by_the_new_settings(self) -> None:
        async with (
            listening(Hop(says={"DOT": [Trick.WAIT]})) as old,
            listening(Hop(), "127.0.0.2") as new,
            desk(old.port) as ours,
        ):
            running = asyncio.create_task(ours.send(message("me@inbox.test")))
            async with asyncio.timeout(10):
                while "DATA" not in old.verbs:
                    await asyncio.sleep(0.01)
            routes = {"inbox.test": NextHop("127.0.0.2", new.port)}
            ours.courier.reconfigure(CourierSettings("other.test", routes=routes))
            (later,) = await ours.send(message("me@inbox.test", content=b"\r\nlater\r\n"))
            old.go.set()
            (before,) = await running
        assert (later.verdict, later.relay) == (D, f"127.0.0.2[127.0.0.2]:{new.port}")
        assert (before.verdict, len(old.taken)) == (D, 1)
        assert new.lines[0] == "EHLO other.test"
        assert old.lines[-1] == "QUIT"  # what the old settings left idle is closed at the end as well

    async def test_the_same_settings_change_nothing(self) -> None:
        async with listening(Hop()) as hop, desk(hop.port) as ours:
            await ours.send(message("me@inbox.test"))
            ours.courier.reconfigure(CourierSettings("mx.ours.test", port=hop.port))
            await ours.send(message("me@inbox.test"))
        assert hop.connections == 1


class _Made:
    """25 MB that are made as they are asked for."""

    size = 25_000_000
    eight_bit = False
    digest = hashlib.sha256(b"made").digest()

    def head(self, limit: int) -> bytes:
        return (b"x" * 98 + b"\r\n")[:limit]

    def chunks(self) -> Iterator[bytes]:
        for _ in range(250):
            yield (b"x" * 98 + b"\r\n") * 1000


class _Unreadable(_Made):
    def chunks(self) -> Iterator[bytes]:
        yield b"x\r\n" * 100_000
        raise OSError(5, "Input/output error")


async def test_a_large_message_streams_in_flat_memory() -> None:
    async with listening(Hop(keep=False)) as hop, desk(hop.port) as ours:
        outgoing = message("me@inbox.test", content=_Made())
        tracemalloc.start()
        try:
            (outcome,) = await ours.send(outgoing, seconds=60)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert outcome.verdict is D
    assert hop.octets == 25_000_000 + len(HEAD) + len(b".\r\n")
    assert most < 2_000_000


async def test_content_that_cannot_be_read_is_never_ended_with_a_dot() -> None:
    async with listening(Hop()) as hop, desk(hop.port) as ours:
        (outcome,) = await ours.send(message("me@inbox.test", content=_Unreadable()))
    assert (outcome.verdict, outcome.reply.enhanced) == (T, "4.3.0")
    assert "Input/output" not in outcome.reply.text
    assert hop.taken == []
    assert len(ours.log.named("alert")) == 1
