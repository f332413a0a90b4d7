"""DMARC results, as tables: who sent it, what is published, what came of it."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc.record import Policy
from forwarder.auth.dmarc.verify import DmarcResult, DmarcStatus, verify
from forwarder.auth.spf.verify import SpfCheck, SpfResult, SpfStatus
from forwarder.model.headers import split_header
from forwarder.ports import Answer, DnsStatus
from tests.auth.answers import RandomResolver, answers
from tests.fakes import FakeResolver

NONE, PASS, FAIL = DmarcStatus.NONE, DmarcStatus.PASS, DmarcStatus.FAIL
TEMPERROR, PERMERROR = DmarcStatus.TEMPERROR, DmarcStatus.PERMERROR
REJECT = "v=DMARC1; p=reject"


def spf(domain: str = "", status: SpfStatus = SpfStatus.PASS) -> SpfCheck:
    if not domain:
        status = SpfStatus.NONE
    result = SpfResult(status, domain, "", "" if status is SpfStatus.PASS else f"SPF is {status.value}")
    return SpfCheck(result, SpfResult(SpfStatus.NONE, "", "", "no HELO"))


def dkim(domain: str, status: DkimStatus = DkimStatus.PASS, **more: Any) -> DkimResult:
    return DkimResult(status, domain, reason="" if status is DkimStatus.PASS else f"DKIM is {status.value}", **more)


@dataclass
class Case:
    """One message: the author's domain, records at `_dmarc`, what passed, names that do not answer."""

    author: str
    records: dict[str, str]
    spf: SpfCheck = field(default_factory=spf)
    dkim: tuple[DkimResult, ...] = ()
    failing: frozenset[str] = frozenset()
    zone: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    async def result(self) -> DmarcResult:
        return await self.asked_of(self.resolver())

    def resolver(self) -> FakeResolver:
        records = {("_dmarc." + name, "TXT"): [text] for name, text in self.records.items()}
        return FakeResolver(records | self.zone, self.failing)

    async def asked_of(self, resolver: FakeResolver) -> DmarcResult:
        header = split_header(f"From: a@{self.author}\r\n\r\n".encode())
        return await verify(resolver, header, self.spf, self.dkim)


async def by_header(header: bytes, zone: dict[tuple[str, str], list[str]] | None = None) -> DmarcResult:
    signatures = (dkim("good.example"), dkim("evil.example"))
    return await verify(FakeResolver(zone or {}), split_header(header), spf("evil.example"), signatures)


ORG = {"example.com": REJECT}


