"""One client's session, verb by verb. `test_row_…` are rows of the acceptance table that concern the envelope."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.model.destination import Hop
from forwarder.model.envelope import Tls
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from tests.session.stage import DELIVERED, MESSAGE, Stage, srs


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_message_is_forwarded_with_a_rewritten_sender(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<Me@ours.example>")
    reply = await stage.send()
    assert (reply.code, reply.enhanced) == (250, "2.0.0")
    (message,) = stage.courier.messages
    assert message.sender == srs("a@sender.example")
    assert str(message.original_sender) == "a@sender.example"
    assert stage.sent_to() == ["me@inbox.example"]
    assert b"".join(message.content.chunks()) == MESSAGE
    head = message.deliveries[0].head
    assert head.startswith(
        b"X-Forwarded-To: me@inbox.example\r\nX-Forwarded-For: Me@ours.example me@inbox.example\r\n"
        b"Delivered-To: me@ours.example\r\nAuthentication-Results: mx.ours.example;\r\n\t"
    )
    assert b"\r\nReceived: from client.example (" in head


async def test_the_id_is_in_the_reply_the_trace_line_and_every_event(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    reply = await stage.send()
    (message,) = stage.courier.messages
    assert len(message.id) == 16
    assert f"id {message.id}" in reply.text
    assert f"id {message.id}\r\n".encode() in message.deliveries[0].head
    assert {fields.get("id") for name, fields in stage.log.events if name != "connect"} == {message.id}


async def test_ids_differ_and_sort(stage: Stage) -> None:
    first = stage.gateway.new_id()
    stage.clock.advance(1)
    assert first < stage.gateway.new_id()
    assert stage.gateway.new_id() != stage.gateway.new_id()


async def test_a_reply_that_nobody_heard_is_told_to_the_courier(stage: Stage) -> None:
    stage.session.unheard()
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    await stage.send()
    stage.session.unheard()
    await asyncio.sleep(0)
    (told,), (sent,) = stage.courier.untold, stage.courier.messages
    assert (told.id, told.deliveries, told.content.digest) == (sent.id, sent.deliveries, sent.content.digest)
    assert list(told.content.chunks()) == []  # an idle session holds no message
    refusal = Outcome(Verdict.REFUSED, Reply(550, "5.7.1", "spam"), "mx[192.0.2.9]:25", remote=True)
    stage.courier.outcome = lambda _: refusal
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    await stage.send()
    stage.session.unheard()
    await asyncio.sleep(0)
    assert len(stage.courier.untold) == 1
    assert [fields["id"] for fields in stage.log.named("unheard")] == [sent.id]


async def test_who_gets_a_message_by_another_alias_is_not_kept_from_it_by_a_limit(stage: Stage) -> None:
    for _ in range(2):
        await stage.begin("<a@sender.example>", "<few@ours.example>")
        await stage.send()
    other = Stage()
    object.__setattr__(other.gateway, "limiter", stage.gateway.limiter)
    await other.begin("<a@sender.example>", "<both@ours.example>")
    stage.clock.advance(3601)
    other.clock.advance(3601)
    assert await other.say("RCPT TO:<few@ours.example>") == "250 2.1.5"
    for _ in range(2):
        await stage.begin("<b@sender.example>", "<few@ours.example>")
        await stage.send()
    assert (await other.send()).code == 250
    assert other.sent_to() == ["me@inbox.example", "other@inbox.example"]
    assert other.keeper.kept == []


async def test_the_deadline_is_the_configured_time_from_now(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    await stage.send()
    assert stage.courier.deadlines == [stage.clock.monotonic() + 25]


async def test_the_null_sender_stays_null(stage: Stage) -> None:
    await stage.begin("<>", "<me@ours.example>")
    await stage.send()
    assert stage.courier.messages[0].sender is None


async def test_dsn_parameters_travel_with_the_envelope(stage: Stage) -> None:
    await stage.begin("<a@sender.example> RET=HDRS ENVID=abc")
    assert await stage.say("RCPT TO:<me@ours.example> NOTIFY=NEVER ORCPT=rfc822;x@y.example") == "250 2.1.5"
    await stage.send()
    (message,) = stage.courier.messages
    assert (message.options.ret, message.options.envid) == ("HDRS", "abc")
    assert message.deliveries[0].options.notify == {"NEVER"}
    assert message.deliveries[0].options.orcpt == "rfc822;x@y.example"


async def test_an_explicit_next_hop_reaches_the_courier(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<via@ours.example>")
    await stage.send()
    assert stage.courier.messages[0].deliveries[0].destination.via == Hop("192.0.2.7", 26)


async def test_fan_out_and_two_aliases_of_one_mailbox(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<both@ours.example>", "<sales@ours.example>")
    await stage.send()
    assert stage.sent_to() == ["me@inbox.example", "other@inbox.example"]


@pytest.mark.parametrize(
    ("recipient", "answer"),
    [
        ("<nobody@ours.example>", "550 5.1.1"),
        ("<me@elsewhere.example>", "550 5.7.1"),
        ("<shop@ours.example>", "550 5.7.1"),
        ("<busy@ours.example>", "450 4.2.1"),
        ("<x@fwd.ours.example>", "550 5.1.1"),
        ("<x@mx.ours.example>", "550 5.1.1"),
    ],
)
async def test_row_38_what_will_not_be_forwarded_is_refused_at_rcpt(stage: Stage, recipient: str, answer: str) -> None:
    await stage.begin()
    assert await stage.say(f"RCPT TO:{recipient}") == answer
    assert await stage.say("DATA") == "554 5.5.1"
    assert stage.courier.messages == []
    assert stage.log.named("reject")[0]["stage"] == "rcpt"


async def test_a_rule_for_one_sender_lets_only_that_sender_in(stage: Stage) -> None:
    await stage.begin("<news@shop.example>", "<shop@ours.example>")
    await stage.send()
    assert stage.sent_to() == ["me@inbox.example"]


async def test_discarded_mail_is_answered_250_and_goes_nowhere(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<old@ours.example>")
    assert (await stage.send()).code == 250
    assert stage.courier.messages == []
    assert stage.log.named("routed")[0]["destination"] == "discard"


async def test_a_limit_counts_messages_not_questions(stage: Stage) -> None:
    for _ in range(5):
        await stage.begin("<a@sender.example>", "<few@ours.example>")
    for _ in range(2):
        await stage.begin("<a@sender.example>", "<few@ours.example>")
        assert (await stage.send()).code == 250
    await stage.begin()
    assert await stage.say("RCPT TO:<few@ours.example>") == "450 4.7.1"
    stage.clock.advance(3601)
    assert await stage.say("RCPT TO:<few@ours.example>") == "250 2.1.5"


async def test_a_limit_counts_a_message_that_is_retried_once(stage: Stage) -> None:
    busy = Outcome(Verdict.DEFERRED, Reply(450, "4.2.1", "busy"), "mx[192.0.2.9]:25", remote=True)
    stage.courier.outcome = lambda _: busy
    for _ in range(5):
        await stage.begin("<a@sender.example>", "<few@ours.example>")
        assert (await stage.send()).code == 451
    stage.courier.outcome = lambda _: DELIVERED
    for _ in range(2):
        await stage.begin("<a@sender.example>", "<few@ours.example>")
        assert (await stage.send()).code == 250
    await stage.begin()
    assert await stage.say("RCPT TO:<few@ours.example>") == "450 4.7.1"


async def test_the_bare_postmaster_has_this_hosts_loop_mark(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<postmaster>")
    await stage.send()
    head = stage.courier.messages[0].deliveries[0].head
    assert b"\r\nDelivered-To: postmaster@mx.ours.example\r\n" in head


async def test_a_limit_reached_between_rcpt_and_the_dot_defers(stage: Stage) -> None:
    other = Stage()
    object.__setattr__(other.gateway, "limiter", stage.gateway.limiter)
    await other.begin("<b@sender.example>", "<few@ours.example>")
    for _ in range(2):
        await stage.begin("<a@sender.example>", "<few@ours.example>")
        assert (await stage.send()).code == 250
    assert (await other.send()).code == 451
    assert other.courier.messages == []


@pytest.mark.parametrize("address", ["<postmaster>", "<Postmaster@MX.ours.example>", "<abuse@fwd.ours.example>"])
async def test_the_host_itself_has_a_postmaster(stage: Stage, address: str) -> None:
    await stage.begin("<a@sender.example>", address)
    await stage.send()
    assert stage.sent_to() == ["owner@inbox.example"]


async def test_a_postmaster_in_a_domain_of_ours_goes_where_its_rule_says() -> None:
    stage = Stage("[ours.example]\nowner -> me@inbox.example\n", "owner@ours.example")
    await stage.begin("<a@sender.example>", "<postmaster>")
    await stage.send()
    assert stage.sent_to() == ["me@inbox.example"]


async def test_a_bounce_goes_back_to_the_true_sender(stage: Stage) -> None:
    await stage.begin("<>", f"<{srs('a@sender.example')}>")
    assert (await stage.send()).code == 250
    assert stage.sent_to() == ["a@sender.example"]
    assert stage.courier.messages[0].sender is None


async def test_an_automatic_reply_to_an_srs_address_is_rewritten_as_any_mail(stage: Stage) -> None:
    await stage.begin("<auto@inbox.example>", f"<{srs('a@sender.example')}>")
    assert (await stage.send()).code == 250
    assert stage.courier.messages[0].sender == srs("auto@inbox.example")


async def test_a_bounce_to_a_sender_of_ours_follows_the_rules(stage: Stage) -> None:
    await stage.begin("<>", f"<{srs('sales@ours.example')}>")
    await stage.send()
    assert stage.sent_to() == ["me@inbox.example"]


async def test_row_36_forged_and_stale_srs_addresses_are_refused(stage: Stage) -> None:
    good = srs("a@sender.example")
    tag = good.local.split("=")[1]
    today = int(stage.clock.now().timestamp()) // 86_400
    await stage.begin("<>")
    for local in (
        good.local.replace(tag, tag[:4]),
        good.local.replace(tag, ""),
        good.local.replace(tag, "A" * len(tag)),
        good.local.replace("=a", "=b"),
        srs("a@sender.example", today - 30).local,
        srs("a@sender.example", today + 10).local,
        "SRS0=x",
        "SRS1=x=y",
    ):
        assert (await stage.say(f"RCPT TO:<{local}@fwd.ours.example>")).startswith("550"), local
    assert await stage.say("DATA") == "554 5.5.1"


async def test_row_37_an_overlong_sender_is_refused(stage: Stage) -> None:
    await stage.say("EHLO client.example")
    assert await stage.say(f"MAIL FROM:<{'x' * 230}@sender.example>") == "553 5.1.7"
    assert not stage.session.in_transaction


@pytest.mark.parametrize(
    "recipient",
    [
        '<"evil@e.vil\\r"@ours.example>',
        '<"evil@e.vil\r"@ours.example>',
        "<=?utf-8?q?x=40e.vil?=@ours.example>",
        "<u%other.example@ours.example>",
        "<other.example!u@ours.example>",
        '<"u@other.example"@ours.example>',
        "<@ours.example:u@other.example>",
        "<u@ours.example@other.example>",
        "<u@[192.0.2.9]>",
        "<u@оurs.example>",
        "<me@ours.example.other.example>",
        "<me@ours\x00.example>",
        "<>",
        "<me@ours.example (comment)>",
        "me@ours.example",
        "<me@ours.example",
    ],
)
async def test_rows_29_to_32_nothing_goes_elsewhere_than_the_rules_say(stage: Stage, recipient: str) -> None:
    await stage.say("EHLO client.example")
    await stage.say("MAIL FROM:<a@sender.example> SMTPUTF8")
    assert (await stage.say(f"RCPT TO:{recipient}"))[0] == "5"
    assert stage.courier.messages == []


@pytest.mark.parametrize(
    "address", ["<ME@OURS.EXAMPLE>", "<me@ours.example.>", "<me@xn--bcher-kva.example>", "<me@BÜCHER.example>"]
)
async def test_row_31_one_canonical_form(stage: Stage, address: str) -> None:
    await stage.begin("<a@sender.example> SMTPUTF8", address)
    await stage.send()
    assert stage.sent_to() == ["me@inbox.example"]


async def test_row_33_eight_bit_addresses_need_smtputf8(stage: Stage) -> None:
    await stage.begin()
    assert await stage.say("RCPT TO:<jürgen@ours.example>") == "553 5.6.7"
    assert await stage.say(b"RCPT TO:<j\xfcrgen@ours.example>") == "553 5.6.7"
    await stage.say("RSET")
    await stage.begin("<ä@sender.example> SMTPUTF8", "<jürgen@ours.example>")
    assert await stage.say(b"RCPT TO:<j\xfcrgen@ours.example>") == "553 5.6.7"
    assert (await stage.send()).code == 250


async def test_row_34_a_greeting_with_control_characters_is_refused(stage: Stage) -> None:
    for name in (b"a\rb", b"a\x1b[2J", b"a\nb", b"", b"a b", b"\xff"):
        assert (await stage.say(b"EHLO " + name)).startswith("501")
    assert await stage.say("MAIL FROM:<a@sender.example>") == "503 5.5.1"


async def test_row_39_mail_that_came_by_before_is_refused(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    reply = await stage.send(b"Delivered-To: ME@ours.example\r\n" + MESSAGE)
    assert (reply.code, reply.enhanced) == (554, "5.4.6")
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    assert (await stage.send(b"Received: x\r\n" * 51 + MESSAGE)).enhanced == "5.4.6"
    assert stage.courier.messages == []


async def test_a_loop_of_one_recipient_does_not_stop_the_other(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<both@ours.example>", "<me@ours.example>")
    reply = await stage.send(b"Delivered-To: both@ours.example\r\n" + MESSAGE)
    assert stage.sent_to() == ["me@inbox.example"]
    assert reply.code == 250
    ((letter, outcomes),) = stage.keeper.kept
    assert [str(one.destination.address) for one in letter.message.deliveries] == [
        "me@inbox.example",
        "other@inbox.example",
    ]
    assert [(one.verdict, one.reply.enhanced) for one in outcomes] == [
        (Verdict.DELIVERED, "2.0.0"),
        (Verdict.REFUSED, "5.4.6"),
    ]


async def test_forged_results_of_ours_are_removed_and_nothing_else(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    forged = b"Authentication-Results: mx.ours.example; dmarc=pass\r\n"
    other = b"Authentication-Results: mx.other.example; dmarc=pass\r\n"
    assert (await stage.send(forged + other + forged + MESSAGE)).code == 250
    assert b"".join(stage.courier.messages[0].content.chunks()) == other + MESSAGE
    assert stage.log.named("cleaned")[0]["fields"] == 2
    assert stage.log.named("alert") == []  # a stranger must not be able to ring the operator


async def test_a_message_that_begins_with_white_space_is_refused(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    assert (await stage.send(b" folded\r\n" + MESSAGE)).enhanced == "5.6.0"
    assert stage.courier.messages == []


async def test_the_next_hops_refusal_is_passed_back(stage: Stage) -> None:
    refusal = Outcome(Verdict.REFUSED, Reply(550, "5.7.1", "spam"), "mx[192.0.2.9]:25", remote=True)
    stage.courier.outcome = lambda _: refusal
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    reply = await stage.send()
    assert (reply.code, reply.enhanced) == (550, "5.7.1")
    assert "mx[192.0.2.9]:25 said: 550 5.7.1 spam" in reply.text
    assert stage.log.named("reject")[0]["stage"] == "data"
    assert not stage.session.in_transaction


async def test_each_destination_has_its_own_outcome(stage: Stage) -> None:
    busy = Outcome(Verdict.DEFERRED, Reply(450, "4.2.1", "busy"), "mx[192.0.2.9]:25", remote=True)
    stage.courier.outcome = lambda d: busy if d.destination.address.local == "other" else DELIVERED
    await stage.begin("<a@sender.example>", "<both@ours.example>")
    reply = await stage.send()
    assert (reply.code, reply.enhanced) == (250, "2.0.0")
    ((_, outcomes),) = stage.keeper.kept
    assert outcomes == [DELIVERED, busy]


async def test_size_is_checked_before_the_message(stage: Stage) -> None:
    await stage.say("EHLO client.example")
    assert await stage.say("MAIL FROM:<a@sender.example> SIZE=10001") == "552 5.3.4"
    assert await stage.say("MAIL FROM:<a@sender.example> SIZE=10000") == "250 2.1.0"


async def test_row_27_a_hundred_recipients_and_not_one_more(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", *["<me@ours.example>"] * 100)
    assert await stage.say("RCPT TO:<me@ours.example>") == "452 4.5.3"
    await stage.send()
    assert stage.sent_to() == ["me@inbox.example"]


async def test_commands_out_of_order(stage: Stage) -> None:
    assert await stage.say("MAIL FROM:<a@sender.example>") == "503 5.5.1"
    assert await stage.say("RCPT TO:<me@ours.example>") == "503 5.5.1"
    assert await stage.say("DATA") == "503 5.5.1"
    await stage.begin()
    assert await stage.say("MAIL FROM:<a@sender.example>") == "503 5.5.1"
    assert await stage.say("DATA") == "503 5.5.1"
    assert await stage.say("DATA now") == "501 5.5.4"
    await stage.say("RSET")
    assert await stage.say("RCPT TO:<me@ours.example>") == "503 5.5.1"


async def test_a_second_greeting_ends_the_transaction(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    await stage.say("EHLO again.example")
    assert await stage.say("DATA") == "503 5.5.1"


async def test_tls_forgets_what_was_said_before(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    stage.session.secured(Tls("TLSv1.3", "TLS_X"))
    assert await stage.say("MAIL FROM:<a@sender.example>") == "503 5.5.1"
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    await stage.send()
    assert b"with ESMTPS (TLSv1.3 TLS_X) id" in stage.courier.messages[0].deliveries[0].head


async def test_offers(stage: Stage) -> None:
    reply = stage.session.ehlo(b"client.example", starttls=True)
    offers = reply.text.split("\n")
    assert offers[0] == "mx.ours.example"
    wanted = {"PIPELINING", "SIZE 10000", "8BITMIME", "STARTTLS", "ENHANCEDSTATUSCODES", "DSN", "SMTPUTF8"}
    assert wanted <= set(offers)
    assert "STARTTLS" not in stage.session.ehlo(b"client.example", starttls=False).text


async def test_the_reverse_name_is_believed_only_if_it_points_back(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    await stage.send()
    assert b"(unknown [192.0.2.1])" in stage.courier.messages[0].deliveries[0].head
    other = Stage()
    other.resolver.zone = {**other.resolver.zone, ("mail.sender.example", "A"): ["192.0.2.1"]}
    await other.begin("<a@sender.example>", "<me@ours.example>")
    await other.send()
    assert b"(mail.sender.example [192.0.2.1])" in other.courier.messages[0].deliveries[0].head


@pytest.mark.parametrize(
    ("sender", "author", "own"),
    [
        ("<a@sender.example>", b"me@ours.example", "ours.example"),
        ("<me@ours.example>", b"a@sender.example", "ours.example"),
        ("<a@sender.example>", b"a@sender.example", None),
    ],
)
async def test_mail_from_our_own_domains_is_told(stage: Stage, sender: str, author: bytes, own: str | None) -> None:
    await stage.begin(sender, "<me@ours.example>")
    assert (await stage.send(b"From: " + author + b"\r\n\r\n")).code == 250
    assert stage.log.named("authenticated")[0].get("own") == own


async def test_vrfy_confirms_nobody(stage: Stage) -> None:
    assert stage.session.vrfy(b"me@ours.example") == stage.session.vrfy(b"nobody@ours.example")
    assert stage.session.vrfy(b"").code == 252


async def test_a_spoiled_message_ends_the_transaction(stage: Stage) -> None:
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    reply = stage.session.spoiled(Reply(550, "5.6.0", "bare LF"))
    assert not stage.session.in_transaction
    (event,) = stage.log.named("reject")
    assert event["code"] == 550
    assert reply == Reply(550, "5.6.0", f"bare LF, id {event['id']}")


async def test_a_refusal_by_content_names_the_id_once_on_its_first_line(stage: Stage) -> None:
    """A sender who asks about it quotes the reply; the log is found by the id."""
    await stage.begin("<a@sender.example>", "<me@ours.example>")
    reply = await stage.send(b" folded\r\n\r\nx\r\n")
    (event,) = stage.log.named("reject")
    assert reply.code == 554
    assert reply.text.partition("\n")[0].endswith(f", id {event['id']}")
    assert reply.text.count(str(event["id"])) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<me@ours.example>", "RSET", "DATA"])))
async def test_any_order_of_commands_is_answered_and_data_needs_a_recipient(commands: list[str]) -> None:
    stage = Stage()
    mail = rcpt = False
    for command in commands:
        answer = await stage.say(command)
        match command[:4]:
            case "EHLO" | "RSET":
                mail = rcpt = False
            case "MAIL":
                mail = mail or answer.startswith("250")
            case "RCPT":
                assert answer.startswith("250") == mail
                rcpt = mail
            case "DATA":
                assert answer.startswith("354") == rcpt


@given(st.binary(max_size=80))
async def test_any_octets_in_an_envelope_are_answered(octets: bytes) -> None:
    stage = Stage()
    await stage.say("EHLO client.example")
    await stage.say(b"MAIL " + octets)
    await stage.say("RSET")
    await stage.begin()
    answer = await stage.say(b"RCPT " + octets)
    assert answer[0] in "245"
    assert answer[0] != "2" or b"ours.example" in octets.lower() or b"postmaster" in octets.lower()
