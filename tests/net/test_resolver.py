"""The resolver against a real, scripted name server on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.net.dns_exchange import NameServer
from forwarder.net.resolver import DnsResolver, system_nameservers
from forwarder.ports import Answer, DnsStatus, Mx
from tests.fakes import FakeClock
from tests.net.nameserver import (
    Behaviour,
    ScriptedServer,
    failure,
    octets,
    records,
    serving,
    silence,
    spoofed,
    truncated,
)

A = "a.example 300 A 192.0.2.1"


@contextlib.asynccontextmanager
async def lab(
    table: dict[tuple[str, str], Behaviour], *, timeout: float = 5.0, cache_entries: int = 4096
) -> AsyncIterator[tuple[ScriptedServer, DnsResolver, FakeClock]]:
    clock = FakeClock()
    async with serving(table) as server:
        resolver = DnsResolver([server.where], clock, timeout=timeout, cache_entries=cache_entries)
        yield server, resolver, clock
        await resolver.close()


async def test_each_kind_of_record() -> None:
    table = {
        ("a.example", "MX"): records("a.example 300 MX 10 MX1.A.Example.", "a.example 300 MX 20 mx2.a.example."),
        ("a.example", "A"): records(A, "a.example 300 A 192.0.2.2"),
        ("a.example", "AAAA"): records("a.example 300 AAAA 2001:db8:0:0::1"),
        ("a.example", "TXT"): records('a.example 300 TXT "v=spf1 " "-all"', ad=True),
        ("1.2.0.192.in-addr.arpa", "PTR"): records("1.2.0.192.in-addr.arpa 300 PTR A.example."),
    }
    async with lab(table) as (_, resolver, _):
        mx = await resolver.mx("a.example")
        assert set(mx.records) == {Mx(10, "mx1.a.example"), Mx(20, "mx2.a.example")}
        assert (mx.status, mx.secure, mx.ttl) == (DnsStatus.FOUND, False, 300)
        assert set((await resolver.addresses("a.example", ipv6=False)).records) == {"192.0.2.1", "192.0.2.2"}
        assert (await resolver.addresses("a.example", ipv6=True)).records == ("2001:db8::1",)
        txt = await resolver.txt("a.example")
        assert (txt.records, txt.secure) == ((b"v=spf1 -all",), True)
        assert (await resolver.ptr("192.0.2.1")).records == ("a.example",)


async def test_the_question_recurses_with_edns_and_asks_for_ad() -> None:
    async with lab({("a.example", "A"): records(A)}) as (server, resolver, _):
        await resolver.addresses("A.example.", ipv6=False)
    (query,) = server.queries
    assert query.flags & dns.flags.RD and query.flags & dns.flags.AD
    assert (query.edns, query.payload) == (0, 1232)


async def test_no_such_name_is_not_no_such_record() -> None:
    async with lab({("a.example", "MX"): records(soa=60)}) as (_, resolver, _):
        assert (await resolver.mx("a.example")).status is DnsStatus.NODATA
        assert (await resolver.mx("b.example")).status is DnsStatus.NXDOMAIN


async def test_null_mx() -> None:
    async with lab({("a.example", "MX"): records("a.example 300 MX 0 .")}) as (_, resolver, _):
        assert (await resolver.mx("a.example")).records == (Mx(0, ""),)


async def failed(behaviour: Behaviour, timeout: float = 5.0) -> str:
    """Give the reason of a failure."""
    async with lab({("a.example", "A"): behaviour}, timeout=timeout) as (_, resolver, _):
        answer = await resolver.addresses("a.example", ipv6=False)
    assert (answer.status, answer.records) == (DnsStatus.FAILED, ())
    return answer.reason


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR])
async def test_refusals_of_the_server_are_temporary(code: dns.rcode.Rcode) -> None:
    assert (await failed(failure(code))).endswith(f"answered {dns.rcode.to_text(code)}")


async def test_silence_is_temporary() -> None:
    assert "did not answer" in await failed(silence, timeout=0.2)


async def test_nobody_there_is_told_without_waiting() -> None:
    async with serving({}) as gone:
        pass
    resolver = DnsResolver([gone.where], FakeClock(), timeout=600)
    answer = await resolver.mx("a.example")
    assert answer.status is DnsStatus.FAILED and "cannot be reached" in answer.reason


POINTER_TO_ITSELF = b"\xc0\x1b\0\1\0\1\0\0\0\1\0\4\1\2\3\4"  # the record begins at octet 27


@pytest.mark.parametrize(
    "rest",
    [POINTER_TO_ITSELF, b"", b"\xc0\x0c\0\1\0\1\0\0\0\1\0\3\1\2\3", b"\xc0\x0c\0\1\0\1\0\0\0\1\xff\xff", b"\xff" * 40],
    ids=["compression loop", "missing", "short address", "endless", "rubbish"],
)
async def test_malformed_answers_are_temporary(rest: bytes) -> None:
    assert "malformed" in await failed(octets(rest))


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_whatever_octets_come_back_nothing_is_raised(rest: bytes) -> None:
    async def ask() -> Answer[Mx]:
        async with lab({("a.example", "MX"): octets(rest)}, timeout=0.05) as (_, resolver, _):
            return await resolver.mx("a.example")

    answer = asyncio.run(ask())
    assert answer.status is not DnsStatus.FAILED or answer.reason


async def test_forged_answers_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    table = {("a.example", "A"): spoofed("a.example 300 A 203.0.113.66", A)}
    async with lab(table) as (_, resolver, _):
        assert (await resolver.addresses("a.example", ipv6=False)).records == ("192.0.2.1",)
    assert not caplog.records  # the event loop did not have to catch anything either


@pytest.mark.parametrize("cut", [None, 60, 20])
async def test_long_answers_come_by_tcp(cut: int | None) -> None:
    lines = [f"a.example 300 A 192.0.2.{number}" for number in range(90)]
    async with lab({("a.example", "A"): truncated(*lines, cut=cut)}) as (server, resolver, _):
        assert len((await resolver.addresses("a.example", ipv6=False)).records) == 90
    assert [transport for _, _, transport in server.asked] == ["udp", "tcp"]


def empty_by_tcp(behaviour: Behaviour) -> Behaviour:
    return lambda query, transport: behaviour(query, transport) if transport == "udp" else []


def other_by_tcp(behaviour: Behaviour) -> Behaviour:
    def answer(query: dns.message.Message, transport: str) -> Sequence[bytes]:
        messages = behaviour(query, transport)
        return messages if transport == "udp" else [b"\0\0" + messages[0][2:]]

    return answer


@pytest.mark.parametrize("spoil", [empty_by_tcp, other_by_tcp])
async def test_tcp_that_fails_is_temporary(spoil: Callable[[Behaviour], Behaviour]) -> None:
    assert await failed(spoil(truncated(A)))


async def test_a_server_that_has_never_heard_of_edns_is_asked_plainly() -> None:
    def old(query: dns.message.Message, transport: str) -> Sequence[bytes]:
        return (failure(dns.rcode.FORMERR) if query.edns >= 0 else records(A))(query, transport)

    async with lab({("a.example", "A"): old}) as (_, resolver, _):
        assert (await resolver.addresses("a.example", ipv6=False)).records == ("192.0.2.1",)


CHAIN = ("a.example 300 CNAME b.example.", "b.example 60 CNAME c.example.")


async def test_a_chain_of_cnames_is_followed_within_the_answer() -> None:
    async with lab({("a.example", "A"): records(*CHAIN, "c.example 900 A 192.0.2.3", ad=True)}) as (_, resolver, _):
        answer = await resolver.addresses("a.example", ipv6=False)
    assert (answer.records, answer.ttl, answer.secure) == (("192.0.2.3",), 60, True)


async def test_and_asked_further_where_the_server_did_not() -> None:
    table = {
        ("a.example", "A"): records(*CHAIN),
        ("c.example", "A"): records("c.example 900 A 192.0.2.3", ad=True),
        ("d.example", "A"): records("d.example 300 CNAME gone.example."),
        ("e.example", "A"): records("e.example 300 CNAME c.example.", soa=60),
    }
    async with lab(table) as (server, resolver, _):
        answer = await resolver.addresses("a.example", ipv6=False)
        assert (answer.records, answer.secure) == (("192.0.2.3",), False)  # AD is for the last step alone
        assert (await resolver.addresses("d.example", ipv6=False)).status is DnsStatus.NXDOMAIN
        assert (await resolver.addresses("e.example", ipv6=False)).status is DnsStatus.NODATA
    assert [name for name, _, _ in server.asked] == ["a.example", "c.example", "d.example", "gone.example", "e.example"]


async def test_loops_of_cnames_are_temporary_and_bounded() -> None:
    loop = records("a.example 300 CNAME b.example.", "b.example 300 CNAME a.example.")
    assert "makes no sense" in await failed(loop)
    table = {("a.example", "A"): records(CHAIN[0]), ("b.example", "A"): records("b.example 300 CNAME a.example.")}
    async with lab(table) as (server, resolver, _):
        answer = await resolver.addresses("a.example", ipv6=False)
    assert answer.status is DnsStatus.FAILED and "loop" in answer.reason
    assert len(server.asked) == 8


async def test_records_that_hold_no_host_name_are_dropped() -> None:
    hosts = [
        r"bad\032host.example.",
        r"a\.b.example.",
        r"a\010b.example.",
        "-a.example.",
        r"\255.example.",
        "ok.example.",
    ]
    lines = [f"a.example 300 MX 10 {host}" for host in hosts]
    table = {
        ("a.example", "MX"): records(*lines),
        ("b.example", "MX"): records(f"b.example 300 MX 10 {hosts[0]}"),
        ("1.2.0.192.in-addr.arpa", "PTR"): records(f"1.2.0.192.in-addr.arpa 300 PTR {hosts[2]}"),
    }
    async with lab(table) as (_, resolver, _):
        # A host name or not, it is asked for its addresses: SPF wants that, and it has none.
        assert set((await resolver.mx("a.example")).records) == {Mx(10, "-a.example"), Mx(10, "ok.example")}
        unusable = await resolver.mx("b.example")
        assert unusable.status is DnsStatus.FAILED and unusable.reason  # NODATA would send the mail to the A record
        assert (await resolver.ptr("192.0.2.1")).status is DnsStatus.NODATA


@pytest.mark.parametrize("name", ["", ".", "a..example", "x" * 64 + ".example", "a." * 128 + "example", "ä.example"])
async def test_a_name_that_dns_cannot_hold_does_not_exist(name: str) -> None:
    async with lab({}) as (server, resolver, _):
        answer = await resolver.txt(name)
        assert answer.status is DnsStatus.NXDOMAIN and answer.reason
        assert (await resolver.ptr(name)).status is DnsStatus.NXDOMAIN
    assert not server.asked


async def test_labels_are_asked_as_they_are() -> None:
    odd = {(r"a+b\\c\(._spf.example", "A"): records(r"a+b\\c\(._spf.example 300 A 127.0.0.2")}
    async with lab(odd) as (_, resolver, _):
        assert (await resolver.addresses(r"a+b\c(._spf.example", ipv6=False)).records == ("127.0.0.2",)


@pytest.mark.parametrize(
    ("behaviour", "lasts"),
    [
        (records("a.example 300 A 192.0.2.1"), 300),
        (records("a.example 0 A 192.0.2.1"), 5),
        (records("a.example 999999 A 192.0.2.1"), 3600),
        (records(soa=60), 60),
        (records(soa=86400), 300),
        (records(), 5),
        (records(rcode=dns.rcode.NXDOMAIN, soa=30), 30),
        (failure(dns.rcode.SERVFAIL), 1),
    ],
)
async def test_how_long_an_answer_is_cached(behaviour: Behaviour, lasts: int) -> None:
    async with lab({("a.example", "A"): behaviour}) as (server, resolver, clock):
        first = await resolver.addresses("a.example", ipv6=False)
        clock.advance(lasts - 0.5)
        again = await resolver.addresses("A.EXAMPLE.", ipv6=False)
        assert (again.status, again.records, again.reason) == (first.status, first.records, first.reason)
        assert again.ttl == 0
        assert len(server.asked) == 1
        clock.advance(0.5)
        await resolver.addresses("a.example", ipv6=False)
        assert len(server.asked) == 2


async def test_the_time_that_is_left_is_told_in_whole_seconds() -> None:
    async with lab({("a.example", "A"): records("a.example 10 A 192.0.2.1")}) as (_, resolver, clock):
        told = []
        for _ in range(8):
            told.append((await resolver.addresses("a.example", ipv6=False)).ttl)
            clock.advance(0.75)
    assert told == [10, 9, 8, 7, 7, 6, 5, 4]


async def test_the_cache_keeps_what_was_used_last() -> None:
    table = {(f"{n}.example", "A"): records(f"{n}.example 300 A 192.0.2.1") for n in "abc"}
    async with lab(table, cache_entries=2) as (server, resolver, _):
        for name in "abacab":
            await resolver.addresses(f"{name}.example", ipv6=False)
    assert [name[0] for name, _, _ in server.asked] == ["a", "b", "c", "b"]


async def test_of_very_many_records_some_are_enough() -> None:
    lines = [f"a.example 300 A 192.0.2.{number}" for number in range(150)]
    async with lab({("a.example", "A"): truncated(*lines)}) as (_, resolver, _):
        assert len((await resolver.addresses("a.example", ipv6=False)).records) == 100


async def test_huge_answers_are_not_cached() -> None:
    lines = [f'a.example 300 TXT "{number:03}' + "x" * 200 + '"' for number in range(50)]
    async with lab({("a.example", "TXT"): truncated(*lines)}) as (server, resolver, _):
        for _ in range(2):
            assert len((await resolver.txt("a.example")).records) == 50
    assert len(server.asked) == 4


async def test_identical_questions_share_one_query_and_survive_each_other() -> None:
    async with lab({("a.example", "A"): records(A)}) as (server, resolver, _):
        server.open.clear()
        waiters = [asyncio.create_task(resolver.addresses("a.example", ipv6=False)) for _ in range(10)]
        while not server.asked:
            await asyncio.sleep(0)
        waiters[0].cancel()  # the one that began the query
        waiters[5].cancel()
        await asyncio.wait([waiters[0], waiters[5]])
        server.open.set()
        answers = await asyncio.gather(*waiters, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [n in (0, 5) for n in range(10)]
    assert all(answer.records == ("192.0.2.1",) for answer in answers if isinstance(answer, Answer))
    assert len(server.asked) == 1


async def test_closing_tells_who_waits() -> None:
    async with lab({("a.example", "A"): records(A)}) as (server, resolver, _):
        server.open.clear()
        waiter = asyncio.create_task(resolver.addresses("a.example", ipv6=False))
        while not server.asked:
            await asyncio.sleep(0)
        await resolver.close()
        assert (await waiter).status is DnsStatus.FAILED


async def test_the_next_name_server_is_asked_when_one_fails() -> None:
    async with (
        serving({("a.example", "A"): failure(dns.rcode.SERVFAIL)}) as broken,
        serving({("a.example", "A"): silence}) as mute,
        serving({("a.example", "A"): records(A)}) as good,
    ):
        resolver = DnsResolver([broken.where, mute.where, good.where], FakeClock(), timeout=0.6)
        assert (await resolver.addresses("a.example", ipv6=False)).records == ("192.0.2.1",)
    assert (len(broken.asked), len(mute.asked)) == (1, 1)


async def test_a_lost_datagram_is_sent_again() -> None:
    answers = iter([silence, records(A)])

    def lossy(query: dns.message.Message, transport: str) -> Sequence[bytes]:
        return next(answers)(query, transport)

    async with lab({("a.example", "A"): lossy}, timeout=1) as (
        server,
        resolver,
        _,
    ):
        assert (await resolver.addresses("a.example", ipv6=False)).records == ("192.0.2.1",)
    assert len(server.asked) == 2


async def test_many_questions_use_few_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.net.resolver._IN_FLIGHT", 16)
    table = {(f"{n}.example", "A"): records(f"{n}.example 300 A 192.0.2.1") for n in range(40)}
    async with lab(table, timeout=60) as (server, resolver, _):
        server.open.clear()
        waiting = asyncio.gather(*(resolver.addresses(f"{n}.example", ipv6=False) for n in range(40)))
        while len(server.asked) < 16:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(server.asked) == 16
        server.open.set()
        assert all(answer.status is DnsStatus.FOUND for answer in await waiting)


def test_it_works_under_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def ask() -> None:
        async with lab({("a.example", "A"): truncated(A), ("b.example", "A"): octets(b"")}) as (_, resolver, _):
            assert (await resolver.addresses("a.example", ipv6=False)).records == ("192.0.2.1",)
            assert (await resolver.addresses("b.example", ipv6=False)).status is DnsStatus.FAILED
        assert (await resolver.addresses("c.example", ipv6=False)).status is DnsStatus.FAILED  # nobody there any more

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        (
            "# x\nnameserver 192.0.2.1\nsearch example\nnameserver 2001:db8::1 # y\nnameserver junk\n",
            "192.0.2.1 2001:db8::1",
        ),
        ("", "127.0.0.1"),
        ("\n".join(f"nameserver 192.0.2.{n}" for n in range(9)), "192.0.2.0 192.0.2.1 192.0.2.2"),
    ],
)
def test_the_system_says_whom_to_ask(tmp_path: Path, text: str, servers: str) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    assert system_nameservers(path) == tuple(NameServer(address) for address in servers.split(" "))


def test_a_missing_resolv_conf_means_the_local_server(tmp_path: Path) -> None:
    assert system_nameservers(tmp_path / "none") == (NameServer("127.0.0.1"),)


def test_reading_resolv_conf_is_not_upset_by_rubbish(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"nameserver \xff\xff\nnameserver 192.0.2.1\n")
    assert system_nameservers(tmp_path / "r") == (NameServer("192.0.2.1"),)


@pytest.mark.bench
def test_cost_of_a_query_and_of_a_hit(benchmark) -> None:  # type: ignore[no-untyped-def] # a fixture
    async def run() -> None:
        async with lab({("a.example", "A"): records(A)}) as (_, resolver, clock):
            for _ in range(200):
                await resolver.addresses("a.example", ipv6=False)
                clock.advance(301)

    benchmark.pedantic(lambda: asyncio.run(run()), rounds=3)