@pytest.mark.parametrize(
    ("case", "status", "aligned"),
    [
        # one identifier, relaxed
        (Case("example.com", ORG, spf("example.com")), PASS, "spf both"),
        (Case("example.com", ORG, spf("mail.example.com")), PASS, "spf both"),
        (Case("news.example.com", ORG, spf("foo.example.com")), PASS, "spf both"),
        (Case("example.com", ORG, dkim=(dkim("example.com"),)), PASS, "dkim both"),
        (Case("example.com", ORG, dkim=(dkim("s.example.com"),)), PASS, "dkim both"),
        (Case("news.example.com", ORG, dkim=(dkim("example.com"),)), PASS, "dkim both"),
        (Case("example.com", ORG, spf("example.com"), (dkim("example.com"),)), PASS, "spf dkim both"),
        # neighbours and strangers
        (Case("example.com", ORG, spf("example.net")), FAIL, ""),
        (Case("news.example.com", ORG, spf("foo.example.net")), FAIL, ""),
        (Case("example.com", ORG, spf("notexample.com")), FAIL, ""),
        (Case("example.com", ORG, dkim=(dkim("other.com"), dkim("com"))), FAIL, ""),
        (Case("example.com", ORG), FAIL, ""),
        # strict
        (Case("example.com", {"example.com": REJECT + "; aspf=s"}, spf("mail.example.com")), FAIL, ""),
        (Case("example.com", {"example.com": REJECT + "; aspf=s"}, spf("example.com")), PASS, "spf both"),
        (Case("example.com", {"example.com": REJECT + "; adkim=s"}, spf("m.example.com")), PASS, "spf both"),
        (Case("example.com", {"example.com": REJECT + "; adkim=s"}, dkim=(dkim("s.example.com"),)), FAIL, ""),
        (Case("example.com", {"example.com": REJECT + "; adkim=s"}, dkim=(dkim("example.com"),)), PASS, "dkim both"),
        (Case("a.example.com", {"example.com": REJECT + "; adkim=s"}, dkim=(dkim("example.com"),)), FAIL, ""),
        # what is not authenticated
        (Case("example.com", ORG, spf("example.com", SpfStatus.FAIL)), FAIL, ""),
        (Case("example.com", ORG, spf("example.com", SpfStatus.SOFTFAIL)), FAIL, ""),
        (Case("example.com", ORG, spf("example.com", SpfStatus.NEUTRAL)), FAIL, ""),
        (Case("example.com", ORG, spf("example.com", SpfStatus.PERMERROR)), FAIL, ""),
        (Case("example.com", ORG, dkim=(dkim("example.com", DkimStatus.FAIL),)), FAIL, ""),
        (Case("example.com", ORG, dkim=(dkim("example.com", DkimStatus.POLICY),)), FAIL, ""),
        (Case("example.com", ORG, dkim=(dkim("example.com", DkimStatus.NEUTRAL),)), FAIL, ""),
        (Case("example.com", ORG, dkim=(dkim("example.com", DkimStatus.PERMERROR),)), FAIL, ""),
        (Case("example.com", ORG, dkim=(dkim("example.com", body_extended=True),)), FAIL, ""),
        # RFC 9989 4.4.1: a signature that validates is enough
        (Case("example.com", ORG, dkim=(dkim("example.com", testing=True),)), PASS, "dkim both"),
        # one is enough
        (
            Case("example.com", ORG, spf("bounce.example.net"), (dkim("esp.example.net"), dkim("example.com"))),
            PASS,
            "dkim both",
        ),
        (Case("example.com", ORG, spf("example.com"), (dkim("example.com", DkimStatus.FAIL),)), PASS, "spf both"),
        (
            Case("example.com", ORG, dkim=(dkim("example.com", body_extended=True), dkim("s.example.com"))),
            PASS,
            "dkim both",
        ),
        # RFC 9989 B.4.1, B.4.2
        (
            Case(
                "example.com", ORG | {"signing.example.com": REJECT}, spf("example.com"), (dkim("signing.example.com"),)
            ),
            PASS,
            "spf dkim both",
        ),
        (
            Case(
                "a.b.c.d.e.f.g.h.i.j.k.example.com",
                ORG | {"signing.example.com": REJECT},
                spf("example.com"),
                (dkim("signing.example.com"),),
            ),
            PASS,
            "spf dkim both",
        ),
        # RFC 9989 B.4.3: SPF is aligned, DKIM is not; by the list (which lacks bank.example) both would be
        (
            Case(
                "giant.bank.example",
                {"giant.bank.example": REJECT, "bank.example": "v=DMARC1; p=none; psd=y"},
                spf("mail.giant.bank.example"),
                (dkim("mail.mega.bank.example"),),
            ),
            PASS,
            "spf both",
        ),
        (
            Case(
                "giant.bank.example",
                {"giant.bank.example": REJECT, "bank.example": "v=DMARC1; p=none; psd=y"},
                dkim=(dkim("mail.mega.bank.example"),),
            ),
            FAIL,
            "",
        ),
        # RFC 9989 11.8: a parent that is an organisation of its own
        (
            Case("evil.example.com", ORG | {"mail.example.com": REJECT + "; psd=n"}, dkim=(dkim("mail.example.com"),)),
            FAIL,
            "",
        ),
        # aligned by the tree walk only: the list says that each of these is somebody else's
        (Case("a.github.io", {"github.io": REJECT}, dkim=(dkim("b.github.io"),)), PASS, "dkim"),
        (Case("a.github.io", {"github.io": REJECT}, spf("b.github.io"), (dkim("a.github.io"),)), PASS, "spf dkim both"),
        (Case("a.github.io", {"github.io": REJECT}, spf("a.github.io"), (dkim("b.github.io"),)), PASS, "spf dkim both"),
        # aligned by the list only
        (Case("mail.example.com", {"mail.example.com": REJECT + "; psd=n"}, dkim=(dkim("example.com"),)), FAIL, ""),
        # no policy, or none that can be used
        (Case("example.com", {}, spf("example.com")), NONE, ""),
        (Case("example.com", {"example.com": "v=DMARC1; p=rejct"}, spf("example.com")), NONE, ""),
        (Case("a.example.com", ORG | {"a.example.com": "v=DMARC1; p=rejct"}), NONE, ""),
        (Case("example.com", {"sub.example.com": REJECT}), NONE, ""),
        (Case("localhost", {}), NONE, ""),
    ],
)
async def test_status_and_alignment(case: Case, status: DmarcStatus, aligned: str) -> None:
    result = await case.result()
    flags = {"spf": result.aligned_spf, "dkim": result.aligned_dkim, "both": result.aligned_both}
    assert (result.status, [name for name, value in flags.items() if value]) == (status, aligned.split())
    assert result.from_domain == case.author
    assert bool(result.reason) == (status is not PASS)


