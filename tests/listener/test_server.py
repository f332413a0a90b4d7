"""A listener as a whole: dialogues over both families, pipelining, clients that do not read, an orderly end."""

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest

from forwarder.listener.limits import TOO_MANY_OF_YOURS, Admission
from forwarder.listener.protocol import SHUTTING_DOWN, SmtpConnection
from forwarder.listener.server import Listener
from forwarder.model.envelope import Peer
from forwarder.model.reply import Reply
from forwarder.session.transaction import Session
from tests.listener.dialogue import PROMPT, Dialogue, House, Serve, Way
from tests.listener.test_rows import SlowCourier
from tests.session.stage import Stage


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_dialogue(serve: Serve, way: Way, host: str) -> None:
    house = await serve(host=host)
    async with house.client(way) as client:
        assert await client.expect("220") == "220 mx.ours.example ESMTP forwarder"
        offers = (await client.ask("EHLO client.example", "250")).split("\n")
        assert offers[0] == "250-mx.ours.example"
        assert {"250-PIPELINING", "250-SIZE 10000", "250-8BITMIME", "250-ENHANCEDSTATUSCODES"} <= set(offers)
        await client.deliver()
        await client.ask("rset", "250 2.0.0")
        await client.ask("Vrfy me", "252 2.")
        await client.ask("help", "214 2.0.0")
        await client.ask("NoOp anything", "250 2.0.0")
        await client.ask("HELO client.example", "250")
        await client.deliver()
        await client.ask("quit", "221 2.0.0")
        await client.ended()
    assert house.received == [b"Subject: x\r\n\r\nbody\r\n"] * 2
    assert house.stage.log.named("connect")[0]["client"] == host
    assert house.stage.log.named("connect")[0]["local"] == host


@pytest.mark.parametrize("blank", [" ", "\t", " \t "], ids=repr)
async def test_white_space_at_the_end_of_a_line(serve: Serve, way: Way, blank: str) -> None:
    """RFC 5321 4.1.1: it should be tolerated."""
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        for line in ["EHLO c.example", "MAIL FROM:<a@sender.example>", "RCPT TO:<me@ours.example>", "NOOP"]:
            await client.ask(line + blank, "250")
        await client.ask("DATA" + blank, "354")
        await client.send(b"Subject: x \t\r\n.\r\n")
        await client.expect("250")
        await client.ask("QUIT" + blank, "221")
    assert house.received == [b"Subject: x \t\r\n"]


@pytest.mark.parametrize("verb", ["EXPN", "TURN", "SEND", "SOML", "SAML", "ETRN"])
async def test_refused_by_name(serve: Serve, way: Way, verb: str) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        assert verb in await client.ask(f"{verb} <a@b.example>", "502 5.5.1")
        await client.deliver()


@pytest.mark.parametrize("line", ["RSET now", "QUIT now", "DATA now"])
async def test_arguments_that_must_not_be(serve: Serve, line: str) -> None:
    house = await serve()
    async with house.client() as client:
        await client.greet()
        await client.ask("MAIL FROM:<a@sender.example>", "250")
        await client.ask("RCPT TO:<me@ours.example>", "250")
        await client.ask(line, "501 5.5.4")
        await client.ask("DATA", "354")
        await client.send(b".\r\n")
        await client.expect("250")


