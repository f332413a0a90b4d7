"""The check: initial processing, every status, limits, both identities, and what holds whatever DNS says."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth.spf.lookups import MAX_OCTETS, MAX_QUESTIONS
from forwarder.auth.spf.macros import MAX_EXPLANATION
from forwarder.auth.spf.verify import SpfResult, SpfStatus, check, check_host
from forwarder.model.address import Address
from tests.auth.answers import RandomResolver, answers
from tests.fakes import FakeResolver

IP = "192.0.2.1"
SENDER = Address("alice", "example.com")
WRONG = (("wrong.example", "TXT"), ["v=spf1 oops"])
Zone = Mapping[tuple[str, str], list[str]]


def policy(record: str, *others: tuple[tuple[str, str], list[str]]) -> dict[tuple[str, str], list[str]]:
    return {("example.com", "TXT"): [record], **dict(others)}


async def ask(zone: Zone | FakeResolver, ip: str = IP, domain: str = "example.com", **more: Any) -> SpfResult:
    resolver = zone if isinstance(zone, FakeResolver) else FakeResolver(zone)
    sender = more.pop("sender", f"alice@{domain}")
    return await check_host(resolver, ip, domain, sender, more.pop("helo", "mx.example.com"), **more)


@pytest.mark.parametrize(
    ("record", "status", "mechanism"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", SpfStatus.PASS, "ip4:192.0.2.0/24"),
        ("v=spf1 -ip4:192.0.2.0/24 +all", SpfStatus.FAIL, "ip4:192.0.2.0/24"),
        ("v=spf1 ~all", SpfStatus.SOFTFAIL, "all"),
        ("v=spf1 ?all", SpfStatus.NEUTRAL, "all"),
        ("v=spf1", SpfStatus.NEUTRAL, "default"),
        ("v=spf2", SpfStatus.NONE, ""),
        ("v=spf1 oops", SpfStatus.PERMERROR, ""),
        ("v=spf1 include:other.example -all", SpfStatus.PERMERROR, "include:other.example"),
        ("v=spf1 redirect=other.example", SpfStatus.PERMERROR, "redirect"),
        ("v=spf1 a:silent.example -all", SpfStatus.TEMPERROR, "a:silent.example"),
        ("v=spf1 mx:silent.example -all", SpfStatus.TEMPERROR, "mx:silent.example"),
        ("v=spf1 exists:silent.example -all", SpfStatus.TEMPERROR, "exists:silent.example"),
        ("v=spf1 include:silent.example -all", SpfStatus.TEMPERROR, "include:silent.example"),
        ("v=spf1 redirect=silent.example", SpfStatus.TEMPERROR, "redirect"),
        ("v=spf1 redirect=wrong.example", SpfStatus.PERMERROR, "redirect"),
    ],
)
async def test_each_status_names_the_term_that_decided(record: str, status: SpfStatus, mechanism: str) -> None:
    result = await ask(FakeResolver(policy(record, WRONG), frozenset({"silent.example"})))
    assert (result.status, result.domain, result.mechanism) == (status, "example.com", mechanism)
    assert bool(result.reason) is (status is not SpfStatus.PASS)


async def test_no_such_domain_and_no_answer() -> None:
    assert (await ask({})).status is SpfStatus.NONE
    assert (await ask(FakeResolver({}, frozenset({"example.com"})))).status is SpfStatus.TEMPERROR


@pytest.mark.parametrize(
    "domain",
    [
        *(
            "",
            ".",
            "localhost",
            "localhost.",
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
            "192.0.2.1",
            "a..example",
            ".example",
        ),
        *(
            "x" * 64 + ".example",
            "x." * 127 + "xx",
            "a b.example",
            "a\r\n.example",
            "\0.example",
            "ü" * 64 + ".example",
        ),
        "xn--\u2028.example",
    ],
)
async def test_an_identity_that_is_no_domain_is_none_without_a_question(domain: str) -> None:
    resolver = FakeResolver()
    result = await ask(resolver, domain=domain)
    assert (result.status, result.domain, result.mechanism) == (SpfStatus.NONE, "", "")
    assert result.reason
    assert not resolver.asked


@pytest.mark.parametrize("ip", ["", "unknown", "192.0.2", "/run/socket"])
async def test_a_client_without_an_address_is_none(ip: str) -> None:
    assert (await ask(policy("v=spf1 +all"), ip=ip)).status is SpfStatus.NONE


@pytest.mark.parametrize("domain", ["EXAMPLE.com", "example.com."])
async def test_domains_in_another_spelling(domain: str) -> None:
    assert (
        await ask(policy("v=spf1 a:%{d} -all", (("example.com", "A"), [IP])), domain=domain)
    ).domain == "example.com"


async def test_an_internationalised_domain_is_asked_for_in_a_labels() -> None:
    zone = {("xn--bcher-kva.example", "TXT"): ["v=spf1 exists:%{o}.%{d}.x.example -all"]}
    zone["xn--bcher-kva.example.xn--bcher-kva.example.x.example", "A"] = ["127.0.0.2"]
    result = await ask(zone, domain="bücher.example")
    assert (result.status, result.domain) == (SpfStatus.PASS, "xn--bcher-kva.example")


@pytest.mark.parametrize("term", ["exists:%{l}.x.example", "exists:%{L}.x.example", "a:%{s}", "include:%{l}.x.example"])
async def test_a_term_with_a_local_part_that_is_not_ascii_matches_nothing(term: str) -> None:
    """RFC 8616 4: whatever DNS may hold there, and without an error."""
    resolver = FakeResolver(policy(f"v=spf1 {term} -all"))
    result = await ask(resolver, sender="älice@example.com")
    assert result.status is SpfStatus.FAIL
    assert resolver.asked == [("example.com", "TXT")]


async def test_a_redirect_to_a_local_part_that_is_not_ascii_leads_nowhere() -> None:
    assert (await ask(policy("v=spf1 redirect=%{l}.x.example"), sender="älice@a.b")).status is SpfStatus.PERMERROR


@pytest.mark.parametrize("sender", ["@example.com", "example.com", ""])
async def test_no_local_part_means_postmaster(sender: str) -> None:
    zone = policy("v=spf1 exists:%{l}.x.example -all", (("postmaster.x.example", "A"), ["127.0.0.2"]))
    assert (await ask(zone, sender=sender)).status is SpfStatus.PASS


@pytest.mark.parametrize("ip", ["::ffff:192.0.2.1", "::FFFF:C000:201"])
async def test_a_mapped_address_is_an_ipv4_address(ip: str) -> None:
    assert (await ask(policy("v=spf1 -ip6:::/0 ip4:192.0.2.1 -all"), ip=ip)).mechanism == "ip4:192.0.2.1"


@pytest.mark.parametrize(
    ("ip", "status"), [("2001:db8:7::1", SpfStatus.PASS), ("2001:db9::1", SpfStatus.FAIL), (IP, SpfStatus.FAIL)]
)
async def test_ip6_networks(ip: str, status: SpfStatus) -> None:
    assert (await ask(policy("v=spf1 ip6:2001:db8::/32 -all"), ip=ip)).status is status


async def test_more_than_one_record_is_an_error() -> None:
    zone = {("example.com", "TXT"): ["v=spf1 +all", "note", "V=SPF1 -all"]}
    assert (await ask(zone)).status is SpfStatus.PERMERROR


async def test_ptr_counts_confirmed_names_only_and_survives_dns() -> None:
    reverse = (("1.2.0.192.in-addr.arpa", "PTR"), ["forged.example.com", "silent.example.com", "MX.example.com."])
    zone = policy("v=spf1 ptr -all", reverse, (("mx.example.com", "A"), [IP]))
    assert (await ask(FakeResolver(zone, frozenset({"silent.example.com"})))).mechanism == "ptr"
    assert (await ask(policy("v=spf1 ptr -all", reverse))).status is SpfStatus.FAIL
    mute = FakeResolver(policy("v=spf1 ptr -all"), frozenset({"1.2.0.192.in-addr.arpa"}))
    assert (await ask(mute)).status is SpfStatus.FAIL


async def test_ptr_wants_whole_labels() -> None:
    zone = policy("v=spf1 ptr -all", (("1.2.0.192.in-addr.arpa", "PTR"), ["badexample.com"]))
    zone["badexample.com", "A"] = [IP]
    assert (await ask(zone)).status is SpfStatus.FAIL


@pytest.mark.parametrize("term", ["redirect=b.example", "include:b.example"])
async def test_the_domain_is_that_of_the_record_and_the_sender_stays(term: str) -> None:
    zone = policy(f"v=spf1 {term}", (("b.example", "TXT"), ["v=spf1 exists:%{d}.%{o}.x.example -all"]))
    zone["b.example.example.com.x.example", "A"] = ["127.0.0.2"]
    result = await ask(zone)
    assert (result.status, result.domain) == (SpfStatus.PASS, "example.com")


async def test_what_a_stranger_wrote_is_shown_in_printable_ascii_only() -> None:
    result = await ask(policy("v=spf1 include:%{h} -all"), helo="a\r\nb.example")
    assert result.status is SpfStatus.PERMERROR
    assert "a??b.example" in result.reason


async def test_a_long_term_is_cut() -> None:
    result = await ask(policy(f"v=spf1 include:{'x' * 20_000}.example"))
    assert result.mechanism == "include:" + "x" * 117 + "..."


# --- Limits: 11 terms, 3 in vain, 11 MX, loops, macros over 255 octets. None of them is an exception.


@pytest.mark.parametrize("term", ["a:x.example", "mx:x.example", "ptr:x.example", "include:x.example"])
async def test_ten_terms_may_ask(term: str) -> None:
    zone = {
        ("x.example", "TXT"): ["v=spf1 -all"],
        ("x.example", "A"): ["192.0.2.9"],
        ("x.example", "MX"): ["1 x.example"],
    }
    zone["1.2.0.192.in-addr.arpa", "PTR"] = ["elsewhere.example"]
    at_limit = await ask(zone | policy("v=spf1 " + f"{term} " * 10 + "ip4:192.0.2.1 -all"))
    beyond = await ask(zone | policy("v=spf1 " + f"{term} " * 11 + "ip4:192.0.2.1 -all"))
    assert at_limit.status is SpfStatus.PASS
    assert (beyond.status, beyond.mechanism) == (SpfStatus.PERMERROR, term)


@pytest.mark.parametrize("term", ["exists:y.example", "redirect=y.example"])
async def test_exists_and_redirect_are_of_the_ten(term: str) -> None:
    zone = {("y.example", "TXT"): ["v=spf1 +all"], ("y.example", "A"): ["127.0.0.2"], ("x.example", "A"): ["192.0.2.9"]}
    assert (await ask(zone | policy("v=spf1 " + "a:x.example " * 9 + term))).status is SpfStatus.PASS
    assert (await ask(zone | policy("v=spf1 " + "a:x.example " * 10 + term))).status is SpfStatus.PERMERROR


@pytest.mark.parametrize("record", ["v=spf1 all " + "a " * 11, "v=spf1 " + "ip4:192.0.2.9 " * 99 + "all"])
async def test_only_terms_that_ask_are_counted(record: str) -> None:
    assert (await ask(policy(record))).status is SpfStatus.PASS


async def test_the_look_up_behind_p_is_one_of_the_ten_but_only_once() -> None:
    zone = {("x.example", "A"): ["192.0.2.9"], ("mx.example.com.x.example", "A"): ["192.0.2.9"]}
    zone |= {("1.2.0.192.in-addr.arpa", "PTR"): ["mx.example.com"], ("mx.example.com", "A"): [IP]}
    for others, status in ((7, SpfStatus.PASS), (8, SpfStatus.PERMERROR)):
        record = "v=spf1 " + "a:x.example " * others + "a:%{p}.x.example " * 2 + "ip4:192.0.2.1 -all"
        assert (await ask(zone | policy(record))).status is status


@pytest.mark.parametrize(("count", "status"), [(2, SpfStatus.PASS), (3, SpfStatus.PERMERROR)])
@pytest.mark.parametrize("kind", ["a", "mx", "exists"])
async def test_two_terms_may_ask_in_vain(kind: str, count: int, status: SpfStatus) -> None:
    terms = " ".join(f"{kind}:void{number}.example" for number in range(count))
    assert (await ask(policy(f"v=spf1 {terms} ip4:192.0.2.1 -all"))).status is status


async def test_a_term_is_in_vain_once_however_many_hosts_have_no_address() -> None:
    """A domain with three IPv4 mail exchangers is not wrong because an IPv6 client asks."""
    zone = policy("v=spf1 mx ip6:2001:db8::1 -all")
    zone["example.com", "MX"] = [f"{number} mx{number}.example.com" for number in range(5)]
    zone |= {(f"mx{number}.example.com", "A"): ["192.0.2.9"] for number in range(5)}
    assert (await ask(zone, ip="2001:db8::1")).status is SpfStatus.PASS


@pytest.mark.parametrize(("count", "status"), [(10, SpfStatus.PASS), (11, SpfStatus.PERMERROR)])
async def test_ten_mail_exchangers(count: int, status: SpfStatus) -> None:
    zone = policy("v=spf1 mx -all", (("example.com", "MX"), [f"{n} mx{n}.example.com" for n in range(count)]))
    zone |= {(f"mx{number}.example.com", "A"): [IP if number == 9 else "192.0.2.9"] for number in range(count)}
    assert (await ask(zone)).status is status


@pytest.mark.parametrize(("count", "status"), [(10, SpfStatus.PASS), (11, SpfStatus.FAIL)])
async def test_the_first_ten_reverse_names(count: int, status: SpfStatus) -> None:
    names = [f"n{number}.example.com" for number in range(count)]
    zone = policy("v=spf1 ptr -all", (("1.2.0.192.in-addr.arpa", "PTR"), names), ((names[-1], "A"), [IP]))
    assert (await ask(zone)).status is status


@pytest.mark.parametrize(
    "zone",
    [
        policy("v=spf1 include:example.com -all"),
        policy("v=spf1 redirect=example.com"),
        policy("v=spf1 include:b.example", (("b.example", "TXT"), ["v=spf1 redirect=example.com"])),
    ],
)
async def test_loops(zone: Zone) -> None:
    resolver = FakeResolver(zone)
    assert (await ask(resolver)).status is SpfStatus.PERMERROR
    assert len(resolver.asked) == 11


@pytest.mark.parametrize("local", ["x" * 256, "x." * 200 + "x", "x" * 64, "a..b", ".", "x" * 100_000])
async def test_macros_over_255_octets(local: str) -> None:
    """The name is cut to 253, and what DNS still cannot hold matches nothing."""
    zone = policy("v=spf1 exists:%{l}.%{l}.x.example -all")
    result = await ask(zone, sender=f"{local}@example.com")
    assert result.status is SpfStatus.FAIL


async def test_a_cut_name_is_asked_for() -> None:
    zone = policy("v=spf1 exists:%{l}.example -all", ((".".join(["abc"] * 61) + ".example", "A"), ["127.0.0.2"]))
    assert (await ask(zone, sender=".".join(["abc"] * 80) + "@example.com")).status is SpfStatus.PASS


async def test_records_of_any_length_are_not_read() -> None:
    zone = policy("v=spf1 " + "all " * (MAX_OCTETS // 4))
    assert (await ask(zone)).status is SpfStatus.PERMERROR
    assert (await ask(policy("v=spf1 " + "all " * (MAX_OCTETS // 4 - 2)))).status is SpfStatus.PASS


# --- The explanation: only when asked for, never trusted.

EXPLAINED = "v=spf1 -all exp=why.example.com"


async def test_nobody_asks_for_the_explanation_unasked() -> None:
    resolver = FakeResolver(policy(EXPLAINED, (("why.example.com", "TXT"), ["no"])))
    assert (await ask(resolver)).explanation == ""
    assert resolver.asked == [("example.com", "TXT")]


@pytest.mark.parametrize(
    ("texts", "explanation"),
    [
        (["%{i} may not send for %{d} via %{r} at %{t}"], "192.0.2.1 may not send for example.com via here at 7"),
        (["one", "two"], ""),
        ([], ""),
        (["50% off"], ""),
        (["bücher"], ""),
        (["line\r\n250 ok"], ""),
        (["x" * 4096], "x" * MAX_EXPLANATION),
        (["x" * 4097], ""),
        ([""], ""),
    ],
)
async def test_explanations(texts: list[str], explanation: str) -> None:
    zone = policy(EXPLAINED, (("why.example.com", "TXT"), texts))
    result = await ask(zone, explain=True, receiver="here", now=7)
    assert (result.status, result.explanation) == (SpfStatus.FAIL, explanation)


@pytest.mark.parametrize("record", ["v=spf1 ~all exp=why.example.com", "v=spf1 exp=why.example.com +all"])
async def test_only_a_fail_is_explained(record: str) -> None:
    resolver = FakeResolver(policy(record, (("why.example.com", "TXT"), ["no"])))
    assert (await ask(resolver, explain=True)).explanation == ""
    assert ("why.example.com", "TXT") not in resolver.asked


async def test_the_explanation_is_not_counted() -> None:
    record = "v=spf1 a:v1.example a:v2.example a:x.example -all exp=%{p}.why.example"
    zone = policy(record, (("unknown.why.example", "TXT"), ["no"]), (("x.example", "A"), ["192.0.2.9"]))
    assert (await ask(zone, explain=True)).explanation == "no"


async def test_an_explanation_that_does_not_come_changes_nothing() -> None:
    resolver = FakeResolver(policy(EXPLAINED), frozenset({"why.example.com"}))
    assert (await ask(resolver, explain=True)).status is SpfStatus.FAIL


# --- Both identities.

BOTH = {
    ("example.com", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    ("mx.example.net", "TXT"): ["v=spf1 exists:%{l}.%{o}.x.example -all"],
    ("postmaster.mx.example.net.x.example", "A"): ["127.0.0.2"],
}


async def test_both_identities() -> None:
    both = await check(FakeResolver(BOTH), IP, "mx.example.net", SENDER, receiver="here", now=0)
    assert (both.mail_from.domain, both.mail_from.status) == ("example.com", SpfStatus.PASS)
    assert (both.helo.domain, both.helo.status) == ("mx.example.net", SpfStatus.PASS)
    assert both.authenticated_domain == "example.com"


async def test_the_null_sender_is_the_helo_identity() -> None:
    resolver = FakeResolver(BOTH)
    both = await check(resolver, IP, "mx.example.net", None, receiver="here", now=0)
    assert both.mail_from == both.helo
    assert both.authenticated_domain == "mx.example.net"
    assert resolver.asked.count(("mx.example.net", "TXT")) == 1


async def test_helo_does_not_authenticate_somebody_elses_sender() -> None:
    both = await check(FakeResolver(BOTH), IP, "mx.example.net", Address("a", "b.example"), receiver="", now=0)
    assert (both.helo.status, both.mail_from.status) == (SpfStatus.PASS, SpfStatus.NONE)
    assert both.authenticated_domain == ""


@pytest.mark.parametrize("helo", ["[192.0.2.1]", "localhost", "", "JUMPIN' JUPITER", "\r\n", "ü"])
async def test_a_helo_that_is_no_name(helo: str) -> None:
    both = await check(FakeResolver(BOTH), IP, helo, SENDER, receiver="here", now=0)
    assert (both.helo.status, both.mail_from.status) == (SpfStatus.NONE, SpfStatus.PASS)


async def test_a_sender_at_an_address_literal() -> None:
    both = await check(FakeResolver(), IP, "mx.example.net", Address("a", "[192.0.2.1]"), receiver="here", now=0)
    assert both.mail_from.status is SpfStatus.NONE


# --- Whatever DNS says.

PIECES = [
    "a",
    "mx",
    "ptr",
    "all",
    "-all",
    "include:",
    "exists:",
    "a:",
    "mx:",
    "redirect=",
    "exp=",
    "%{p}",
    "%{l}.",
    "%{h}",
]
PIECES += [
    "a.example",
    "b.a.example",
    "%{ir}.%{v}.arpa.example",
    "/24",
    "//64",
    " ",
    " ",
    " ",
    "ip4:192.0.2.1",
    "é",
    "\r\n",
]
texts = st.lists(st.sampled_from(PIECES), max_size=25).map(lambda some: ("v=spf1 " + "".join(some)).encode())
terms = st.sampled_from(
    ["a", "mx", "ptr", "include:a.example", "a:%{p}.example", "exists:%{d}", "redirect=b.a.example"]
)
records = st.one_of(
    texts, st.lists(terms, max_size=14).map(lambda some: f"v=spf1 {' '.join(some)} exp=%{{p}}.x".encode())
)
hosts = st.one_of(
    st.sampled_from(["example.com", "a.example", "[192.0.2.1]", "x", "bücher.example"]), st.text(max_size=30)
)


@settings(max_examples=200)
@given(st.data(), st.sampled_from([IP, "2001:db8::1", "::ffff:192.0.2.1"]), hosts, st.text(max_size=80), hosts)
async def test_any_record_and_any_answer_end_in_bounded_work(
    data: st.DataObject, ip: str, domain: str, sender: str, helo: str
) -> None:
    resolver = RandomResolver(lambda name, kind: data.draw(answers(kind, records)))
    result = await check_host(resolver, ip, domain, sender, helo, explain=True)
    assert len(resolver.asked) <= MAX_QUESTIONS
    assert bool(result.reason) is (result.status is not SpfStatus.PASS)
    for text in (result.domain, result.mechanism, result.reason, result.explanation):
        assert text.isascii()
        assert not text or text.isprintable()
        assert len(text) <= MAX_EXPLANATION


async def test_the_bound_on_questions_is_reached_at_most() -> None:
    """The worst that a record can do: ten terms with ten names each, and the client's ten names."""
    zone = policy("v=spf1 " + " ".join(f"mx:m{number}.example" for number in range(9)) + " a:%{p}.%{l}.example -all")
    zone |= {(f"m{n}.example", "MX"): [f"1 h{n}x{k}.example" for k in range(10)] for n in range(9)}
    zone |= {(f"h{n}x{k}.example", "A"): ["192.0.2.9"] for n in range(9) for k in range(10)}
    zone["1.2.0.192.in-addr.arpa", "PTR"] = [f"r{k}.example" for k in range(10)]
    resolver = FakeResolver(zone)
    await ask(resolver, explain=True)
    assert 100 <= len(resolver.asked) <= MAX_QUESTIONS
