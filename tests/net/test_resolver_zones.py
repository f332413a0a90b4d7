"""The resolver's questions about names themselves: what a CNAME says, and where a zone begins."""

import contextlib
from collections.abc import AsyncIterator

from forwarder.net.resolver import DnsResolver
from forwarder.ports import DnsStatus
from tests.fakes import FakeClock
from tests.net.nameserver import Behaviour, failure, records, serving


@contextlib.asynccontextmanager
async def lab(table: dict[tuple[str, str], Behaviour]) -> AsyncIterator[DnsResolver]:
    async with serving(table) as server:
        resolver = DnsResolver([server.where], FakeClock())
        yield resolver
        await resolver.close()


async def test_a_cname_is_told_and_not_followed() -> None:
    table = {("a.example", "CNAME"): records("a.example 300 CNAME B.Example.")}
    async with lab(table) as resolver:
        answer = await resolver.cname("a.example")
        assert (answer.status, answer.records) == (DnsStatus.FOUND, ("b.example",))
        assert (await resolver.cname("b.example")).status in (DnsStatus.NXDOMAIN, DnsStatus.NODATA)


async def test_where_a_zone_begins() -> None:
    soa = "example 300 SOA NS.example. hostmaster.example. 1 3600 600 86400 60"
    table = {("example", "SOA"): records(soa), ("broken.example", "SOA"): failure(2)}
    async with lab(table) as resolver:
        answer = await resolver.soa("example")
        assert (answer.status, answer.records) == (DnsStatus.FOUND, ("ns.example",))
        assert (await resolver.soa("broken.example")).status is DnsStatus.FAILED
