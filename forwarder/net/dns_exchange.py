"""One DNS question to one name server: UDP, and TCP where the answer does not fit (RFC 7766).

Contract: `exchange` gives the server's response or raises `NoResponse`, whose text says why; the caller bounds the
time. Datagrams that are not the response to this very question (other id, other question, not a response) are
ignored and the wait goes on, so that an answer must be guessed in 16 bits of id and a port picked by the kernel
(RFC 5452). The socket is connected: others' datagrams do not reach it, and a server that is not there is told at
once by ICMP instead of by a time-out.

dnspython reads and writes the messages. Its own sockets are left out on purpose: they wait with the time of day,
which may jump, and are not connected.
"""

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import cast

import dns.message

from forwarder.model.address import AddressError
from forwarder.model.destination import parse_hop

_PORT = 53
_HEADER = 12  # octets (RFC 1035 4.1.1)
_TC = 0x02  # in the third of them


class NoResponse(Exception):  # noqa: N818 - says what happened
    """The server could not be asked, or what it said could not be read."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """Where to ask. `address` is an IP address as text."""

    address: str
    port: int = _PORT

    def __str__(self) -> str:
        return f"{self.address}#{self.port}"


def parse_nameserver(text: str) -> NameServer:
    """Read `192.0.2.53`, `2001:db8::53`, `127.0.0.1:5353`, `[2001:db8::53]:5353`; raise `ValueError`."""
    try:
        return NameServer(str(ip_address(text)))
    except ValueError:
        pass
    try:
        hop = parse_hop(text)
        return NameServer(str(ip_address(hop.host)), hop.port or _PORT)
    except (AddressError, ValueError):
        raise ValueError(f"a name server is written as address or address:port, not {text!r}") from None


async def exchange(query: dns.message.Message, server: NameServer) -> dns.message.Message:
    """Ask and give the response, by TCP if it was cut for UDP (RFC 2181 9)."""
    try:
        return await _udp(query, server) or await _tcp(query, server)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise NoResponse(f"{server} cannot be reached: {_plain(error)}") from None


class _Question(asyncio.DatagramProtocol):
    """Waits on a connected socket for the response to one query: None says that it was cut."""

    def __init__(self, query: dns.message.Message, response: "asyncio.Future[dns.message.Message | None]") -> None:
        self._query = query
        self._response = response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.DatagramTransport", transport).sendto(self._query.to_wire())  # which it is not, formally, in 3.11

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._response.done() or len(data) < _HEADER or data[:2] != self._query.id.to_bytes(2, "big"):
            return
        if data[2] & _TC:  # not parsed: some cut within a record
            self._response.set_result(None)
            return
        try:
            response = _read(data)
        except NoResponse as error:
            self._response.set_exception(error)
            return
        if self._query.is_response(response):
            self._response.set_result(response)

    def error_received(self, exc: Exception) -> None:
        if not self._response.done():
            self._response.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._response.done():
            self._response.set_exception(exc or ConnectionAbortedError("the socket was closed"))


async def _udp(query: dns.message.Message, server: NameServer) -> dns.message.Message | None:
    loop = asyncio.get_running_loop()
    response: asyncio.Future[dns.message.Message | None] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Question(query, response), remote_addr=(server.address, server.port)
    )
    try:
        return await response
    finally:
        response.cancel()
        transport.close()


async def _tcp(query: dns.message.Message, server: NameServer) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(server.address, server.port)
    try:
        writer.write(query.to_wire(prepend_length=True))
        size = int.from_bytes(await reader.readexactly(2), "big")  # RFC 1035 4.2.2
        response = _read(await reader.readexactly(size))
    finally:
        writer.transport.abort()  # the answer is there, or given up: nothing is left to send
    if not query.is_response(response):
        raise NoResponse(f"{server} answered another question")
    return response


def _read(octets: bytes) -> dns.message.Message:
    try:
        return dns.message.from_wire(octets, ignore_trailing=True)
    except Exception:  # what dnspython raises for hostile octets is not confined to its own errors
        raise NoResponse("the response of the name server is malformed") from None


def _plain(error: OSError | EOFError) -> str:
    return (error.strerror if isinstance(error, OSError) else "it closed the connection") or type(error).__name__