A, MX = ("x.example.com", "A"), ("x.example.com", "MX")


@pytest.mark.parametrize(
    ("author", "records", "zone", "policy"),
    [
        ("example.com", {"example.com": "p=none"}, {}, Policy.NONE),
        ("example.com", {"example.com": "p=quarantine; sp=reject; np=reject"}, {}, Policy.QUARANTINE),
        ("example.com", {"example.com": "p=reject"}, {}, Policy.REJECT),
        ("x.example.com", {"example.com": "p=reject"}, {}, Policy.REJECT),
        ("x.example.com", {"example.com": "p=none; sp=reject"}, {}, Policy.REJECT),
        ("x.example.com", {"example.com": "p=reject; sp=none"}, {}, Policy.NONE),
        ("x.example.com", {"example.com": "p=none; sp=quarantine; np=reject"}, {}, Policy.REJECT),
        ("x.example.com", {"example.com": "p=none; np=reject"}, {}, Policy.REJECT),
        ("x.example.com", {"example.com": "p=none; sp=quarantine; np=reject"}, {A: ["192.0.2.1"]}, Policy.QUARANTINE),
        ("x.example.com", {"example.com": "p=none; sp=quarantine; np=reject"}, {MX: ["0 m"]}, Policy.QUARANTINE),
        ("x.example.com", {"example.com": "p=reject; np=none"}, {("x.example.com", "TXT"): ["x"]}, Policy.REJECT),
        ("x.example.com", {"example.com": "p=none; np=reject"}, {("y.x.example.com", "A"): ["192.0.2.1"]}, Policy.NONE),
        # its own record: sp and np are for what is below
        (
            "x.example.com",
            {"x.example.com": "p=none; sp=reject; np=reject", "example.com": "p=reject"},
            {},
            Policy.NONE,
        ),
        # a public suffix speaks for what is registered below it
        ("x.example.com", {"com": "p=none; sp=quarantine; np=reject; psd=y"}, {}, Policy.REJECT),
        ("x.example.com", {"com": "p=none; sp=quarantine; psd=y"}, {A: ["192.0.2.1"]}, Policy.QUARANTINE),
        ("example.com", {"com": "p=reject; psd=y", "example.com": "p=none"}, {}, Policy.NONE),
        # one level down while testing
        ("example.com", {"example.com": "p=reject; t=y"}, {}, Policy.QUARANTINE),
        ("example.com", {"example.com": "p=quarantine; t=y"}, {}, Policy.NONE),
        ("example.com", {"example.com": "p=none; t=y"}, {}, Policy.NONE),
        ("x.example.com", {"example.com": "p=none; np=reject; t=y"}, {}, Policy.QUARANTINE),
        ("x.example.com", {"example.com": "p=none; sp=reject; t=y"}, {A: ["192.0.2.1"]}, Policy.QUARANTINE),
        ("example.com", {"example.com": "p=reject; pct=0"}, {}, Policy.REJECT),
        ("example.com", {"example.com": "p=bad; rua=mailto:a@example.com"}, {}, Policy.NONE),
        ("x.example.com", {"example.com": "sp=reject; rua=mailto:a@example.com"}, {}, Policy.REJECT),
    ],
)
async def test_policy_to_apply(
    author: str, records: dict[str, str], zone: dict[tuple[str, str], list[str]], policy: Policy
) -> None:
    texts = {name: "v=DMARC1; " + text for name, text in records.items()}
    result = await Case(author, texts, zone=zone).result()
    assert (result.status, result.policy) == (FAIL, policy)


