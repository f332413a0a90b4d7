"""STARTTLS, on the loop of the standard library and on uvloop; each row whole and byte by byte."""

import ssl
from collections.abc import Callable
from dataclasses import replace

import pytest
import trustme

from forwarder.model.envelope import Tls
from tests.listener.dialogue import PROMPT, Dialogue, House, Play, Serve, Way

AUTHORITY = trustme.CA()


def server_context(name: str = "mx.ours.example") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def secure(client: Dialogue) -> None:
    await client.ask("STARTTLS", "220 2.0.0")
    await client.start_tls(client_context())


def test_a_message_under_tls(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, way: Way) -> None:
        context = server_context()
        house = await serve(tls=lambda: context)
        async with house.client(way) as client:
            await client.expect("220")
            assert "STARTTLS" in await client.ask("EHLO client.example", "250")
            await secure(client)
            await client.ask("MAIL FROM:<a@sender.example>", "503")  # what was said in clear text is forgotten
            assert "STARTTLS" not in await client.ask("EHLO client.example", "250")
            await client.deliver()
            await client.ask("QUIT", "221")
            await client.ended()
        assert len(house.received) == 1
        head = house.stage.courier.messages[0].deliveries[0].head
        assert b"TLSv1.3" in head

    perform(play)


def test_row_06_commands_behind_starttls(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, way: Way) -> None:
        context = server_context()
        house = await serve(tls=lambda: context)
        async with house.client(Way.WHOLE) as client:
            await client.greet()
            await client.send(b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@evil.example>\r\nNOO")
            await client.expect("220 2.0.0")
            await client.start_tls(client_context())
            client.way = way
            await client.ask("MAIL FROM:<a@sender.example>", "503")
            await client.ask("EHLO client.example", "250")
            await client.deliver()

    perform(play)


def test_row_07_starttls_within_tls(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, way: Way) -> None:
        context = server_context()
        house = await serve(tls=lambda: context)
        async with house.client(way) as client:
            await client.greet()
            await secure(client)
            await client.ask("STARTTLS", "503 5.5.1")
            await client.ask("EHLO client.example", "250")

    perform(play)


def test_row_10_auth_is_not_offered_under_tls(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, way: Way) -> None:
        context = server_context()
        house = await serve(tls=lambda: context)
        async with house.client(way) as client:
            await client.greet()
            await secure(client)
            assert "AUTH" not in await client.ask("EHLO client.example", "250")
            await client.ask("AUTH PLAIN AGEAYg==", "502 5.5.1")
            await client.ask("MAIL FROM:<a@sender.example>", "250")
            await client.ask("AUTH PLAIN AGEAYg==", "503 5.5.1")

    perform(play)


def test_a_failed_handshake_harms_nobody(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, way: Way) -> None:
        context = server_context()
        house = await serve(tls=lambda: context)
        async with house.client(way) as client:
            await client.greet()
            await client.ask("STARTTLS", "220")
            await client.send(b"EHLO I have no TLS, you know: this is not a handshake\r\n")
            await house.until(lambda: house.listener.connections == 0)
        assert house.handshakes == [("127.0.0.1", "wrong version number")]
        async with house.client(way) as client:
            await client.greet()
            await client.deliver()

    perform(play)


def test_a_handshake_that_never_comes(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, _: Way) -> None:
        context = server_context()
        house = await serve(replace(PROMPT, handshake_timeout=0.05), tls=lambda: context)
        async with house.client() as client:
            await client.greet()
            await client.ask("STARTTLS", "220")
            await house.until(lambda: house.listener.connections == 0)
        assert house.handshakes == [("127.0.0.1", "timed out")]

    perform(play)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["at once", "in the middle"])
@pytest.mark.parametrize("rough", [False, True], ids=["closed", "reset"])
def test_a_client_that_goes_instead_of_shaking_hands(perform: Callable[[Play], None], said: bytes, rough: bool) -> None:
    async def play(serve: Serve, way: Way) -> None:
        context = server_context()
        house = await serve(tls=lambda: context)
        async with house.client(way) as client:
            await client.greet()
            await client.ask("STARTTLS", "220")
            await client.send(said)
            if rough:
                client.reset()
        await house.until(lambda: house.listener.connections == 0)
        assert house.handshakes == [("127.0.0.1", "the client hung up")]

    perform(play)


