"""Clients that go before they are told that their message was taken: the session learns of it, and only of those."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

import pytest

from forwarder.listener.limits import ListenerLimits
from forwarder.model.reply import Reply
from forwarder.session.transaction import Session
from tests.listener.dialogue import PATIENCE, PROMPT, Dialogue, House, Play, Serve, Way
from tests.listener.test_rows import SlowCourier
from tests.listener.test_tls import secure, server_context
from tests.session.stage import Stage


class Parting(Enum):
    CLOSED = "closed"
    RESET = "reset"

    def take(self, client: Dialogue) -> None:
        if self is Parting.RESET:
            client.reset()
        else:
            client.writer.close()


class Scene:
    """A house whose courier waits until `courier.answer` is set; `unheard` counts what the sessions were told."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.courier = SlowCourier()
        self.stage.gateway = replace(self.stage.gateway, courier=self.courier)
        self.unheard = 0
        self.house: House

    async def open(self, serve: Serve, *, tls: bool = False, limits: ListenerLimits = PROMPT) -> None:
        scene = self

        class Listening(Session):
            def unheard(self) -> None:
                super().unheard()
                scene.unheard += 1

        context = server_context()
        self.house = await serve(
            limits, sessions=lambda peer: Listening(self.stage.gateway, peer), tls=(lambda: context) if tls else None
        )

    async def send(self, client: Dialogue, after: bytes = b"") -> None:
        await client.greet()
        if self.house.listener._options.tls:
            await secure(client)
            await client.ask("EHLO client.example", "250")
        await client.begin()
        await client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n" + after)
        async with asyncio.timeout(PATIENCE):
            await self.courier.begun.wait()

    async def over(self) -> None:
        self.courier.answer.set()
        await self.house.until(lambda: self.house.listener.connections == 0)
        assert len(self.courier.messages) == 1


@pytest.mark.parametrize("parting", Parting, ids=lambda parting: parting.value)
@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_row_26_the_session_learns_that_its_client_is_gone(
    perform: Callable[[Play], None], parting: Parting, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forwarder.listener.arrival._LOOKS", 1_000_000)  # it is seen, not merely presumed after a while

    async def play(serve: Serve, way: Way) -> None:
        scene = Scene()
        await scene.open(serve, tls=tls)
        async with scene.house.client(way) as client:
            await scene.send(client)
            parting.take(client)
        await asyncio.sleep(0.05)
        await scene.over()
        assert scene.unheard == 1

    perform(play)


def test_row_26_even_while_its_commands_wait_unread(perform: Callable[[Play], None]) -> None:
    """What it sent after the dot keeps us from reading, so that the loop does not see that it has gone."""

    async def play(serve: Serve, _: Way) -> None:
        scene = Scene()
        await scene.open(serve)
        async with scene.house.client() as client:
            await scene.send(client, b"NOOP\r\n" * 50_000)
            client.reset()
        await asyncio.sleep(0.05)
        await scene.over()
        assert scene.unheard == 1

    perform(play)


def test_row_26_whoever_reads_on_has_heard(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, way: Way) -> None:
        scene = Scene()
        await scene.open(serve)
        async with scene.house.client(way) as client:
            await scene.send(client)
            client.writer.write_eof()
            await asyncio.sleep(0.05)
            scene.courier.answer.set()
            await client.expect("250 2.")
            await client.ended()
        await scene.over()
        assert scene.unheard == 0

    perform(play)


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_whoever_stays_has_heard(perform: Callable[[Play], None], tls: bool) -> None:
    async def play(serve: Serve, way: Way) -> None:
        scene = Scene()
        await scene.open(serve, tls=tls)
        async with scene.house.client(way) as client:
            await scene.send(client)
            scene.courier.answer.set()
            await client.expect("250 2.")
            await client.deliver()
            await client.ask("QUIT", "221")
        assert scene.unheard == 0

    perform(play)


async def test_one_that_does_not_read_has_not_heard(serve: Serve) -> None:
    scene = Scene()
    await scene.open(serve, limits=replace(PROMPT, command_timeout=0.2))
    async with scene.house.client() as client:
        await scene.send(client)
        (member,) = scene.house.listener._members
        member.pause_writing()  # as the transport does when the client does not read
        await scene.over()
    assert scene.unheard == 1


async def test_one_that_says_nothing_more_at_all_has_not_heard(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its input has ended and it acknowledges nothing: the network is down, or its machine."""
    monkeypatch.setattr("forwarder.listener.arrival._LOOKS", 3)
    scene = Scene()
    await scene.open(serve)
    async with scene.house.client() as client:
        await scene.send(client)
        client.writer.write_eof()
        (member,) = scene.house.listener._members
        monkeypatch.setattr(member._wire, "get_write_buffer_size", lambda: 1)
        await scene.house.until(lambda: member._inbox.ended)
        await scene.over()
    assert scene.unheard == 1


async def test_a_refusal_need_not_be_heard(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    await scene.open(serve)

    async def refuse(*_: object) -> Reply:
        scene.courier.begun.set()
        await scene.courier.answer.wait()
        return Reply(550, "5.7.1", "No")

    monkeypatch.setattr(Session, "accept", refuse)
    async with scene.house.client() as client:
        await scene.send(client)
        client.reset()
    scene.courier.answer.set()
    await scene.house.until(lambda: scene.house.listener.connections == 0)
    assert scene.unheard == 0
