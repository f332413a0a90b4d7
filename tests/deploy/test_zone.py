"""The demonstration's name server, asked by dnspython's own client over real sockets."""

import asyncio
import contextlib
import socket

import dns.asyncquery
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.demo.zone import Trouble, Zone

LONG = "v=DKIM1; p=" + "A" * 700
TABLE = {
    "yours.example": {
        "MX": ["10 mx.yours.example", "20 mx2.yours.example."],
        "TXT": ["v=spf1 -all", LONG],
        "SOA": ["ns.yours.example. me.yours.example. 1 2 3 4 5"],
        "NS": ["ns.yours.example"],
    },
    "mx.yours.example": {"A": ["127.0.0.1"], "AAAA": ["::1"]},
    "www.yours.example": {"CNAME": ["mx.yours.example"]},
    "dangling.yours.example": {"CNAME": ["nothing.yours.example"]},
    "loop.yours.example": {"CNAME": ["loop.yours.example"]},
    "deep.empty.yours.example": {"A": ["127.0.0.9"]},
    "1.0.0.127.in-addr.arpa": {"PTR": ["mx.yours.example"]},
    "null.example": {"MX": ["0 ."]},
    "bücher.example": {"A": ["127.0.0.7"]},
}


def ask(zone: Zone, name: str, kind: str, *, tcp: bool = False, **options: int) -> dns.message.Message:
    wire = zone.answer(dns.message.make_query(name, kind, **options).to_wire(), tcp=tcp)  # type: ignore[arg-type]
    assert wire is not None
    return dns.message.from_wire(wire)


def texts(response: dns.message.Message) -> list[str]:
    return sorted(rdata.to_text().lower() for rrset in response.answer for rdata in rrset)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("yours.example", "MX", ["10 mx.yours.example.", "20 mx2.yours.example."]),
        ("YOURS.example", "NS", ["ns.yours.example."]),
        ("mx.yours.example", "A", ["127.0.0.1"]),
        ("mx.yours.example", "AAAA", ["::1"]),
        ("www.yours.example", "A", ["127.0.0.1", "mx.yours.example."]),
        ("www.yours.example", "CNAME", ["mx.yours.example."]),
        ("1.0.0.127.in-addr.arpa", "PTR", ["mx.yours.example."]),
        ("null.example", "MX", ["0 ."]),
        ("xn--bcher-kva.example", "A", ["127.0.0.7"]),
        ("mx.yours.example", "ANY", ["127.0.0.1", "::1"]),
    ],
)
def test_what_is_in_the_table_is_answered(name: str, kind: str, expected: list[str]) -> None:
    response = ask(Zone(TABLE), name, kind)
    assert texts(response) == expected
    assert response.rcode() == dns.rcode.NOERROR
    assert response.flags & dns.flags.AA


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "soa"),
    [
        ("no.such.example", "A", dns.rcode.NXDOMAIN, "."),
        ("other.yours.example", "A", dns.rcode.NXDOMAIN, "yours.example."),
        ("mx.yours.example", "TXT", dns.rcode.NOERROR, "yours.example."),
        ("empty.yours.example", "A", dns.rcode.NOERROR, "yours.example."),
        ("dangling.yours.example", "A", dns.rcode.NXDOMAIN, "yours.example."),
        ("loop.yours.example", "A", dns.rcode.NOERROR, "yours.example."),
    ],
)
def test_what_is_not_there_is_told_apart_and_carries_a_soa(name: str, kind: str, rcode: int, soa: str) -> None:
    response = ask(Zone(TABLE), name, kind)
    assert response.rcode() == rcode
    assert [(str(rrset.name), rrset.rdtype) for rrset in response.authority] == [(soa, dns.rdatatype.SOA)]
    assert not [rrset for rrset in response.answer if rrset.rdtype != dns.rdatatype.CNAME]


def test_long_text_is_cut_into_strings_that_join_to_the_same() -> None:
    response = ask(Zone(TABLE), "yours.example", "TXT", tcp=True)
    assert {b"".join(rdata.strings) for rdata in response.answer[0]} == {b"v=spf1 -all", LONG.encode()}