def test_a_client_that_goes_before_it_hears_that_it_may(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, way: Way) -> None:
        context = server_context()
        house = await serve(tls=lambda: context)
        async with house.client(way) as client:
            await client.greet()
            await client.send(b"STARTTLS\r\n")
            client.reset()
        await house.until(lambda: house.listener.connections == 0)
        assert [reason for _, reason in house.handshakes] in ([], ["the client hung up"])

    perform(play)


def test_row_26_end_of_input_after_the_dot_under_tls(perform: Callable[[Play], None]) -> None:
    async def play(serve: Serve, way: Way) -> None:
        context = server_context()
        house = await serve(tls=lambda: context)
        async with house.client(way) as client:
            await client.greet()
            await secure(client)
            await client.ask("EHLO client.example", "250")
            await client.begin()
            await client.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        await house.until(lambda: len(house.received) == 1)

    perform(play)


async def test_a_large_message_under_tls(serve: Serve) -> None:
    context = server_context()
    house = await serve(tls=lambda: context, message_size=50_000_000)
    async with house.client() as client:
        await client.greet()
        await secure(client)
        await client.ask("EHLO client.example", "250")
        await client.begin()
        await client.send((b"x" * 76 + b"\r\n") * 50_000 + b".\r\n")
        await client.expect("250")
    assert house.received == [(b"x" * 76 + b"\r\n") * 50_000]


async def test_the_session_is_told_of_the_layer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Tls] = []
    context = server_context()
    house = await serve(tls=lambda: context)
    async with house.client() as client:
        await client.greet()
        talk = next(iter(house.listener._members))._talk
        monkeypatch.setattr(talk, "secured", told.append)
        await secure(client)
        await client.ask("NOOP", "250")
        cipher = client.writer.get_extra_info("cipher")[0]
    assert told == [Tls("TLSv1.3", cipher)]


async def test_a_renewed_certificate_counts_at_once(serve: Serve) -> None:
    contexts = [server_context(), server_context("new.ours.example")]
    house = await serve(tls=lambda: contexts[0])
    names = []
    for _ in range(2):
        async with house.client() as client:
            await client.greet()
            await client.ask("STARTTLS", "220")
            lax = client_context()
            lax.check_hostname = False
            await client.start_tls(lax)
            names.append(client.writer.get_extra_info("peercert")["subjectAltName"][0][1])
        contexts.reverse()
    assert names == ["mx.ours.example", "new.ours.example"]


async def test_without_tls(serve: Serve, way: Way) -> None:
    house = await serve()
    async with house.client(way) as client:
        await client.expect("220")
        assert "STARTTLS" not in await client.ask("EHLO client.example", "250")
        await client.ask("STARTTLS", "502 5.5.1")
        await client.deliver()


async def test_while_there_is_no_certificate(serve: Serve) -> None:
    house = await serve(tls=lambda: None)
    async with house.client() as client:
        await client.expect("220")
        assert "STARTTLS" not in await client.ask("EHLO client.example", "250")
        await client.ask("STARTTLS", "454 4.7.0")
        await client.deliver()


async def test_a_broken_certificate_keeps_no_mail_out(serve: Serve) -> None:
    def broken() -> ssl.SSLContext:
        raise ssl.SSLError("secret")

    house = await serve(tls=broken)
    async with house.client() as client:
        await client.greet()
        await client.ask("STARTTLS", "454 4.7.0")
        await client.deliver()
    assert len(house.errors) == 2
    house.errors.clear()


@pytest.mark.parametrize(("line", "code"), [("STARTTLS now", "501 5.5.4"), ("starttls", "503 5.5.1")])
async def test_starttls_out_of_place(serve: Serve, line: str, code: str) -> None:
    context = server_context()
    house: House = await serve(tls=lambda: context)
    async with house.client() as client:
        await client.greet()
        await client.ask("MAIL FROM:<a@sender.example>", "250")
        await client.ask(line, code)
        await client.ask("RCPT TO:<me@ours.example>", "250")
