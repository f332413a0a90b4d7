"""A small authoritative name server for demonstrations and tests: UDP and TCP, one table of data.

    table = {"yours.example": {"MX": ["10 mx.yours.example"]}, "mx.yours.example": {"A": ["127.0.0.1"]}}
    async with Zone(table).serve("127.0.0.1") as (host, port): ...
    with Zone(table).in_thread("127.0.0.1") as (host, port): ...      # for code without an event loop

Data are in the presentation format of zone files, except TXT, which is given as plain text of any length. Every name
is within the server's authority: what is not in the table is NXDOMAIN, or NODATA where a longer name or another type
exists. CNAMEs are followed inside the table. Answers carry the AA bit, negative ones the SOA of the closest name that
has one (or one of our own making). What cannot be read as a query gets no answer at all.

Can fail: `ValueError` for data that is not of its type, `OSError` when the address is taken.

Left out on purpose: wildcards, zone cuts, DNSSEC, transfers, and any care for load: it serves loopback.
"""

import asyncio
import itertools
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import Enum
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.txtbase
import dns.rrset

Table = Mapping[str, Mapping[str, Sequence[str]]]

_TTL = 60  # seconds; short, because tables are changed while their readers run
_PAYLOAD = 1232  # octets of a UDP answer to whom EDNS lets us send more than 512 (RFC 6891 6.2.5)
_PLAIN_PAYLOAD = 512  # RFC 1035 4.2.1
_MAX_MESSAGE = 65_535  # RFC 1035 4.2.2: the two octets of length
_MAX_CHAIN = 10  # CNAMEs followed
_TXT_PIECE = 255  # RFC 1035 3.3: a character-string
_TRIES = 20  # for a port that is free for UDP as well as for TCP


class Trouble(Enum):
    """How a name can misbehave."""

    SILENT = "no answer at all"
    SERVFAIL = "answers SERVFAIL"
    REFUSED = "answers REFUSED"