def test_an_answer_too_long_for_udp_is_truncated_unless_edns_makes_room() -> None:
    zone = Zone(TABLE)
    assert ask(zone, "yours.example", "TXT").flags & dns.flags.TC
    roomy = ask(zone, "yours.example", "TXT", use_edns=0, payload=4096)
    assert not roomy.flags & dns.flags.TC
    assert roomy.edns == 0


def test_names_can_be_made_to_misbehave() -> None:
    zone = Zone(TABLE, {"silent.example": Trouble.SILENT, "yours.example": Trouble.SERVFAIL})
    assert zone.answer(dns.message.make_query("silent.example", "A").to_wire()) is None
    assert ask(zone, "yours.example", "MX").rcode() == dns.rcode.SERVFAIL
    zone.replace(TABLE)
    assert ask(zone, "yours.example", "MX").rcode() == dns.rcode.NOERROR
    assert zone.asked == [("silent.example.", "A"), ("yours.example.", "MX"), ("yours.example.", "MX")]


@pytest.mark.parametrize(
    "table", [{"a.example": {"A": ["not an address"]}}, {"a.example": {"MX": ["mx"]}}, {"a" * 64: {"A": ["127.0.0.1"]}}]
)
def test_malformed_data_is_an_error_and_the_old_table_stays(table: dict[str, dict[str, list[str]]]) -> None:
    zone = Zone(TABLE)
    with pytest.raises(ValueError, match=r"example|not a name"):
        zone.replace(table)
    assert texts(ask(zone, "mx.yours.example", "A")) == ["127.0.0.1"]


@given(st.binary(max_size=600))
def test_garbage_is_ignored_or_answered_but_never_raises(octets: bytes) -> None:
    assert isinstance(Zone(TABLE).answer(octets), bytes | None)


@given(st.data())
def test_a_damaged_query_never_raises(data: st.DataObject) -> None:
    wire = bytearray(dns.message.make_query("www.yours.example", "MX", use_edns=0).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(Zone(TABLE).answer(bytes(wire)), bytes | None)


def test_responses_are_not_answered() -> None:
    query = dns.message.make_query("yours.example", "MX")
    assert Zone(TABLE).answer(dns.message.make_response(query).to_wire()) is None


async def test_udp_and_tcp_share_a_port_and_survive_garbage() -> None:
    async with Zone(TABLE).serve("127.0.0.1") as (host, port):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"\x00garbage", (host, port))
        query = dns.message.make_query("yours.example", "MX")
        by_udp = await dns.asyncquery.udp(query, host, port=port, timeout=5)
        by_tcp = await dns.asyncquery.tcp(query, host, port=port, timeout=5)
        assert texts(by_udp) == texts(by_tcp) == ["10 mx.yours.example.", "20 mx2.yours.example."]


async def test_tcp_takes_queries_octet_by_octet_and_several_at_once() -> None:
    wire = dns.message.make_query("mx.yours.example", "A").to_wire()
    framed = len(wire).to_bytes(2) + wire
    async with Zone(TABLE).serve() as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        for octet in framed:
            writer.write(bytes([octet]))
            await writer.drain()
        writer.write(framed + framed)
        for _ in range(3):
            size = int.from_bytes(await reader.readexactly(2))
            assert texts(dns.message.from_wire(await reader.readexactly(size))) == ["127.0.0.1"]
        writer.close()
        await writer.wait_closed()


async def test_an_open_connection_does_not_hold_up_the_end() -> None:
    async with asyncio.timeout(10):
        async with Zone(TABLE).serve() as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"\x00")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


def test_it_serves_from_a_thread() -> None:
    with Zone(TABLE).in_thread("127.0.0.1") as (host, port):
        response = dns.query.udp(dns.message.make_query("mx.yours.example", "A"), host, port=port, timeout=5)
        assert texts(response) == ["127.0.0.1"]
        with pytest.raises(OSError, match="in use"), Zone(TABLE).in_thread(host, port):
            raise AssertionError
