"""The rows of the list of attacks that concern receiving, over real sockets; each test is named by its row."""

import asyncio
import contextlib
import errno
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from forwarder.listener.limits import ListenerLimits
from forwarder.model.envelope import Peer
from forwarder.model.message import Content, Outgoing
from forwarder.model.outcome import Outcome
from forwarder.model.reply import Reply
from forwarder.session.transaction import Session
from tests.listener.dialogue import PROMPT, Serve, Way
from tests.session.stage import FakeCourier, Stage

VARIANTS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\r\n.\r\r\n",
]


@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
async def test_rows_01_and_02_ends_of_data(serve: Serve, way: Way, variant: bytes) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(
            b"Subject: a\r\n\r\none" + variant + b"MAIL FROM:<x@y.example>\r\nRCPT TO:<me@ours.example>\r\n"
        )
        await client.send(b"DATA\r\nSubject: b\r\n\r\ntwo\r\n.\r\n")
        await client.expect("550 5.6.0")
        await client.ask("NOOP", "250")  # one reply, so one message
        await client.deliver()
    assert house.received == [b"Subject: x\r\n\r\nbody\r\n"]


async def test_row_01_cr_before_the_end(serve: Serve, way: Way) -> None:
    """CR, then the true end: one message, and it is refused for the CR."""
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(b"one\r\r\n.\r\nMAIL FROM:<x@y.example>\r\n")
        await client.expect("550 5.6.0")
        await client.expect("250 2.1.0")
    assert house.received == []


