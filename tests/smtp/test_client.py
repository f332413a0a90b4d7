"""The client as plays: what the server says, what the client does, fed whole and octet by octet."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.model.address import Address, parse_mailbox
from forwarder.model.envelope import Body, MailOptions, RcptOptions, Recipient
from forwarder.model.outcome import Verdict
from forwarder.smtp.client import Client, Command, Decided, Send, SendContent, Stage, StartTls, TlsUse, Transaction

D, R, T = Verdict.DELIVERED, Verdict.REFUSED, Verdict.DEFERRED

EHLO = "250-hop\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 PIPELINING"
SLOW_EHLO = "250-hop\r\n250-SIZE 1000\r\n250 8BITMIME"
TLS_EHLO = "250-hop\r\n250-STARTTLS\r\n250 PIPELINING"


def transaction(*to: str, size: int = 100, eight_bit: bool = False, options: MailOptions | None = None) -> Transaction:
    recipients = tuple(Recipient(parse_mailbox(one)) for one in to)
    return Transaction(parse_mailbox("s@ours.test"), recipients, options or MailOptions(), size, eight_bit)


@dataclass
class Play:
    """Performs what the client commands and notes it; `content` and `handshake` always succeed."""

    client: Client
    by_octet: bool = False
    said: list[str] = field(default_factory=list)
    decided: dict[int, Decided] = field(default_factory=dict)

    def do(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case Send(octets):
                    assert octets.endswith(b"\r\n")
                    self.said += octets.decode().split("\r\n")[:-1]
                case StartTls():
                    self.said.append("(handshake)")
                    self.do(self.client.secured())
                case SendContent():
                    self.said.append("(content)")
                    self.client.dot_sent()
                    self.do(self.client.receive(b""))
                case Decided():
                    assert command.recipient not in self.decided
                    self.decided[command.recipient] = command

    def hear(self, *replies: str) -> None:
        octets = "".join(f"{reply}\r\n" for reply in replies).encode()
        for piece in [octets[n : n + 1] for n in range(len(octets))] if self.by_octet else [octets]:
            self.do(self.client.receive(piece))

    @property
    def verdicts(self) -> list[Verdict]:
        return [self.decided[index].outcome.verdict for index in sorted(self.decided)]

    @property
    def replies(self) -> list[str]:
        return [str(self.decided[index].outcome.reply) for index in sorted(self.decided)]

    @property
    def elsewhere(self) -> set[bool]:
        return {one.elsewhere for one in self.decided.values()}


@pytest.fixture(params=[False, True], ids=["whole", "by-octet"])
def play(request: pytest.FixtureRequest) -> Play:
    return Play(Client("mx.ours.test", TlsUse.OPPORTUNISTIC), request.param)


def test_pipelined(play: Play) -> None:
    play.do(play.client.begin(transaction("a@x.test", "b@x.test")))
    assert (play.said, play.client.stage) == ([], Stage.GREETING)
    play.hear("220 hop")
    assert (play.said, play.client.stage) == (["EHLO mx.ours.test"], Stage.EHLO)
    play.said.clear()
    play.hear(EHLO)
    assert play.said == ["MAIL FROM:<s@ours.test> SIZE=100", "RCPT TO:<a@x.test>", "RCPT TO:<b@x.test>", "DATA"]
    play.hear("250 ok", "250 ok", "250 ok", "354 go")
    assert (play.said[-1], play.client.stage) == ("(content)", Stage.DOT)
    play.hear("250 2.0.0 taken")
    assert (play.verdicts, play.replies) == ([D, D], ["250 2.0.0 taken"] * 2)
    assert play.client.idle


def test_step_by_step(play: Play) -> None:
    play.do(play.client.begin(transaction("a@x.test", "b@x.test")))
    play.hear("220 hop", SLOW_EHLO)
    steps = [
        ("MAIL FROM:<s@ours.test> SIZE=100", Stage.MAIL, "250 ok"),
        ("RCPT TO:<a@x.test>", Stage.RCPT, "250 ok"),
        ("RCPT TO:<b@x.test>", Stage.RCPT, "550 5.1.1 no"),
        ("DATA", Stage.DATA, "354 go"),
        ("(content)", Stage.DOT, "250 taken"),
    ]
    for said, stage, reply in steps:
        assert (play.said[-1], play.client.stage) == (said, stage)
        play.hear(reply)
    assert play.verdicts == [D, R]
    assert play.client.idle


# what is offered, the replies after EHLO, what is said after MAIL and RCPTs, verdicts for a and b, whether elsewhere
PLAYS = [
    (EHLO, ["550 a", "503 b", "503 c", "503 d"], [], [R, R], False),
    (EHLO, ["450 a", "503 b", "503 c", "503 d"], [], [T, T], False),
    (EHLO, ["550 a", "250 b", "250 c", "354 d"], ["."], [R, R], False),
    (EHLO, ["250 a", "550 b", "550 c", "354 d"], ["."], [R, R], False),
    (EHLO, ["250 a", "550 b", "450 c", "354 d"], ["."], [R, T], False),
    (EHLO, ["250 a", "550 b", "450 c", "554 d"], [], [R, T], False),
    (EHLO, ["250 a", "250 b", "450 c", "451 d"], [], [T, T], False),
    (EHLO, ["250 a", "250 b", "250 c", "554 d"], [], [R, R], False),
    (EHLO, ["250 a", "250 b", "250 c", "250 d"], [], [T, T], True),
    (EHLO, ["250 a", "251 b", "252 c", "354 d", "250 e"], ["(content)"], [D, D], False),
    (EHLO, ["250 a", "354 b", "250 c", "354 d", "250 e"], ["(content)"], [T, D], False),
    (EHLO, ["250 a", "250 b", "550 c", "354 d", "550 e"], ["(content)"], [R, R], False),
    (EHLO, ["250 a", "250 b", "550 c", "354 d", "452 e"], ["(content)"], [T, R], False),
    (EHLO, ["250 a", "250 b", "250 c", "354 d", "354 e"], ["(content)"], [T, T], False),
    (EHLO, ["250 a", "250 b", "250 c", "354 d", "421 e"], ["(content)"], [T, T], False),
    (EHLO, ["354 a", "250 b", "250 c", "354 d"], ["."], [T, T], False),
    (EHLO, ["250 a", "421 4.3.0 b"], [], [T, T], True),
    (EHLO, ["250 a", "421 4.7.28 b"], [], [T, T], False),
    (EHLO, ["what"], [], [T, T], True),
    (SLOW_EHLO, ["550 a"], [], [R, R], False),
    (SLOW_EHLO, ["250 a", "550 b", "550 c"], [], [R, R], False),
    (SLOW_EHLO, ["250 a", "550 b", "450 c"], [], [R, T], False),
]


@pytest.mark.parametrize(("offer", "replies", "said", "verdicts", "elsewhere"), PLAYS)
def test_transactions(
    play: Play, offer: str, replies: list[str], said: list[str], verdicts: list[Verdict], elsewhere: bool
) -> None:
    play.do(play.client.begin(transaction("a@x.test", "b@x.test")))
    play.hear("220 hop", offer, *replies)
    commands = ("EHLO", "MAIL", "RCPT", "DATA")
    assert [line for line in play.said if not line.startswith(commands)] == said
    assert (play.verdicts, play.elsewhere) == (verdicts, {elsewhere})


def test_the_lone_dot_is_followed_by_a_reset(play: Play) -> None:
    play.do(play.client.begin(transaction("a@x.test")))
    play.hear("220 hop", EHLO, "250 ok", "550 no", "354 go")
    assert (play.said[-1], play.client.stage, play.client.idle) == (".", Stage.LONE_DOT, False)
    play.hear("250 taken")
    assert (play.client.idle, play.verdicts) == (True, [R])
    play.said.clear()
    play.decided.clear()
    play.do(play.client.begin(transaction("b@x.test")))
    assert [line.split(" ")[0] for line in play.said] == ["RSET", "MAIL", "RCPT", "DATA"]
    play.hear("250 reset", "250 ok", "250 ok", "354 go", "250 taken")
    assert play.verdicts == [D]


def test_a_refused_message_needs_no_reset(play: Play) -> None:
    play.do(play.client.begin(transaction("a@x.test")))
    play.hear("220 hop", EHLO, "250 ok", "250 ok", "354 go", "550 no")
    play.said.clear()
    play.decided.clear()
    play.do(play.client.begin(transaction("b@x.test")))
    assert [line.split(" ")[0] for line in play.said] == ["MAIL", "RCPT", "DATA"]


def test_a_refused_reset_is_the_end(play: Play) -> None:
    play.do(play.client.begin(transaction("a@x.test")))
    play.hear("220 hop", SLOW_EHLO, "550 no")
    play.decided.clear()
    play.do(play.client.begin(transaction("b@x.test")))
    play.hear("500 no")
    assert (play.verdicts, play.elsewhere, play.client.over) == ([T], {True}, True)
    assert not play.client.mail_answered


UTF8 = Recipient(Address("é", "x.test"))


class TestUsedAgain:
    """A connection that has carried a message before: what ends it before MAIL is answered is no pause asked of us."""

    def begun(self, play: Play, *replies: str) -> Play:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", *replies)
        assert play.client.idle
        play.said.clear()
        play.decided.clear()
        play.do(play.client.begin(transaction("b@x.test")))
        return play

    TAKEN = (SLOW_EHLO, "250 ok", "250 ok", "354 go", "250 taken")
    REFUSED = (SLOW_EHLO, "550 no")

    @pytest.mark.parametrize("before", [TAKEN, REFUSED], ids=["MAIL", "RSET"])
    @pytest.mark.parametrize("reply", ["421 4.7.0 idle for too long", "421 4.4.2 bye", "421 bye"])
    def test_a_421_is_of_the_connection(self, play: Play, before: tuple[str, ...], reply: str) -> None:
        self.begun(play, *before).hear(reply)
        assert (play.verdicts, play.elsewhere, play.client.mail_answered) == ([T], {True}, False)

    def test_after_mail_it_is_of_the_message(self, play: Play) -> None:
        self.begun(play, *self.TAKEN).hear("250 ok", "421 4.7.0 too fast")
        assert (play.verdicts, play.elsewhere, play.client.mail_answered) == ([T], {False}, True)

    @pytest.mark.parametrize(
        "second",
        [
            transaction("b@x.test", size=1001),
            replace(transaction("b@x.test"), recipients=(*transaction("b@x.test").recipients, UTF8)),
        ],
        ids=["size", "one of two recipients"],
    )
    def test_an_offer_heard_before_refuses_nobody(self, play: Play, second: Transaction) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", *self.TAKEN)
        play.said.clear()
        play.decided.clear()
        play.do(play.client.begin(second))
        assert (set(play.verdicts), play.elsewhere, play.client.mail_answered) == ({T}, {True}, False)
        assert len(play.decided) == len(second.recipients)
        assert (play.said, play.client.outdated, play.client.idle) == ([], True, True)

    def test_on_a_fresh_one_it_is_a_pause_asked_of_us(self, play: Play) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", SLOW_EHLO, "421 4.7.0 too fast")
        assert (play.verdicts, play.elsewhere) == ([T], {False})


def test_leaving(play: Play) -> None:
    play.do(play.client.begin(transaction("a@x.test")))
    play.hear("220 hop", EHLO, "250 ok", "250 ok", "354 go", "250 taken")
    play.do(play.client.leave())
    assert (play.said[-1], play.client.stage) == ("QUIT", Stage.QUIT)
    play.hear("221 bye")
    assert (play.client.over, play.client.stage) == (True, None)


class TestGreeting:
    @pytest.mark.parametrize("reply", ["554 no", "421 busy", "354 what", "450 4.7.1 later"])
    def test_a_refusal_is_temporary_and_another_may_be_asked(self, play: Play, reply: str) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear(reply)
        assert (play.verdicts, play.elsewhere, play.replies) == ([T], {True}, [reply])
        assert play.client.over

    def test_521_is_for_good(self, play: Play) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("521 no mail here")
        assert (play.verdicts, play.elsewhere) == ([R], {True})

    def test_helo_when_ehlo_is_refused(self, play: Play) -> None:
        play.do(play.client.begin(transaction("a@x.test", options=MailOptions(body=Body.EIGHT_BIT))))
        play.hear("220-hop", "220 hop", "500 what")
        assert (play.said[-1], play.client.stage) == ("HELO mx.ours.test", Stage.HELO)
        play.hear("250-hop", "250 PIPELINING")
        assert play.said[-1] == "MAIL FROM:<s@ours.test>"

    @pytest.mark.parametrize("replies", [["450 later"], ["550 no", "550 no"], ["354 what"]])
    def test_neither_ehlo_nor_helo(self, play: Play, replies: list[str]) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", *replies)
        assert (play.verdicts, play.elsewhere) == ([T], {True})


class TestTls:
    def test_is_used_where_offered_and_forgets_the_first_offer(self, play: Play) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", TLS_EHLO)
        assert (play.said[-1], play.client.stage) == ("STARTTLS", Stage.STARTTLS)
        play.hear("220 go")
        assert play.said[-2:] == ["(handshake)", "EHLO mx.ours.test"]
        play.hear("250 hop")
        assert play.said[-1] == "MAIL FROM:<s@ours.test>"

    def test_what_follows_the_220_in_clear_aborts(self) -> None:
        play = Play(Client("mx.ours.test", TlsUse.OPPORTUNISTIC))
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", TLS_EHLO)
        play.do(play.client.receive(b"220 go\r\n2"))
        assert (play.verdicts, play.elsewhere, play.client.over) == ([T], {True}, True)
        assert "(handshake)" not in play.said

    def test_what_comes_in_clear_before_the_handshake_is_dropped(self) -> None:
        client = Client("mx.ours.test", TlsUse.OPPORTUNISTIC)
        client.begin(transaction("a@x.test"))
        for said in (b"220 hop\r\n", f"{TLS_EHLO}\r\n".encode()):
            client.receive(said)
        assert client.receive(b"220 go\r\n") == [StartTls()]
        assert client.receive(b"250-hop\r\n250 PIPELINING\r\n") == []
        assert client.secured() == [Send(b"EHLO mx.ours.test\r\n")]
        assert client.receive(b"250 hop\r\n") == [Send(b"MAIL FROM:<s@ours.test>\r\n")]

    @pytest.mark.parametrize("reply", ["454 not now", "500 what", "354 what"])
    def test_refused(self, play: Play, reply: str) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", TLS_EHLO, reply)
        assert play.said[-1] == "DATA"

    @pytest.mark.parametrize(
        "replies", [[EHLO], [TLS_EHLO, "454 not now"], [TLS_EHLO, "500 what"], ["500 no", "250 ok"]]
    )
    def test_required(self, replies: list[str]) -> None:
        play = Play(Client("mx.ours.test", TlsUse.REQUIRE))
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", *replies)
        assert (play.verdicts, play.elsewhere) == ([T], {True})
        assert not any(line.startswith("MAIL") for line in play.said)

    def test_never(self) -> None:
        play = Play(Client("mx.ours.test", TlsUse.NEVER))
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", TLS_EHLO)
        assert play.said[-1] == "DATA"

    def test_ehlo_refused_under_tls(self, play: Play) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", TLS_EHLO, "220 go")
        play.hear("550 no")
        assert (play.verdicts, play.said[-1]) == ([T], "EHLO mx.ours.test")


class TestFitness:
    def begun(self, play: Play, one: Transaction, offer: str) -> Play:
        play.do(play.client.begin(one))
        play.hear("220 hop", offer)
        return play

    @pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
    def test_size(self, play: Play, size: int, fits: bool) -> None:
        self.begun(play, transaction("a@x.test", size=size), EHLO)
        assert (play.said[-1] == "DATA") is fits
        assert [reply[:9] for reply in play.replies] == ([] if fits else ["552 5.3.4"])

    def test_8_bit(self, play: Play) -> None:
        self.begun(play, transaction("a@x.test", eight_bit=True), EHLO)
        assert "MAIL FROM:<s@ours.test> SIZE=100 BODY=8BITMIME" in play.said
        other = self.begun(Play(Client("m", TlsUse.NEVER)), transaction("a@x.test", eight_bit=True), "250 hop")
        assert (other.verdicts, other.replies[0][:9], other.client.idle) == ([R], "554 5.6.3", True)

    UTF8 = "250-hop\r\n250-8BITMIME\r\n250 SMTPUTF8"
    PLAIN = "250-hop\r\n250 8BITMIME"

    def test_an_address_in_utf8(self, play: Play) -> None:
        one = transaction("a@x.test")
        one = replace(one, recipients=(*one.recipients, Recipient(Address("é", "x.test"))))
        self.begun(play, one, self.PLAIN)
        assert [reply[:9] for reply in play.replies] == ["553 5.6.7"]
        play.hear("250 ok", "250 ok", "354 go", "250 taken")
        assert play.verdicts == [D, R]
        other = self.begun(Play(Client("m", TlsUse.NEVER)), one, self.UTF8)
        assert other.said[-1] == "MAIL FROM:<s@ours.test> SMTPUTF8"

    def test_only_addresses_in_utf8(self, play: Play) -> None:
        one = replace(transaction(), recipients=(Recipient(Address("é", "x.test")),))
        self.begun(play, one, self.PLAIN)
        assert (play.verdicts, play.said[-1], play.client.idle) == ([R], "EHLO mx.ours.test", True)

    def test_a_sender_in_utf8(self, play: Play) -> None:
        one = replace(transaction("a@x.test"), sender=Address("é", "x.test"))
        self.begun(play, one, self.PLAIN)
        assert [reply[:9] for reply in play.replies] == ["550 5.6.7"]
        other = self.begun(Play(Client("m", TlsUse.NEVER)), one, self.UTF8)
        assert other.said[-1] == "MAIL FROM:<é@x.test> SMTPUTF8"

    def test_a_header_in_utf8(self, play: Play) -> None:
        one = replace(
            transaction("a@x.test", eight_bit=True, options=MailOptions(smtputf8=True)), eight_bit_header=True
        )
        self.begun(play, one, self.PLAIN)
        assert [reply[:9] for reply in play.replies] == ["550 5.6.7"]

    def test_smtputf8_that_is_not_needed(self, play: Play) -> None:
        self.begun(play, transaction("a@x.test", options=MailOptions(smtputf8=True)), self.PLAIN)
        assert play.said[-1] == "MAIL FROM:<s@ours.test>"

    def test_dsn(self, play: Play) -> None:
        one = transaction(options=MailOptions(ret="FULL", envid="x+2By"))
        asked = RcptOptions(frozenset({"SUCCESS", "FAILURE"}), "rfc822;a+2Bb@x.test")
        one = replace(one, recipients=(Recipient(parse_mailbox("a@x.test"), asked),))
        self.begun(play, one, "250-hop\r\n250-PIPELINING\r\n250 DSN")
        assert play.said[-3:] == [
            "MAIL FROM:<s@ours.test> RET=FULL ENVID=x+2By",
            "RCPT TO:<a@x.test> NOTIFY=FAILURE,SUCCESS ORCPT=rfc822;a+2Bb@x.test",
            "DATA",
        ]


class TestLoss:
    STAGES = (["220 hop"], [EHLO], ["250 ok"], ["250 ok"])

    @pytest.mark.parametrize("count", range(5))
    def test_before_the_dot_another_may_be_asked(self, play: Play, count: int) -> None:
        play.do(play.client.begin(transaction("a@x.test")))
        for replies in self.STAGES[:count]:
            play.hear(*replies)
        play.do(play.client.lost("connection closed"))
        assert (play.verdicts, play.elsewhere) == ([T], {True})
        assert play.replies == ["451 4.4.2 connection closed"]
        assert play.client.mail_answered is (count > 2)

    def sending(self) -> Play:
        play = Play(Client("m", TlsUse.NEVER))
        play.do(play.client.begin(transaction("a@x.test")))
        play.hear("220 hop", EHLO, "250 ok", "250 ok")
        assert play.client.receive(b"354 go\r\n") == [SendContent()]
        assert play.client.stage is Stage.CONTENT
        return play

    def test_within_the_content_another_may_be_asked(self) -> None:
        play = self.sending()
        play.do(play.client.lost("connection closed"))
        assert (play.verdicts, play.elsewhere) == ([T], {True})

    @pytest.mark.parametrize(("said", "verdict"), [(b"552 5.3.4 too big\r\n", R), (b"452 4.3.1 full\r\n", T)])
    def test_a_refusal_within_the_content_counts(self, said: bytes, verdict: Verdict) -> None:
        play = self.sending()
        assert play.client.receive(said) == []
        play.do(play.client.lost("connection closed"))
        assert (play.verdicts, play.elsewhere) == ([verdict], {False})

    @pytest.mark.parametrize("said", [b"250 taken\r\n", b"354 what\r\n", b"\x00\r\n"])
    def test_nothing_else_within_the_content_counts(self, said: bytes) -> None:
        play = self.sending()
        play.do(play.client.receive(said))
        play.do(play.client.lost("connection closed"))
        assert (play.verdicts, play.elsewhere) == ([T], {True})

    def test_after_the_dot_nobody_knows(self) -> None:
        play = self.sending()
        play.client.dot_sent()
        play.do(play.client.lost("connection closed"))
        assert (play.verdicts, play.elsewhere) == ([T], {False})
        assert "not known whether it was delivered" in play.replies[0]


def test_a_control_character_never_gets_into_a_command() -> None:
    play = Play(Client("m", TlsUse.NEVER))
    one = transaction("a@x.test", options=MailOptions(envid="x\r\nRSET"))
    play.do(play.client.begin(one))
    with pytest.raises(ValueError, match="control character"):
        play.hear("220 hop", "250-hop\r\n250 DSN")


REPLY = st.sampled_from(
    [
        "220 a",
        "250 a",
        "354 a",
        "421 a",
        "450 a",
        "550 a",
        "250-PIPELINING",
        "250 STARTTLS",
        "250-x",
        "521 a",
        "xx",
        "250",
    ]
).map(lambda line: line.encode() + b"\r\n")
TO = ["a@x.test", "b@x.test", "c@x.test"]


@settings(max_examples=300)
@given(
    st.lists(REPLY | st.binary(max_size=20), max_size=25),
    st.sampled_from(TlsUse),
    st.integers(1, 3),
    st.booleans(),
)
def test_whatever_a_server_says(pieces: list[bytes], tls: TlsUse, count: int, lost: bool) -> None:
    play = Play(Client("mx.ours.test", tls))
    play.do(play.client.begin(transaction(*TO[:count])))
    for piece in pieces:
        if play.client.stage is None:
            break
        play.do(play.client.receive(piece))
        # either everybody is decided or something is waited for
        assert len(play.decided) == count or play.client.stage is not None
    if lost:
        play.do(play.client.lost("connection closed"))
        assert len(play.decided) == count
        assert play.client.over
    assert all(character not in line for line in play.said for character in "\r\n\0")
    assert all(one.outcome.reply.text for one in play.decided.values() if not one.outcome.remote)
    delivered = [one for one in play.decided.values() if one.outcome.verdict is D]
    assert not delivered or "(content)" in play.said


@given(st.lists(REPLY, max_size=15), st.integers(1, 7))
def test_pieces_change_nothing(replies: list[bytes], step: int) -> None:
    def played(pieces: list[bytes]) -> tuple[list[str], list[str]]:
        play = Play(Client("mx.ours.test", TlsUse.NEVER))
        play.do(play.client.begin(transaction(*TO)))
        for piece in pieces:
            play.do(play.client.receive(piece))
        return play.said, play.replies

    whole = b"".join(replies)
    assert played([whole]) == played([whole[n : n + step] for n in range(0, len(whole), step)])