async def test_existence_is_asked_only_where_it_matters() -> None:
    for text, asks in [("p=none; np=reject", True), ("p=reject; np=reject", False), ("p=reject; sp=none", False)]:
        case = Case("x.example.com", {"example.com": "v=DMARC1; " + text})
        resolver = case.resolver()
        await case.asked_of(resolver)
        assert (("x.example.com", "A") in resolver.asked) == asks


class Denying(FakeResolver):
    """Denies a name that it has an MX for, as some name servers do."""

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        return Answer(DnsStatus.NXDOMAIN)


async def test_a_name_with_any_record_for_mail_exists() -> None:
    records = {("_dmarc.example.com", "TXT"): ["v=DMARC1; p=none; np=reject"], MX: ["0 mx.example.com"]}
    result = await Case("x.example.com", {}).asked_of(Denying(records))
    assert (result.status, result.policy) == (FAIL, Policy.NONE)


T, D = SpfStatus.TEMPERROR, DkimStatus.TEMPERROR
NP = {"example.com": "v=DMARC1; p=none; np=reject"}


@pytest.mark.parametrize(
    ("case", "status", "policy"),
    [
        # the policy is unknown
        (Case("example.com", ORG, failing=frozenset({"_dmarc.example.com"})), TEMPERROR, Policy.REJECT),
        (Case("a.example.com", ORG, failing=frozenset({"_dmarc.com"})), TEMPERROR, Policy.REJECT),
        (
            Case("a.example.com", ORG, spf("b.example.com"), failing=frozenset({"_dmarc.a.example.com"})),
            TEMPERROR,
            Policy.REJECT,
        ),
        # … and whatever it is, this message passes
        (Case("example.com", {}, spf("example.com"), failing=frozenset({"_dmarc.com"})), TEMPERROR, Policy.NONE),
        (
            Case("example.com", {}, dkim=(dkim("example.com"),), failing=frozenset({"_dmarc.example.com"})),
            TEMPERROR,
            Policy.NONE,
        ),
        (
            Case("example.com", {}, spf("example.com", T), failing=frozenset({"_dmarc.com"})),
            TEMPERROR,
            Policy.REJECT,
        ),
        # the author's own record is known, the organisation is not
        (Case("example.com", ORG, spf("example.com"), failing=frozenset({"_dmarc.com"})), PASS, Policy.REJECT),
        (Case("example.com", ORG, spf("a.example.com"), failing=frozenset({"_dmarc.com"})), TEMPERROR, Policy.REJECT),
        (Case("example.com", ORG, spf("a.example.net"), failing=frozenset({"_dmarc.com"})), FAIL, Policy.REJECT),
        (
            Case(
                "example.com", {"example.com": REJECT + "; aspf=s"}, spf("a.example.com"), (), frozenset({"_dmarc.com"})
            ),
            FAIL,
            Policy.REJECT,
        ),
        # the other's organisation is not known
        (
            Case("example.com", ORG, spf("a.example.com"), failing=frozenset({"_dmarc.a.example.com"})),
            TEMPERROR,
            Policy.REJECT,
        ),
        (
            Case("example.com", ORG, spf("a.example.com"), (dkim("example.com"),), frozenset({"_dmarc.a.example.com"})),
            PASS,
            Policy.REJECT,
        ),
        # SPF or DKIM is open
        (Case("example.com", ORG, spf("example.com", T)), TEMPERROR, Policy.REJECT),
        (Case("example.com", ORG, spf("a.example.com", T)), TEMPERROR, Policy.REJECT),
        (Case("example.com", ORG, spf("example.net", T)), FAIL, Policy.REJECT),
        (Case("example.com", ORG, dkim=(dkim("example.com", D),)), TEMPERROR, Policy.REJECT),
        (Case("example.com", ORG, dkim=(dkim("other.net", D),)), FAIL, Policy.REJECT),
        (Case("example.com", ORG, spf("example.com", T), (dkim("example.com"),)), PASS, Policy.REJECT),
        (Case("example.com", {"example.com": "v=DMARC1; p=none"}, spf("example.com", T)), TEMPERROR, Policy.NONE),
        (Case("example.com", {}, spf("example.com", T)), NONE, Policy.NONE),
        # whether the author exists
        (Case("x.example.com", NP, failing=frozenset({"x.example.com"})), TEMPERROR, Policy.REJECT),
        (Case("x.example.com", NP, spf("example.com"), failing=frozenset({"x.example.com"})), PASS, Policy.REJECT),
    ],
)
async def test_what_dns_leaves_open(case: Case, status: DmarcStatus, policy: Policy) -> None:
    result = await case.result()
    assert (result.status, result.policy) == (status, policy)
    assert bool(result.reason) == (status is not PASS)