async def test_row_02_octets_are_passed_on_as_they_came(serve: Serve, way: Way) -> None:
    house = await serve()
    octets = (
        b"Subject: odd\r\n\tfolded\r\n\r\n.dot\r\n\xff\xfe \r\n"
        + b"x" * 1500
        + b"\r\n..\r\nno end of line is added\r\n"
    )
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(octets.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        await client.expect("250")
    assert house.received == [octets]


@pytest.mark.parametrize("line", [b"EHLO c.example\nMAIL FROM:<a@b.example>\r\n", b"NOOP\n", b"\n"])
async def test_row_03_bare_lf_commands(serve: Serve, way: Way, line: bytes) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        await client.send(line)
        await client.expect("500 5.5.2")
        await client.ended()


async def test_row_04_talk_before_the_banner(serve: Serve, way: Way) -> None:
    house = await serve(ListenerLimits(banner_delay=20.0))
    async with house.client(way) as client:
        await client.send(b"EHLO c.example\r\n")
        await client.expect("554 5.5.0")
        await client.ended()
    assert house.stage.log.named("reject")[0]["stage"] == "connect"


async def test_row_04_whoever_waits_is_greeted(serve: Serve) -> None:
    house = await serve(ListenerLimits(banner_delay=0.05))
    async with house.client() as client:
        await client.greet()


@pytest.mark.parametrize("verb", ["POST", "GET", "HEAD", "PUT", "CONNECT", "OPTIONS", "post"])
async def test_row_05_http(serve: Serve, way: Way, verb: str) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        body = b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<me@ours.example>\r\n"
        await client.send(f"{verb} / HTTP/1.1\r\nHost: mx.ours.example:25\r\n\r\n".encode() + body)
        await client.expect("421 4.7.0")
        await client.ended()
    assert [event["code"] for event in house.stage.log.named("reject")] == [421]


async def test_row_09_auth_before_tls(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        assert "AUTH" not in await client.ask("EHLO c.example", "250")
        await client.ask("AUTH PLAIN AGEAYg==", "538 5.7.11")


async def test_row_11_many_auth(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        for _ in range(5):
            await client.ask("AUTH LOGIN", "538")
        await client.expect("421 4.7.0 Too many attempts")
        await client.ended()


async def test_row_12_auth_lines_are_long_and_not_within_a_transaction(serve: Serve) -> None:
    house = await serve()
    async with house.client() as client:
        await client.greet()
        await client.ask(b"AUTH PLAIN " + b"A" * (12_288 - 13), "538")
        await client.ask(b"AUTH PLAIN " + b"A" * (12_288 - 12), "500 5.5.2")
        await client.ask("MAIL FROM:<a@sender.example>", "250")
        await client.ask("AUTH PLAIN AGEAYg==", "503 5.5.1")


@pytest.mark.parametrize("line", ["NOOP", "RSET", "VRFY a", "HELP", "EHLO c.example"])
async def test_row_13_commands_that_lead_nowhere(serve: Serve, line: str) -> None:
    house = await serve(replace(PROMPT, idle_commands=10))
    async with house.client() as client:
        await client.greet()
        for _ in range(9):
            await client.ask(line, "2")
        await client.expect("421 4.7.0 Too many commands that lead nowhere")
        await client.ended()


async def test_row_13_messages_count_as_progress(serve: Serve) -> None:
    house = await serve(replace(PROMPT, idle_commands=4, errors=2))
    async with house.client() as client:
        await client.greet()
        for _ in range(5):
            await client.ask("RSET", "250")
            await client.ask("BOGUS", "500")
            await client.deliver()


async def test_row_13_idle(serve: Serve) -> None:
    house = await serve(replace(PROMPT, command_timeout=0.05))
    async with house.client() as client:
        await client.expect("220")
        await client.expect("421 4.4.2 Nothing came")
        await client.ended()


async def test_row_13_a_command_that_never_ends(serve: Serve) -> None:
    """The time is for the whole line: a byte now and then does not prolong it."""
    house = await serve(replace(PROMPT, command_timeout=0.3))
    async with house.client() as client:
        await client.expect("220")
        drip = asyncio.create_task(_drip(client.writer))
        await client.expect("421 4.4.2")
        await client.ended()
        drip.cancel()


async def _drip(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"N")
        await asyncio.sleep(0.02)


async def test_row_13_the_session_has_an_end(serve: Serve) -> None:
    house = await serve(replace(PROMPT, session_time=0.2))
    async with house.client() as client:
        await client.greet()
        await client.expect("421 4.7.0 The session")
        await client.ended()


async def test_row_13_commands_have_an_end(serve: Serve) -> None:
    house = await serve(replace(PROMPT, commands=6))
    async with house.client() as client:
        await client.greet()
        await client.ask("MAIL FROM:<a@sender.example>", "250")
        for _ in range(4):
            await client.ask("RCPT TO:<me@ours.example>", "250")
        await client.expect("421 4.7.0 Too many commands in one session")
        await client.ended()


async def test_row_13_the_reply_to_the_dot_is_the_real_one(serve: Serve, way: Way) -> None:
    """A message that was taken must not be sent again because the session ends."""
    house = await serve(replace(PROMPT, commands=4))
    async with house.client(way) as client:
        await client.greet()
        await client.deliver()
        await client.expect("421 4.7.0 Too many commands in one session")
        await client.ended()
    assert len(house.received) == 1
    assert [(event["stage"], event["code"]) for event in house.stage.log.named("reject")] == [("limit", 421)]


async def test_row_13_the_last_verdict_is_told_too(serve: Serve, way: Way) -> None:
    house = await serve(replace(PROMPT, errors=2), message_size=20)
    async with house.client(way) as client:
        await client.greet()
        await client.ask("BOGUS", "500")
        await client.begin()
        await client.send(b"x" * 30 + b"\r\n.\r\nNOOP\r\n")
        await client.expect("552 5.3.4")
        await client.expect("421 4.7.0 Too many errors")
        await client.ended()


async def test_row_14_the_timer_is_per_read(serve: Serve) -> None:
    """The whole takes several times as long as one read may."""
    house = await serve(replace(PROMPT, data_timeout=0.5, command_timeout=0.5))
    async with house.client() as client:
        await client.greet()
        await client.begin()
        for _ in range(30):
            await client.send(b"steady\r\n")
            await asyncio.sleep(0.05)
        await client.send(b".\r\n")
        await client.expect("250")
    assert house.received == [b"steady\r\n" * 30]


async def test_row_14_silence_within_data(serve: Serve) -> None:
    house = await serve(replace(PROMPT, data_timeout=0.05))
    async with house.client() as client:
        await client.greet()
        await client.begin()
        await client.send(b"one\r\n")
        await client.expect("421 4.4.2")
        await client.ended()
    assert house.received == []


async def test_row_15_too_slow(serve: Serve) -> None:
    house = await serve(replace(PROMPT, data_grace=0.2, data_rate=1000))
    async with house.client() as client:
        await client.greet()
        await client.begin()
        drip = asyncio.create_task(_drip(client.writer))
        await client.expect("421 4.4.2 The message is being sent too slowly")
        await client.ended()
        drip.cancel()


async def test_row_15_fast_then_slow(serve: Serve) -> None:
    """What came at first does not pay for what comes later."""
    house = await serve(replace(PROMPT, data_grace=0.2, data_rate=1000), message_size=50_000_000)
    async with house.client() as client:
        await client.greet()
        await client.begin()
        await client.send(b"x" * 1_000_000)
        drip = asyncio.create_task(_drip(client.writer))
        await client.expect("421 4.4.2 The message is being sent too slowly")
        drip.cancel()


async def test_row_16_too_many_connections(serve: Serve) -> None:
    house = await serve(replace(PROMPT, connections=2))
    async with house.client() as one, house.client(source="127.0.0.2") as two:
        await one.expect("220")
        await two.expect("220")
        async with house.client(source="127.0.0.3") as three:
            await three.expect("421 4.7.0")
            await three.ended()
        await one.ask("NOOP", "250")
        await one.ask("QUIT", "221")
        await one.ended()
        await house.until(lambda: house.listener.connections == 1)
        async with house.client() as four:
            await four.expect("220")


async def test_row_16_too_many_of_one_client(serve: Serve) -> None:
    house = await serve(replace(PROMPT, connections_per_client=1))
    async with house.client() as one:
        await one.expect("220")
        async with house.client() as two:
            await two.expect("421 4.7.0")
            await two.ended()
        async with house.client(source="127.0.0.2") as other:
            await other.expect("220")
        await one.ask("NOOP", "250")


async def test_row_17_no_end_of_line(serve: Serve) -> None:
    """Beyond the largest size the message is read on for a while, then the connection is cut."""
    house = await serve()
    async with house.client() as client:
        await client.greet()
        await client.begin()
        for _ in range(100):
            await client.send(b"x" * 65_536)
            if client.writer.is_closing():
                break
        await _closed_with(client.reader, b"552 5.3.4")
    await house.until(lambda: house.listener.connections == 0)
    assert house.received == []


async def _closed_with(reader: asyncio.StreamReader, reply: bytes) -> None:
    """The reply may be lost, as the client has not read it before it sent more (RFC 9293 3.10.7.1)."""
    with contextlib.suppress(ConnectionError):
        assert (await reader.read()).startswith(reply)


async def test_row_17_a_command_without_end(serve: Serve) -> None:
    house = await serve()
    async with house.client() as client:
        await client.expect("220")
        await client.send(b"N" * 200_000)
        await client.expect("500 5.5.2")
        await client.ended()


async def test_row_17_a_long_command_is_passed_over(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        await client.ask(b"NOOP " + b"x" * 3000, "500 5.5.2")
        if way is Way.WHOLE:
            await client.ask(b"NOOP " + b"x" * 30_000, "500 5.5.2")
        await client.ask("NOOP " + "x" * 2041, "250")


async def test_row_18_many_empty_lines_leave_time_for_others(serve: Serve) -> None:
    """While one client sends 32 MiB of CRLF another has many turns."""
    house = await serve(message_size=50_000_000)
    async with house.client() as flood, house.client(source="127.0.0.2") as other:
        await flood.greet()
        await flood.begin()
        await other.expect("220")
        sending = asyncio.create_task(flood.send(b"\r\n" * (1 << 24)))
        answered = 0
        while not sending.done() and answered < 50:
            await other.ask("NOOP", "250")
            answered += 1
        assert answered > 5
        sending.cancel()


async def test_row_18_a_burst_of_commands_leaves_time_for_others(serve: Serve) -> None:
    house = await serve()
    async with house.client() as flood, house.client(source="127.0.0.2") as other:
        await flood.greet()
        await other.expect("220")
        await flood.send(b"MAIL FROM:<a@sender.example>\r\n" + b"RCPT TO:<me@ours.example>\r\n" * 2000)
        await other.ask("NOOP", "250")
        assert len(house.stage.log.named("reject")) < 1900


async def test_row_19_large_messages_go_to_disk(serve: Serve, tmp_path: Path) -> None:
    house = await serve(message_size=50_000_000)
    before = len(os.listdir("/proc/self/fd"))
    async with house.client() as client:
        await client.greet()
        await client.begin()
        await client.send(b"Subject: x\r\n\r\n" + b"x" * 3_000_000)
        await house.until(lambda: len(os.listdir("/proc/self/fd")) > before + 2)
        await client.send(b"\r\n.\r\n")
        await client.expect("250")
    assert [message.content.size for message in house.stage.courier.messages] == [3_000_016]
    assert list(tmp_path.iterdir()) == []


async def test_row_20_size_declared(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        await client.ask("MAIL FROM:<a@sender.example> SIZE=10001", "552 5.3.4")
        await client.ask("MAIL FROM:<a@sender.example> SIZE=²", "501")
        await client.ask("MAIL FROM:<a@sender.example> SIZE=10000", "250")


async def test_row_20_size_not_declared(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(b"x" * 9_999 + b"\r\n.\r\n")
        await client.expect("552 5.3.4")
        await client.begin()
        await client.send(b"x" * 9_998 + b"\r\n.\r\n")
        await client.expect("250")


@pytest.mark.parametrize("length", [998, 999, 1000, 2048, 9_000])
async def test_row_21_long_lines_are_passed_on(serve: Serve, length: int) -> None:
    house = await serve()
    async with house.client() as client:
        await client.greet()
        await client.begin()
        octets = b"Subject: x\r\n\r\n" + b"x" * length + b"\r\n"
        await client.send(octets + b".\r\n")
        await client.expect("250")
    assert house.received == [octets]


async def test_row_22_bdat(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        assert "CHUNKING" not in await client.ask("EHLO c.example", "250")
        await client.ask("MAIL FROM:<a@sender.example>", "250")
        await client.ask("RCPT TO:<me@ours.example>", "250")
        await client.send(b"BDAT 40 LAST\r\nRSET\r\nMAIL FROM:<evil@evil.example>\r\nNOOP\r\n")
        await client.expect("502 5.5.1")
        await client.ended()
    assert [event["code"] for event in house.stage.log.named("reject")] == [502]
    assert house.received == []


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL FROM:<a\0@b.example>",
        b"MAIL FROM:<a\r@b.example>",
        b"EHLO c\r.example",
        b"EHLO \x1b[31mc.example",
        b"HELO \x7fc",
        b"NOOP \ta",
    ],
    ids=repr,
)
async def test_rows_23_29_34_controls_in_commands(serve: Serve, way: Way, line: bytes) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        await client.ask(line, "501")
        await client.ask(b"NO\0OP", "500 5.5.2")
        await client.ask("EHLO client.example", "250")
        await client.deliver()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_row_24_the_disk_fails(serve: Serve, monkeypatch: pytest.MonkeyPatch, way: Way, number: int) -> None:
    house = await serve()

    def fail(*_: object) -> int:
        raise OSError(number, "secret /var/lib")

    monkeypatch.setattr("forwarder.listener.intake.Receiver", _small_receiver)
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fail)
            await client.send(b"x" * 600 + b"\r\nMAIL FROM:<x@y.example>\r\n.\r\n")
            reply = await client.expect("452 4.3.1" if number == errno.ENOSPC else "451 4.3.0")
        assert "secret" not in reply
        assert "/" not in reply
        await client.deliver()
    assert len(house.received) == 1


def _small_receiver(directory: Path) -> object:
    from forwarder.listener.content import Receiver

    return Receiver(directory, 500)


class Failing(Session):
    """A session that fails as nobody foresaw."""

    error: Exception = RuntimeError("secret\r\n250 2.0.0 injected")

    async def accept(self, content: Content) -> Reply:
        if content.head(7) == b"explode":
            raise self.error
        return await super().accept(content)

    def vrfy(self, argument: bytes) -> Reply:
        raise self.error


@pytest.mark.parametrize(
    "error", [RuntimeError("secret\r\n250 2.0.0 injected"), OSError(errno.ENOSPC, "secret"), ConnectionResetError()]
)
async def test_rows_24_and_25_the_unexpected(serve: Serve, way: Way, error: Exception) -> None:
    stage = Stage()

    def sessions(peer: Peer) -> Session:
        session = Failing(stage.gateway, peer)
        session.error = error
        return session

    house = await serve(sessions=sessions)
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(b"explode\r\n.\r\n")
        said = await client.expect("451 4.3.0")
        assert re.fullmatch(r"451 4\.3\.0 Something went wrong here: try again later, id [0-9A-Z]{16}", said)
        assert await client.ask("VRFY a", "451 4.3.0") == "451 4.3.0 Something went wrong here: try again later"
        await client.deliver()
    assert house.errors == [error, error]
    assert house.culprits == ["127.0.0.1"] * 2
    house.errors.clear()


async def test_row_24_no_session_at_all(serve: Serve) -> None:
    def sessions(_: Peer) -> Session:
        raise RuntimeError("secret")

    house = await serve(sessions=sessions)
    async with house.client() as client:
        assert "secret" not in await client.expect("421 4.3.0")
        await client.ended()
    assert len(house.errors) == 1
    house.errors.clear()


async def test_row_26_half_close_after_the_dot(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        client.writer.write_eof()
        await client.expect("250 2.")
        await client.ended()
    assert len(house.received) == 1


async def test_row_26_half_close_before_the_dot(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(b"Subject: x\r\n\r\nbody\r\n.\r")
        client.writer.write_eof()
        await client.ended()
    assert house.received == []
    assert house.stage.log.named("reject")[-1]["code"] == 451


class SlowCourier(FakeCourier):
    """Lets a test decide when the next hop answers."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.answer = asyncio.Event()

    async def hand_on(self, message: Outgoing, deadline: float) -> Sequence[Outcome]:
        self.begun.set()
        await self.answer.wait()
        return await super().hand_on(message, deadline)


async def test_row_26_half_close_while_the_message_is_handed_on(serve: Serve, way: Way) -> None:
    """The client will send no more, but it still reads: it gets its answer."""
    stage, courier = Stage(), SlowCourier()
    stage.gateway = replace(stage.gateway, courier=courier)
    house = await serve(sessions=lambda peer: Session(stage.gateway, peer))
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(b"Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n")
        client.writer.write_eof()
        await courier.begun.wait()
        await house.until(lambda: all(member._inbox._ended for member in house.listener._members))
        courier.answer.set()
        await client.expect("250 2.")
        await client.expect("221")
        await client.ended()
    assert len(courier.messages) == 1


@pytest.mark.parametrize("rough", [False, True], ids=["closed", "reset"])
async def test_row_26_the_client_goes_while_the_message_is_handed_on(serve: Serve, rough: bool) -> None:
    stage, courier = Stage(), SlowCourier()
    stage.gateway = replace(stage.gateway, courier=courier)
    house = await serve(sessions=lambda peer: Session(stage.gateway, peer))
    async with house.client() as client:
        await client.greet()
        await client.begin()
        await client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        await courier.begun.wait()
        if rough:
            client.reset()
    await asyncio.sleep(0.05)
    courier.answer.set()
    await house.until(lambda: house.listener.connections == 0)
    assert len(courier.messages) == 1
    assert len(stage.log.named("accepted")) == 1


async def test_row_26_commands_sent_meanwhile_are_not_lost(serve: Serve, way: Way) -> None:
    stage, courier = Stage(), SlowCourier()
    stage.gateway = replace(stage.gateway, courier=courier)
    house = await serve(sessions=lambda peer: Session(stage.gateway, peer))
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(b"Subject: x\r\n\r\nbody\r\n.\r\nMAIL FROM:<b@sender.example>\r\n")
        await courier.begun.wait()
        await client.send(b"NOOP\r\n")
        courier.answer.set()
        await client.expect("250 2.")
        await client.expect("250 2.1.0")
        await client.expect("250 2.0.0")


async def test_row_27_many_recipients(serve: Serve) -> None:
    house = await serve(replace(PROMPT, commands=1000))
    async with house.client() as client:
        await client.greet()
        await client.ask("MAIL FROM:<a@sender.example>", "250")
        await client.send(b"RCPT TO:<me@ours.example>\r\n" * 2000)
        for _ in range(100):
            await client.expect("250")
        for _ in range(898):
            await client.expect("452 4.5.3")
        await client.expect("421 4.7.0")


async def test_row_27_many_errors(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        for _ in range(20):
            await client.ask("BOGUS", "500 5.5.1")
        await client.expect("421 4.7.0 Too many errors")
        await client.ended()


async def test_row_28_limits_are_of_one_session(serve: Serve) -> None:
    house = await serve()
    async with house.client() as one, house.client() as two:
        await one.expect("220")
        for _ in range(60):
            await one.ask("EHLO c.example", "250")
        await two.greet()
        for _ in range(60):
            await two.ask("NOOP", "250")
        await one.deliver()


async def test_row_51_nothing_in_a_reply_is_a_control(serve: Serve, way: Way) -> None:
    class Odd(Session):
        def vrfy(self, argument: bytes) -> Reply:
            return Reply(550, "5.7.1", "a\r\x1b[2Jb\x85" + argument.decode("latin-1"))

    stage = Stage()
    house = await serve(sessions=lambda peer: Odd(stage.gateway, peer))
    async with house.client(way) as client:
        await client.greet()
        assert await client.ask(b"VRFY \xff", "550") == "550 5.7.1 a??[2Jb??"
