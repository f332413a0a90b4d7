"""The PROXY protocol, both versions: the client is whom the balancer names, or the connection ends."""

import asyncio
import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.listener.inbox import Inbox
from forwarder.listener.proxy import read_proxy_header
from forwarder.model.envelope import Peer
from tests.listener.dialogue import PROMPT, Serve, Way
from tests.listener.test_inbox import Wire
from tests.listener.test_tls import server_context

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(source: str, target: str, *, command: int = 1, protocol: int = 1, more: bytes = b"") -> bytes:
    family = 1 if "." in source else 2
    body = ip_address(source).packed + ip_address(target).packed + struct.pack("!HH", 4321, 25) + more
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family << 4 | protocol, len(body)) + body


GOOD = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.25 4321 25\r\n", "192.0.2.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::25 4321 25\r\n", "2001:db8::7"),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.25 4321 25\r\n", "192.0.2.7"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "127.0.0.1"),
    (version_2("192.0.2.7", "192.0.2.25"), "192.0.2.7"),
    (version_2("2001:db8::7", "2001:db8::25", more=b"\x04\0\x01x"), "2001:db8::7"),
    (version_2("192.0.2.7", "192.0.2.25", command=0), "127.0.0.1"),
    (SIGNATURE + b"\x20\x00\0\0", "127.0.0.1"),
]
BAD = [
    b"EHLO client.example\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.25 4321\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.25 4321 25\n",
    b"PROXY TCP4 2001:db8::7 192.0.2.25 4321 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.25 4321 65536\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.25 4321 25 more\r\n",
    b"PROXY\r\n",
    b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
    SIGNATURE + b"\x31\x11\0\0",
    SIGNATURE + b"\x21\x11\0\x04abcd",
    SIGNATURE[:-1] + b"\r\x21\x11\0\0",
    version_2("192.0.2.7", "192.0.2.25", protocol=2),
    SIGNATURE + b"\x21\x31\0\xd8" + b"x" * 216,
]


@pytest.mark.parametrize(("header", "address"), GOOD, ids=range(len(GOOD)))
async def test_headers(serve: Serve, way: Way, header: bytes, address: str) -> None:
    house = await serve(proxy_protocol=True)
    async with house.client(way) as client:
        await client.send(header)
        await client.greet()
        await client.deliver()
    assert house.stage.log.named("connect")[0]["client"] == address


@pytest.mark.parametrize("header", BAD, ids=range(len(BAD)))
async def test_bad_headers_end_the_connection(serve: Serve, way: Way, header: bytes) -> None:
    house = await serve(replace(PROMPT, proxy_timeout=0.5), proxy_protocol=True)
    async with house.client(way) as client:
        await client.send(header)
        await client.ended()
    assert house.stage.log.events == []


async def test_no_header_in_time(serve: Serve) -> None:
    house = await serve(replace(PROMPT, proxy_timeout=0.05), proxy_protocol=True)
    async with house.client() as client:
        await client.ended()
    async with house.client() as client:
        await client.send(b"PROXY TCP4 ")
        await client.ended()


async def test_row_16_clients_are_counted_by_the_header(serve: Serve) -> None:
    house = await serve(replace(PROMPT, connections_per_client=1), proxy_protocol=True)
    async with house.client() as one, house.client() as two, house.client() as three:
        await one.send(version_2("192.0.2.7", "192.0.2.25"))
        await one.expect("220")
        await two.send(version_2("192.0.2.7", "192.0.2.25"))
        await two.expect("421 4.7.0")
        await two.ended()
        await three.send(version_2("192.0.2.8", "192.0.2.25"))
        await three.expect("220")


async def test_row_04_talk_behind_the_header(serve: Serve) -> None:
    house = await serve(proxy_protocol=True)
    async with house.client() as client:
        await client.send(version_2("192.0.2.7", "192.0.2.25") + b"EHLO client.example\r\n")
        await client.expect("554 5.5.0")


@given(st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"]), st.binary(max_size=300))
def test_any_octets(beginning: bytes, rest: bytes) -> None:
    async def read() -> Peer | None:
        box = Inbox(asyncio.get_running_loop(), Wire())
        box.feed(beginning + rest)
        box.end()
        return await read_proxy_header(box, Peer("127.0.0.1", 1), 5.0)

    assert isinstance(asyncio.run(read()), Peer | None)


async def test_what_fails_is_told_of_the_client_and_not_of_the_balancer(serve: Serve) -> None:
    context = server_context()
    house = await serve(proxy_protocol=True, tls=lambda: context)
    async with house.client() as client:
        await client.send(GOOD[0][0])
        await client.greet()
        await client.ask("STARTTLS", "220")
    await house.until(lambda: house.listener.connections == 0)
    assert house.handshakes == [("192.0.2.7", "the client hung up")]