NOBODY_NAMED = {"there is no From field", "the From field names no domain"}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "there is no From field"),
        (b"From: a@good.example\r\nFrom: a@evil.example\r\n", "there are several From fields"),
        (
            b"From: a@good.example, b@evil.example\r\n",
            "the From field names several domains: good.example, evil.example",
        ),
        (b"From: good.example:;\r\n", "the From field names no domain"),
        (b"From: <a@good.example\r\n", "the From field is malformed: its angle brackets do not match"),
    ],
)
async def test_without_one_author_nothing_passes(header: bytes, reason: str) -> None:
    zone = {
        ("_dmarc.evil.example", "TXT"): ["v=DMARC1; p=none"],
        ("_dmarc.good.example", "TXT"): ["v=DMARC1; p=reject"],
    }
    result = await by_header(header + b"\r\n", zone)
    policy = Policy.NONE if reason in NOBODY_NAMED else Policy.REJECT
    assert result == DmarcResult(PERMERROR, "", policy, reason=reason)


@pytest.mark.parametrize(
    ("good", "policy"), [("none", Policy.NONE), ("quarantine", Policy.QUARANTINE), ("reject", Policy.REJECT)]
)
@pytest.mark.parametrize("between", [b", ", b"\r\nFrom: "])
async def test_of_several_authors_the_strictest_policy_counts(between: bytes, good: str, policy: Policy) -> None:
    zone = {("_dmarc.good.example", "TXT"): [f"v=DMARC1; p={good}"]}
    result = await by_header(b"From: a@other.example" + between + b"b@good.example\r\n\r\n", zone)
    assert (result.status, result.policy) == (PERMERROR, policy)


async def test_several_authors_without_policies_ask_for_nothing() -> None:
    result = await by_header(b"From: a@good.example\r\nFrom: a@good.example\r\n\r\n", {})
    assert (result.status, result.policy) == (PERMERROR, Policy.NONE)


async def test_what_a_result_tells() -> None:
    result = await Case("x.example.com", {"example.com": REJECT + "; \x1b"}, spf("m.example.com")).result()
    assert result == DmarcResult(
        PASS,
        "x.example.com",
        Policy.REJECT,
        organisation="example.com",
        psl_organisation="example.com",
        aligned_both=True,
        aligned_spf=True,
        published="v=DMARC1; p=reject; ?",
        policy_domain="example.com",
    )


async def test_both_organisations_are_told() -> None:
    result = await Case("b.a.github.io", {"github.io": REJECT}).result()
    assert (result.organisation, result.psl_organisation) == ("github.io", "a.github.io")


async def test_reasons_are_short_and_printable() -> None:
    open_question = spf("example.com", SpfStatus.TEMPERROR)
    odd = SpfResult(SpfStatus.TEMPERROR, "example.com", "", "\r\n250 OK é\x1b" + "x" * 1000)
    result = await Case("example.com", ORG, SpfCheck(odd, open_question.helo)).result()
    assert result.reason.startswith("SPF: ??250 OK ??xxx") and len(result.reason) == 400
    many = tuple(dkim(f"s{n}.net") for n in range(9))
    assert "s2.net" in (reason := (await Case("example.com", ORG, dkim=many).result()).reason)
    assert "s3.net" not in reason


