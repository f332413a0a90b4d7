"""Forward-confirmed reverse DNS, status by status."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.iprev import MAX_NAMES, IprevStatus, check
from tests.auth.answers import RandomResolver, answers
from tests.fakes import FakeResolver

PTR4 = ("1.2.0.192.in-addr.arpa", "PTR")
PTR6 = ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR")


@pytest.mark.parametrize("ip", ["192.0.2.1", "::ffff:192.0.2.1"])
async def test_a_name_that_leads_back(ip: str) -> None:
    resolver = FakeResolver({PTR4: ["mx.example"], ("mx.example", "A"): ["192.0.2.9", "192.0.2.1"]})
    result = await check(resolver, ip)
    assert (result.status, result.name, result.reason) == (IprevStatus.PASS, "mx.example", "")


async def test_ipv6_in_another_spelling() -> None:
    resolver = FakeResolver({PTR6: ["mx.example"], ("mx.example", "AAAA"): ["2001:DB8:0::1"]})
    assert (await check(resolver, "2001:db8::1")).status is IprevStatus.PASS


async def test_a_later_name_may_lead_back() -> None:
    zone = {PTR4: ["a.example", "b.example"], ("a.example", "A"): ["192.0.2.9"], ("b.example", "A"): ["192.0.2.1"]}
    assert (await check(FakeResolver(zone), "192.0.2.1")).name == "b.example"


@pytest.mark.parametrize("other", [[], ["192.0.2.9"], ["rubbish"]])
async def test_names_that_lead_elsewhere(other: list[str]) -> None:
    result = await check(FakeResolver({PTR4: ["mx.example"], ("mx.example", "A"): other}), "192.0.2.1")
    assert (result.status, result.name) == (IprevStatus.FAIL, "")
    assert result.reason


async def test_no_name_at_all() -> None:
    result = await check(FakeResolver(), "192.0.2.1")
    assert result.status is IprevStatus.PERMERROR
    assert result.reason


@pytest.mark.parametrize("silent", [PTR4[0], "mx.example"])
async def test_dns_does_not_answer(silent: str) -> None:
    zone = {PTR4: ["mx.example", "a.example"], ("mx.example", "A"): ["192.0.2.1"], ("a.example", "A"): ["192.0.2.9"]}
    result = await check(FakeResolver(zone, frozenset({silent})), "192.0.2.1")
    assert (result.status, result.name) == (IprevStatus.TEMPERROR, "")
    assert result.reason


async def test_what_is_confirmed_counts_although_another_name_is_silent() -> None:
    zone = {PTR4: ["a.example", "mx.example"], ("mx.example", "A"): ["192.0.2.1"]}
    assert (await check(FakeResolver(zone, frozenset({"a.example"})), "192.0.2.1")).status is IprevStatus.PASS


async def test_only_so_many_names_are_tried() -> None:
    names = [f"n{number}.example" for number in range(100)]
    resolver = FakeResolver({PTR4: names, (names[3], "A"): ["192.0.2.1"]})
    assert (await check(resolver, "192.0.2.1")).status is IprevStatus.FAIL
    assert len(resolver.asked) == 4


async def test_a_client_without_an_address() -> None:
    resolver = FakeResolver()
    assert (await check(resolver, "unknown")).status is IprevStatus.NONE
    assert not resolver.asked


@given(st.data(), st.one_of(st.ip_addresses().map(str), st.text(max_size=40)))
async def test_whatever_dns_says(data: st.DataObject, ip: str) -> None:
    resolver = RandomResolver(lambda name, kind: data.draw(answers(kind)))
    result = await check(resolver, ip)
    assert len(resolver.asked) <= 1 + MAX_NAMES
    assert bool(result.name) <= (result.status is IprevStatus.PASS)
    assert (result.reason == "") == (result.status is IprevStatus.PASS)