async def test_a_message_within_a_stream_of_commands(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        one = b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<me@ours.example>\r\nDATA\r\n"
        await client.send(b"EHLO c.example\r\n" + one + b"one\r\n.\r\n" + one + b"two\r\n.\r\nQUIT\r\n")
        for code in ["250", *(["250 2.1.0", "250 2.1.5", "354", "250 2."] * 2), "221"]:
            await client.expect(code)
        await client.ended()
    assert house.received == [b"one\r\n", b"two\r\n"]


class Counting:
    """A transport that counts what is written to it."""

    def __init__(self, wire: asyncio.Transport) -> None:
        self._wire = wire
        self.written: list[bytes] = []

    def write(self, octets: bytes) -> None:
        self.written.append(octets)
        self._wire.write(octets)

    def __getattr__(self, name: str) -> object:
        return getattr(self._wire, name)


def only_member(house: House) -> SmtpConnection:
    (member,) = house.listener._members
    return member


async def test_replies_to_one_segment_are_written_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    house = await serve()
    async with house.client() as client:
        await client.greet()
        wire = Counting(only_member(house)._wire)
        monkeypatch.setattr(only_member(house), "_wire", wire)
        rcpt = b"RCPT TO:<me@ours.example>\r\n"
        await client.send(b"MAIL FROM:<a@sender.example>\r\n" + rcpt * 3 + b"DATA\r\n")
        for code in ["250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.1.5", "354"]:
            await client.expect(code)
        assert len(wire.written) == 1
        await client.send(b".\r\n")
        await client.expect("250")


async def test_a_reply_does_not_wait_for_half_a_command(serve: Serve) -> None:
    house = await serve()
    async with house.client() as client:
        await client.greet()
        await client.send(b"NOOP\r\nNOO")
        await client.expect("250 2.0.0")
        await client.send(b"P\r\n")
        await client.expect("250 2.0.0")


async def flood(address: tuple[str, int]) -> socket.socket:
    """Send commands without reading until nothing more can be sent."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, address)
    blocked = 0
    while blocked < 20:
        try:
            client.send(b"VRFY " + b"x" * 1000 + b"\r\n")
            blocked = 0
        except BlockingIOError:
            blocked += 1
            await asyncio.sleep(0.01)
        except ConnectionError:
            break
    return client


class Wordy(Session):
    """Answers at length."""

    def vrfy(self, argument: bytes) -> Reply:
        return Reply(252, "2.1.5", "word " * 2000)


async def test_row_19_a_client_that_does_not_read_is_held_back(serve: Serve) -> None:
    stage = Stage()
    limits = replace(PROMPT, idle_commands=10**9, commands=10**9)
    house = await serve(limits, sessions=lambda peer: Wordy(stage.gateway, peer))
    client = await flood(house.address)
    member = only_member(house)
    assert not member._writable.is_set()
    assert len(member._inbox._buffer) < 1_000_000
    assert member._wire.get_write_buffer_size() < 1_000_000
    async with house.client(source="127.0.0.2") as other:
        await other.greet()
    client.close()


async def test_a_client_that_does_not_read_is_cut(serve: Serve) -> None:
    stage = Stage()
    limits = replace(PROMPT, idle_commands=10**9, commands=10**9, command_timeout=0.1)
    house = await serve(limits, sessions=lambda peer: Wordy(stage.gateway, peer))
    client = await flood(house.address)
    await house.until(lambda: house.listener.connections == 0)
    client.close()


async def test_idle_sessions_are_told_when_it_stops(serve: Serve) -> None:
    house = await serve()
    async with house.client() as one, house.client() as two:
        await one.greet()
        await two.greet()
        await two.deliver()
        draining = asyncio.create_task(house.listener.drain(20.0))
        for client in (one, two):
            await client.expect("421 4.3.2")
            await client.ended()
            client.writer.close()
        assert await draining == 0


async def test_transactions_end_before_it_stops(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.greet()
        await client.ask("MAIL FROM:<a@sender.example>", "250")
        draining = asyncio.create_task(house.listener.drain(20.0))
        await client.ask("RCPT TO:<me@ours.example>", "250")
        await client.ask("DATA", "354")
        await client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        await client.expect("250 2.")
        await client.expect("421 4.3.2")
        await client.ended()
        client.writer.close()
        assert await draining == 0
    assert len(house.received) == 1


async def test_a_message_being_handed_on_ends_before_it_stops(serve: Serve) -> None:
    stage, courier = Stage(), SlowCourier()
    stage.gateway = replace(stage.gateway, courier=courier)
    house = await serve(sessions=lambda peer: Session(stage.gateway, peer))
    async with house.client() as client:
        await client.greet()
        await client.begin()
        await client.send(b"x\r\n.\r\n")
        await courier.begun.wait()
        draining = asyncio.create_task(house.listener.drain(20.0))
        await asyncio.sleep(0)
        courier.answer.set()
        await client.expect("250 2.")
        await client.expect("421 4.3.2")
        await client.ended()
        client.writer.close()
        assert await draining == 0


async def test_what_takes_too_long_is_cut_in_the_end(serve: Serve) -> None:
    house = await serve()
    async with house.client() as client:
        await client.greet()
        await client.begin()
        assert await house.listener.drain(0.05) == 1
        await client.ended()
    assert house.listener.connections == 0
    assert house.received == []


async def test_nobody_is_let_in_when_it_stops(serve: Serve) -> None:
    house = await serve()
    async with house.client() as client:
        await client.greet()
        house.listener.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*house.address)
        await client.deliver()


async def test_ipv4_clients_of_a_socket_for_both_families(serve: Serve) -> None:
    stage = Stage()
    stage.log.events.clear()
    house = await serve()
    listener = Listener(lambda peer: Session(stage.gateway, peer), house.listener._options, Admission(PROMPT))
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    await listener.serve([both])
    reader, writer = await asyncio.open_connection("127.0.0.1", both.getsockname()[1])
    client = Dialogue(reader, writer, Way.WHOLE)
    await client.greet()
    await client.ask("QUIT", "221")
    writer.close()
    await listener.drain(20.0)
    connect = stage.log.named("connect")[0]
    assert (connect["client"], connect["local"]) == ("127.0.0.1", "127.0.0.1")


async def test_those_turned_away_are_told_of_once(serve: Serve) -> None:
    house = await serve(replace(PROMPT, connections=1))
    async with house.client() as one:
        await one.expect("220")
        for source in ["127.0.0.9", "127.0.0.9", "127.0.0.8", "127.0.0.9"]:
            async with house.client(source=source) as two:
                await two.expect("421")
    assert house.turned_away == [("127.0.0.9", 1), ("127.0.0.8", 1)]


async def test_a_flood_of_connections_leaves_nothing_behind(serve: Serve) -> None:
    house = await serve(replace(PROMPT, connections=5))
    for _ in range(50):
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection(*house.address)
            writer.transport.abort()
    await house.until(lambda: house.listener.connections == 0)
    async with house.client() as client:
        await client.greet()


async def test_a_session_is_made_for_each_client(serve: Serve) -> None:
    peers: list[Peer] = []
    stage = Stage()

    def sessions(peer: Peer) -> Session:
        peers.append(peer)
        return Session(stage.gateway, peer)

    house = await serve(sessions=sessions)
    for _ in range(2):
        async with house.client() as client:
            await client.greet()
            assert peers[-1] == Peer("127.0.0.1", client.writer.get_extra_info("sockname")[1], "127.0.0.1")


async def test_row_18_all_clients_share_their_turns(serve: Serve) -> None:
    house = await serve()
    async with house.client() as one, house.client() as two:
        await one.greet()
        await two.greet()
        first, second = house.listener._members
        assert first._inbox._turns is second._inbox._turns


class SlowDoorkeeper:
    """Answers when it is told to, as one in another process may."""

    def __init__(self, answer: Reply | None = None) -> None:
        self.asked, self.answering = asyncio.Event(), asyncio.Event()
        self.answer = answer
        self.inside: list[str] = []

    async def enter(self, client: str) -> Reply | None:
        self.asked.set()
        await self.answering.wait()
        if self.answer is None:
            self.inside.append(client)
        return self.answer

    def leave(self, client: str) -> None:
        self.inside.remove(client)


@pytest.mark.parametrize("proxied", [False, True])
async def test_nobody_is_greeted_before_there_is_a_place(serve: Serve, proxied: bool) -> None:
    doorkeeper = SlowDoorkeeper()
    house = await serve(doorkeeper=doorkeeper, proxy_protocol=proxied)
    async with house.client() as client:
        if proxied:
            await client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 25\r\n")
        await doorkeeper.asked.wait()
        assert house.stage.log.events == []
        doorkeeper.answering.set()
        await client.greet()
        assert doorkeeper.inside == ["192.0.2.1" if proxied else "127.0.0.1"]
        await client.ask("QUIT", "221")
    await house.until(lambda: house.listener.connections == 0)
    assert doorkeeper.inside == []


async def test_the_place_of_a_client_that_did_not_wait_for_it_is_given_up(serve: Serve) -> None:
    doorkeeper = SlowDoorkeeper()
    house = await serve(doorkeeper=doorkeeper)
    async with house.client() as client:
        await doorkeeper.asked.wait()
        client.reset()
    doorkeeper.answering.set()
    await house.until(lambda: house.listener.connections == 0)
    assert doorkeeper.inside == []


async def test_a_late_refusal_is_told_and_nothing_is_given_up(serve: Serve) -> None:
    doorkeeper = SlowDoorkeeper(TOO_MANY_OF_YOURS)
    house = await serve(doorkeeper=doorkeeper)
    async with house.client() as client:
        await doorkeeper.asked.wait()
        doorkeeper.answering.set()
        await client.expect("421 4.7.0")
        await client.ended()
    await house.until(lambda: house.listener.connections == 0)
    assert house.turned_away == [("127.0.0.1", 1)]
    assert house.stage.log.events == []


async def test_a_drain_does_not_wait_for_a_doorkeeper_for_ever(serve: Serve) -> None:
    doorkeeper = SlowDoorkeeper()
    house = await serve(doorkeeper=doorkeeper)
    async with house.client() as client:
        await doorkeeper.asked.wait()
        assert await house.listener.drain(0.0) == 1
        await client.ended()
    assert (house.listener.connections, doorkeeper.inside) == (0, [])


async def test_a_doorkeeper_that_fails_costs_one_client_its_session(serve: Serve) -> None:
    class Broken(SlowDoorkeeper):
        async def enter(self, client: str) -> Reply | None:
            if not self.asked.is_set():
                self.asked.set()
                raise ValueError("broken")
            return None

        def leave(self, client: str) -> None:
            pass

    house = await serve(doorkeeper=Broken())
    async with house.client() as client:
        await client.expect("421 4.3.0")
        await client.ended()
    async with house.client() as client:
        await client.greet()
    assert [repr(error) for error in house.errors] == ["ValueError('broken')"]
    house.errors.clear()


async def test_a_listener_that_is_full_asks_nobody(serve: Serve) -> None:
    doorkeeper = SlowDoorkeeper()
    house = await serve(replace(PROMPT, connections=1), doorkeeper=doorkeeper)
    async with house.client() as one, house.client(source="127.0.0.2") as two:
        await two.expect("421 4.7.0")  # while the first still waits
        doorkeeper.answering.set()
        await one.expect("220")
    await house.until(lambda: house.listener.connections == 0)
    assert doorkeeper.inside == []


async def test_a_session_that_is_cut_off_in_mid_content_is_told(serve: Serve, way: Way) -> None:
    """Otherwise what it asks of DNS about the message goes on."""
    stage, told = Stage(), list[Reply]()

    class Listening(Session):
        def spoiled(self, reply: Reply) -> Reply:
            told.append(reply)
            return super().spoiled(reply)

    house = await serve(sessions=lambda peer: Listening(stage.gateway, peer))
    async with house.client(way) as client:
        await client.greet()
        await client.begin()
        await client.send(b"Subject: x\r\n\r\nhalf of it")
        assert await house.listener.drain(0) == 1
    assert [str(reply) for reply in told] == [str(SHUTTING_DOWN)]
    assert house.errors == []