class Zone:
    """A table of data, served. `asked` lists the questions in order, as ("name.", "TYPE")."""

    def __init__(self, table: Table, trouble: Mapping[str, Trouble] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._sets: dict[dns.name.Name, dict[dns.rdatatype.RdataType, dns.rrset.RRset]] = {}
        self._exists: set[dns.name.Name] = set()
        self._trouble: dict[dns.name.Name, Trouble] = {}
        self.replace(table, trouble)

    def replace(self, table: Table, trouble: Mapping[str, Trouble] | None = None) -> None:
        """Serve another table from now on; raise `ValueError` and keep the old one where data is malformed."""
        sets = {_name(owner): _read(_name(owner), types) for owner, types in table.items()}
        self._trouble = {_name(name): kind for name, kind in (trouble or {}).items()}
        self._exists = {ancestor for owner in sets for ancestor in _ancestors(owner)}
        self._sets = sets

    def answer(self, wire: bytes, *, tcp: bool = False) -> bytes | None:
        """Give the response to one message, or None where there is to be none."""
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            return None
        if query.flags & dns.flags.QR:
            return None
        response = dns.message.make_response(query, our_payload=_PAYLOAD)
        if not self._fill(query, response):
            return None
        limit = _MAX_MESSAGE if tcp else min(_PAYLOAD, max(query.payload, _PLAIN_PAYLOAD))
        return _to_wire(response, limit)

    def _fill(self, query: dns.message.Message, response: dns.message.Message) -> bool:
        """Fill in the response; say whether it is to be sent."""
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            unknown = query.opcode() != dns.opcode.QUERY
            response.set_rcode(dns.rcode.NOTIMP if unknown else dns.rcode.FORMERR)
            return True
        question = query.question[0]
        self.asked.append((question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)))
        trouble = self._trouble.get(question.name)
        if question.rdclass != dns.rdataclass.IN:
            trouble = Trouble.REFUSED
        if trouble is not None:
            response.set_rcode(dns.rcode.SERVFAIL if trouble is Trouble.SERVFAIL else dns.rcode.REFUSED)
            return trouble is not Trouble.SILENT
        self._resolve(question.name, question.rdtype, response)
        return True

    def _resolve(self, name: dns.name.Name, kind: dns.rdatatype.RdataType, response: dns.message.Message) -> None:
        response.flags |= dns.flags.AA
        for _ in range(_MAX_CHAIN):
            here = self._sets.get(name, {})
            if kind == dns.rdatatype.ANY and here:
                response.answer.extend(here.values())
                return
            if found := here.get(kind):
                response.answer.append(found)
                return
            alias = here.get(dns.rdatatype.CNAME)
            if alias is None:
                break
            response.answer.append(alias)
            name = alias[0].target
        if name not in self._exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(self._soa(name))  # RFC 2308 3: so that the nothing can be kept for a while

    def _soa(self, name: dns.name.Name) -> dns.rrset.RRset:
        for ancestor in _ancestors(name):
            if found := self._sets.get(ancestor, {}).get(dns.rdatatype.SOA):
                return found
        return _default_soa()

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[str, int]]:
        """Serve on an address, UDP and TCP on the same port (0: a free one); give (host, port)."""
        tcp, udp = _bind(host, port)
        loop = asyncio.get_running_loop()
        connections: set[asyncio.Transport] = set()
        server = await loop.create_server(lambda: _Stream(self, connections), sock=tcp)
        datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
        try:
            yield host, tcp.getsockname()[1]
        finally:
            datagrams.close()
            server.close()
            for connection in list(connections):
                connection.abort()
            await asyncio.sleep(0)  # the loop tells closed transports in its next turn
            await server.wait_closed()

    @contextmanager
    def in_thread(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
        """Serve from a thread with a loop of its own; give (host, port)."""
        ready = threading.Event()
        where: list[tuple[str, int]] = []
        failed: list[OSError] = []
        loop = asyncio.new_event_loop()
        end = asyncio.Event()

        async def main() -> None:
            async with self.serve(host, port) as bound:
                where.append(bound)
                ready.set()
                await end.wait()

        def run() -> None:
            try:
                loop.run_until_complete(main())
            except OSError as error:
                failed.append(error)
            finally:
                loop.close()
                ready.set()

        thread = threading.Thread(target=run, name="zone", daemon=True)
        thread.start()
        ready.wait()
        if failed:
            thread.join()
            raise failed[0]
        try:
            yield where[0]
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()


class _Datagrams(asyncio.DatagramProtocol):
    """One message each way per datagram (RFC 1035 4.2.1)."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # not a subclass of it before Python 3.12

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if (response := self._zone.answer(data)) is not None:
            self._transport.sendto(response, addr)


class _Stream(asyncio.Protocol):
    """Messages with their length in front (RFC 1035 4.2.2), any number in one connection."""

    def __init__(self, zone: Zone, connections: set[asyncio.Transport]) -> None:
        self._zone = zone
        self._connections = connections
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2 + (size := int.from_bytes(self._buffer[:2])) and len(self._buffer) >= 2:
            wire, self._buffer = self._buffer[2 : 2 + size], self._buffer[2 + size :]
            if (response := self._zone.answer(wire, tcp=True)) is not None:
                self._transport.write(len(response).to_bytes(2) + response)


def _name(text: str) -> dns.name.Name:
    try:
        return dns.name.from_text(text)
    except dns.exception.DNSException as error:
        raise ValueError(f"{text!r} is not a name: {error}") from error


def _ancestors(name: dns.name.Name) -> Iterator[dns.name.Name]:
    """Give the name itself, then each name above it up to the root."""
    while True:
        yield name
        if name == dns.name.root:
            return
        name = name.parent()


def _read(owner: dns.name.Name, types: Mapping[str, Sequence[str]]) -> dict[dns.rdatatype.RdataType, dns.rrset.RRset]:
    sets = {}
    for kind_text, data in types.items():
        if not data:
            continue
        kind = dns.rdatatype.from_text(kind_text)
        sets[kind] = dns.rrset.from_rdata_list(owner, _TTL, [_rdata(owner, kind, text) for text in data])
    return sets


def _rdata(owner: dns.name.Name, kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
    if kind == dns.rdatatype.TXT:
        octets = text.encode()
        pieces = [octets[start : start + _TXT_PIECE] for start in range(0, max(len(octets), 1), _TXT_PIECE)]
        return dns.rdtypes.txtbase.TXTBase(dns.rdataclass.IN, kind, pieces)
    try:
        return dns.rdata.from_text(dns.rdataclass.IN, kind, text, origin=dns.name.root, relativize=False)
    except dns.exception.DNSException as error:
        raise ValueError(f"{owner} {dns.rdatatype.to_text(kind)} {text!r}: {error}") from error


def _default_soa() -> dns.rrset.RRset:
    return dns.rrset.from_text(
        dns.name.root, _TTL, "IN", "SOA", f"zone.invalid. nobody.invalid. 1 3600 600 86400 {_TTL}"
    )


def _to_wire(response: dns.message.Message, limit: int) -> bytes:
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:  # RFC 2181 9: set TC and let the client come back by TCP
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def _bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Give a TCP and a UDP socket on the same port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in itertools.count(1):
        tcp = socket.socket(family, socket.SOCK_STREAM)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            udp.bind((host, tcp.getsockname()[1]))
        except OSError:
            tcp.close()
            udp.close()
            if port or attempt == _TRIES:
                raise
        else:
            return tcp, udp
    raise AssertionError