@pytest.mark.parametrize(
    ("spf_check", "signatures", "said"),
    [
        (spf(), (), "(SPF: none for no domain; DKIM: no signature)"),
        (spf("b.net", SpfStatus.FAIL), (dkim(""),), "(SPF: fail for b.net; DKIM: pass for no domain, not aligned)"),
        (
            spf("b.net"),
            (dkim("c.net"), dkim("example.com", DkimStatus.FAIL)),
            "(SPF: pass for b.net, not aligned; DKIM: pass for c.net, not aligned; fail for example.com)",
        ),
        (
            spf("b.net", SpfStatus.PERMERROR),
            (dkim("example.com", body_extended=True),),
            "(SPF: permerror for b.net; DKIM: the signature of example.com leaves out a part of the body)",
        ),
    ],
)
async def test_a_failure_names_what_failed(spf_check: SpfCheck, signatures: tuple[DkimResult, ...], said: str) -> None:
    result = await Case("example.com", ORG, spf_check, signatures).result()
    assert result.reason == f"nothing shows that example.com sent it {said}"


async def test_the_null_sender_is_its_helo_name() -> None:
    helo = SpfResult(SpfStatus.PASS, "mx.example.com", "a", "")
    result = await Case("example.com", ORG, SpfCheck(helo, helo)).result()
    assert (result.status, result.aligned_spf) == (PASS, True)


async def test_helo_alone_is_not_enough() -> None:
    check = SpfCheck(spf("bounce.net").mail_from, SpfResult(SpfStatus.PASS, "example.com", "a", ""))
    assert (await Case("example.com", ORG, check).result()).status is FAIL


async def test_strangers_cost_no_questions() -> None:
    signatures = tuple(dkim(f"a.b.c.d.e.s{n}.net") for n in range(10))
    case = Case("example.com", ORG, spf("a.notexample.com"), signatures)
    resolver = case.resolver()
    assert (await case.asked_of(resolver)).status is FAIL
    assert [name for name, _ in resolver.asked] == ["_dmarc.example.com", "_dmarc.com"]


DOMAINS = st.sampled_from(
    ["example.com", "a.example.com", "b.a.example.com", "com", "example.net", "a.b.c.d.e.f.g.h.com"]
)
TEXTS = st.sampled_from(
    [b"v=DMARC1; psd=y; p=reject", b"v=DMARC1; psd=n; p=none; np=reject", b"v=DMARC1; p=reject", b"v=DMARC1", b"x"]
)


@settings(deadline=None)  # the first alignment reads the public suffix list
@given(
    DOMAINS,
    st.builds(spf, DOMAINS, st.sampled_from(SpfStatus)),
    st.lists(st.builds(dkim, DOMAINS, st.sampled_from(DkimStatus), body_extended=st.booleans()), max_size=10),
    st.data(),
)
async def test_whatever_dns_answers(
    author: str, check: SpfCheck, signatures: list[DkimResult], data: st.DataObject
) -> None:
    def choose(name: str, kind: str) -> Answer[Any]:
        return data.draw(answers(kind, TEXTS))

    resolver = RandomResolver(choose)
    result = await verify(resolver, split_header(f"From: <x@{author}>\r\n\r\n".encode()), check, signatures)
    assert len(set(resolver.asked)) == len(resolver.asked) <= 8 * 12 + 3
    authenticated = {s.domain for s in signatures if s.status is DkimStatus.PASS and not s.body_extended}
    authenticated |= {check.mail_from.domain} if check.mail_from.status is SpfStatus.PASS else set()
    if result.status is PASS:
        assert result.aligned_spf or result.aligned_dkim
        assert any(domain.split(".")[-1] == author.rsplit(".", maxsplit=1)[-1] for domain in authenticated)
        assert result.reason == ""
    else:
        assert result.reason
        assert result.status is TEMPERROR or (not result.aligned_spf and not result.aligned_dkim)
    assert not result.aligned_both or result.aligned_spf or result.aligned_dkim
