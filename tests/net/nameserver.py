"""A DNS server on loopback that does as a table says: UDP and TCP on one port, honest or hostile.

The table maps (name, type) to a behaviour: a function from the query and the transport ("udp" or "tcp") to the
messages that are sent back. A name that is in no key is NXDOMAIN.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from forwarder.net.dns_exchange import NameServer

Behaviour = Callable[[dns.message.Message, str], Sequence[bytes]]

SOA = "ns.example. owner.example. 1 3600 600 86400 {minimum}"


def records(*lines: str, ad: bool = False, soa: int | None = None, rcode: int = dns.rcode.NOERROR) -> Behaviour:
    """Answer with these lines of a zone file, and with an SOA of that minimum in the authority section."""

    def answer(query: dns.message.Message, transport: str) -> Sequence[bytes]:
        response = response_to(query, *lines, rcode=rcode)
        if ad:
            response.flags |= dns.flags.AD
        if soa is not None:
            response.authority.append(dns.rrset.from_text("example.", 3600, "IN", "SOA", SOA.format(minimum=soa)))
        return [response.to_wire(max_size=65535)]

    return answer


def response_to(query: dns.message.Message, *lines: str, rcode: int = dns.rcode.NOERROR) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(dns.rcode.Rcode(rcode))
    for line in lines:
        owner, ttl, kind, data = line.split(" ", 3)
        record = dns.rrset.from_text(f"{owner}.", int(ttl), "IN", kind, data)
        rrset = response.find_rrset(response.answer, record.name, record.rdclass, record.rdtype, create=True)
        rrset.add(record[0], int(ttl))
    return response


def failure(rcode: int) -> Behaviour:
    return records(rcode=rcode)


def silence(query: dns.message.Message, transport: str) -> Sequence[bytes]:
    return []


def truncated(*lines: str, cut: int | None = None) -> Behaviour:
    """Say over UDP that the answer is too long (and cut it anywhere), and give it over TCP."""

    def answer(query: dns.message.Message, transport: str) -> Sequence[bytes]:
        response = response_to(query, *lines)
        if transport == "udp":
            response.flags |= dns.flags.TC
            return [response.to_wire(max_size=65535)[:cut]]
        return [response.to_wire(max_size=65535)]

    return answer


def spoofed(forged: str, genuine: str) -> Behaviour:
    """Send forgeries (wrong id, wrong question, a query, rubbish) before the genuine answer."""

    def answer(query: dns.message.Message, transport: str) -> Sequence[bytes]:
        wrong_id = response_to(query, forged)
        wrong_id.id ^= 1
        elsewhere = dns.message.make_query("other.example", "A", id=query.id)
        not_a_response = response_to(query, forged)
        not_a_response.flags &= ~dns.flags.QR
        rubbish = wrong_id.to_wire()[:20]
        others = [
            query.id.to_bytes(2, "big"),
            rubbish,
            wrong_id.to_wire(),
            response_to(elsewhere).to_wire(),
            not_a_response.to_wire(max_size=65535),
        ]
        return [b"", b"\0", *others, response_to(query, genuine).to_wire()]

    return answer


def octets(rest: bytes) -> Behaviour:
    """Answer with the header and question of a response and then these octets as its one record."""

    def answer(query: dns.message.Message, transport: str) -> Sequence[bytes]:
        plain = dns.message.make_query(query.question[0].name, query.question[0].rdtype, id=query.id)
        message = bytearray(plain.to_wire())
        message[2] |= 0x80
        message[7] = 1
        return [bytes(message) + rest]

    return answer


@dataclass
class ScriptedServer(asyncio.DatagramProtocol):
    """`asked` lists the questions with their transport; while `held` is not set, nobody is answered."""

    table: Mapping[tuple[str, str], Behaviour]
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    queries: list[dns.message.Message] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    where: NameServer = field(default_factory=lambda: NameServer("127.0.0.1"))

    def __post_init__(self) -> None:
        self.open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.ensure_future(self._answer_udp(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_udp(self, data: bytes, addr: tuple[str, int]) -> None:
        for message in await self._answer(data, "udp"):
            self._transport.sendto(message, addr)

    async def answer_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            size = int.from_bytes(await reader.readexactly(2), "big")
            for message in await self._answer(await reader.readexactly(size), "tcp"):
                writer.write(len(message).to_bytes(2, "big") + message)
                await writer.drain()
        writer.close()

    async def _answer(self, data: bytes, transport: str) -> Sequence[bytes]:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, transport))
        self.queries.append(query)
        await self.open.wait()
        behaviour = self.table.get((name, kind), records(rcode=dns.rcode.NXDOMAIN, soa=60))
        return behaviour(query, transport)

    async def close(self) -> None:
        self._transport.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(table: Mapping[tuple[str, str], Behaviour]) -> AsyncIterator[ScriptedServer]:
    """Run a server for the table on a port of its own."""
    server = ScriptedServer(table)
    tcp, udp = _one_port()
    server.where = NameServer("127.0.0.1", tcp.getsockname()[1])
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, sock=udp)
    streams = await asyncio.start_server(server.answer_tcp, sock=tcp)
    try:
        yield server
    finally:
        streams.close()
        await streams.wait_closed()
        await server.close()


def _one_port() -> tuple[socket.socket, socket.socket]:
    """Bind TCP and UDP to the same free port."""
    while True:
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp.bind(("127.0.0.1", 0))
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
            continue
        return tcp, udp
