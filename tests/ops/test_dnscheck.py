"""Live DNS against what is needed: all right as a whole, and each pitfall with its finding."""

import base64

import pytest

from forwarder.ops.dnscheck import Finding, Status, check
from forwarder.ops.records import DkimRecord, Site
from forwarder.ports import Answer, DnsStatus
from tests.fakes import FakeResolver, _reason

IPV4, IPV6 = "203.0.113.5", "2001:db8:5::5"
PTR6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
PUBLIC = bytes(range(200))
KEY = "v=DKIM1; k=rsa; p=" + base64.b64encode(PUBLIC).decode()
DKIM = DkimRecord("example.org", "s1._domainkey.example.org", KEY)
SITE = Site("mx1.example.org", "fwd.example.org", ("example.org",), (IPV4, IPV6), (DKIM,))
RIGHT = {
    ("example.org", "SOA"): ["ns.example.org."],
    ("example.org", "MX"): ["10 mx1.example.org."],
    ("s1._domainkey.example.org", "TXT"): [KEY],
    ("_dmarc.example.org", "TXT"): ["v=DMARC1; p=reject; aspf=s; rua=mailto:postmaster@example.org"],
    ("mx1.example.org", "A"): [IPV4],
    ("mx1.example.org", "AAAA"): [IPV6],
    ("mx1.example.org", "TXT"): ["v=spf1 a -all"],
    ("5.113.0.203.in-addr.arpa", "PTR"): ["mx1.example.org"],
    (PTR6, "PTR"): ["mx1.example.org"],
    ("fwd.example.org", "MX"): ["10 mx1.example.org."],
    ("_dmarc.fwd.example.org", "TXT"): ["v=DMARC1; p=reject"],
    ("fwd.example.org", "TXT"): [f"v=spf1 ip4:{IPV4} ip6:{IPV6} -all"],
}

Zone = dict[tuple[str, str], list[str]]


class Dns(FakeResolver):
    """The fake with the two questions that only these checks ask."""

    async def cname(self, name: str) -> Answer[str]:
        status, records = self._look(name, "CNAME")
        return Answer(status, tuple(records), _reason(status))

    async def soa(self, name: str) -> Answer[str]:
        status, records = self._look(name, "SOA")
        return Answer(status, tuple(record.rstrip(".") for record in records), _reason(status))


async def found(changes: Zone | None = None, site: Site = SITE, failing: str = "", **options: object) -> list[Finding]:
    """Give what is found in the right zone with these changes (no data: without these records)."""
    zone = {key: data for key, data in {**RIGHT, **(changes or {})}.items() if data}
    resolver = Dns(zone, failing=frozenset(failing.split()))
    return list(await check(resolver, site, **options))  # type: ignore[arg-type]


def wrong(findings: list[Finding]) -> list[tuple[Status, str, str]]:
    return [(each.status, each.name, each.kind) for each in findings if each.status is not Status.OK]


async def one(changes: Zone, **options: object) -> Finding:
    """Give the only finding that is not OK."""
    findings = [each for each in await found(changes, **options) if each.status is not Status.OK]  # type: ignore[arg-type]
    assert len(findings) == 1, findings
    assert findings[0].fix
    return findings[0]


async def test_all_is_right() -> None:
    findings = await found()
    assert wrong(findings) == []
    assert [(each.name, each.kind) for each in findings] == [
        ("example.org", "MX"),
        ("s1._domainkey.example.org", "TXT"),
        ("_dmarc.example.org", "TXT"),
        ("fwd.example.org", "MX"),
        ("fwd.example.org", "SOA"),
        ("fwd.example.org", "TXT"),
        ("_dmarc.fwd.example.org", "TXT"),
        ("mx1.example.org", "A"),
        ("mx1.example.org", "AAAA"),
        ("5.113.0.203.in-addr.arpa", "PTR"),
        (PTR6, "PTR"),
        ("mx1.example.org", "TXT"),
    ]
    assert not any(each.fix for each in findings)


async def test_nothing_is_there() -> None:
    findings = await found({key: [] for key in RIGHT})
    assert {each.status for each in findings} == {Status.MISSING}
    assert all(each.must_be_fixed and each.fix for each in findings)
    assert not any(each.there for each in findings)


async def test_only_some_domains() -> None:
    findings = await found({("fwd.example.org", "MX"): []}, only=("example.org",))
    assert {each.owner for each in findings} == {"example.org"}
    assert wrong(findings) == []


@pytest.mark.parametrize("name", sorted({name for name, _ in RIGHT} - {"example.org"}))
async def test_no_answer_is_no_finding_against_it(name: str) -> None:
    failing = "203.0.113.5" if name == "5.113.0.203.in-addr.arpa" else name
    findings = await found(failing=f"{name} {failing}")
    assert findings
    assert not any(each.must_be_fixed for each in findings)
    assert any(each.status is Status.UNANSWERED and "did not answer" in each.fix for each in findings)


async def test_a_domain_that_is_a_cname() -> None:
    changes: Zone = {
        ("fwd.example.org", "CNAME"): ["mx1.example.org"],
        ("mx1.example.org", "MX"): ["10 mx1.example.org."],
    }
    (mx,) = [each for each in await found(changes) if (each.name, each.kind) == ("fwd.example.org", "MX")]
    assert (mx.status, mx.there) == (Status.DIFFERENT, "CNAME mx1.example.org.")
    assert "RFC 1034" in mx.fix


async def test_mx_that_leads_to_a_cname() -> None:
    changes: Zone = {
        ("example.org", "MX"): ["10 mx1.example.org.", "20 mail.example.org."],
        ("mail.example.org", "CNAME"): ["mx1.example.org"],
    }
    finding = await one(changes)
    assert (finding.status, finding.there) == (Status.DIFFERENT, "mail.example.org.")
    assert "CNAME for mx1.example.org" in finding.fix
    changes[("example.org", "MX")] = ["20 mail.example.org."]
    finding = await one(changes)
    assert (finding.status, finding.there, finding.expected) == (
        Status.DIFFERENT,
        "20 mail.example.org.",
        "10 mx1.example.org.",
    )


async def test_host_that_is_a_cname() -> None:
    changes: Zone = {
        ("mx1.example.org", "CNAME"): ["vps.example.net"],
        **{("mx1.example.org", kind): [] for kind in ("A", "AAAA", "TXT")},
        ("vps.example.net", "A"): [IPV4],
        ("vps.example.net", "AAAA"): [IPV6],
        ("vps.example.net", "TXT"): ["v=spf1 a -all"],
    }
    finding = await one(changes)
    assert (finding.status, finding.kind, finding.there) == (Status.DIFFERENT, "CNAME", "vps.example.net.")


async def test_a_further_mx_elsewhere_is_a_warning() -> None:
    finding = await one(
        {
            ("example.org", "MX"): ["10 mx1.example.org.", "50 mx.other.example."],
            ("mx.other.example", "A"): ["198.51.100.9"],
        }
    )
    assert (finding.status, finding.there) == (Status.WARNING, "mx.other.example.")
    assert "198.51.100.9, not this host" in finding.fix


async def test_a_further_name_of_this_host_is_right() -> None:
    changes: Zone = {
        ("example.org", "MX"): ["10 mx1.example.org.", "20 mx2.example.org."],
        ("mx2.example.org", "A"): [IPV4],
    }
    assert wrong(await found(changes)) == []
    changes[("example.org", "MX")] = ["20 mx2.example.org."]
    assert (await one(changes)).status is Status.WARNING


async def test_a_further_mx_without_address() -> None:
    finding = await one({("example.org", "MX"): ["10 mx1.example.org.", "20 gone.example.org."]})
    assert finding.status is Status.DIFFERENT
    assert "no address" in finding.fix


async def test_mx_elsewhere() -> None:
    finding = await one(
        {("example.org", "MX"): ["10 aspmx.l.google.com."], ("aspmx.l.google.com", "A"): ["142.250.1.26"]}
    )
    assert (finding.status, finding.there, finding.expected) == (
        Status.DIFFERENT,
        "10 aspmx.l.google.com.",
        "10 mx1.example.org.",
    )
    assert "142.250.1.26, not this host" in finding.fix


async def test_null_mx() -> None:
    finding = await one({("example.org", "MX"): ["0 ."]})
    assert finding.status is Status.DIFFERENT
    assert "RFC 7505" in finding.fix


async def test_wildcard_mx() -> None:
    finding = await one({("*.example.org", "MX"): ["10 mx1.example.org."]})
    assert (finding.status, finding.name) == (Status.WARNING, "*.example.org")


@pytest.mark.parametrize(("address", "kind"), [("104.21.5.5", "A"), ("2606:4700::6810:1", "AAAA")])
async def test_proxied_host(address: str, kind: str) -> None:
    findings = await found({("mx1.example.org", kind): [address]})
    (finding,) = [each for each in findings if each.kind == kind]
    assert (finding.status, finding.there) == (Status.DIFFERENT, address)
    assert "Cloudflare" in finding.fix


async def test_host_with_an_address_of_another() -> None:
    finding = await one({("mx1.example.org", "A"): [IPV4, "198.51.100.9"]})
    assert finding.status is Status.DIFFERENT
    assert "remove 198.51.100.9: no address of this host" in finding.fix


async def test_host_without_one_of_its_addresses() -> None:
    site = Site("mx1.example.org", "fwd.example.org", ("example.org",), (IPV4, "203.0.113.6"), (DKIM,))
    findings = await found(
        {
            ("6.113.0.203.in-addr.arpa", "PTR"): ["mx1.example.org"],
            ("fwd.example.org", "TXT"): ["v=spf1 ip4:203.0.113.0/24 -all"],
            ("mx1.example.org", "TXT"): ["v=spf1 ip4:203.0.113.0/24 -all"],
        },
        site,
    )
    (finding,) = [each for each in findings if each.status is not Status.OK]
    assert (finding.status, finding.there, finding.expected) == (Status.DIFFERENT, IPV4, f"{IPV4}, 203.0.113.6")
    assert finding.fix == "add: mx1.example.org. A 203.0.113.6"


NAMELESS = Site("mx1.example.org", "fwd.example.org", ("example.org",), (), (DKIM,))


async def test_addresses_that_nobody_told_are_those_of_dns() -> None:
    assert wrong(await found(site=NAMELESS)) == []
    assert wrong(await found(site=NAMELESS, own=(IPV4, IPV6, "203.0.113.9"))) == []
    assert wrong(await found({("mx1.example.org", "AAAA"): []}, site=NAMELESS, own=(IPV4, IPV6))) == []
    finding = await one({}, site=NAMELESS, own=("203.0.113.9",))
    assert (finding.status, finding.kind, finding.there) == (Status.DIFFERENT, "A", IPV4)
    findings = await found({("mx1.example.org", "A"): [], ("mx1.example.org", "AAAA"): []}, site=NAMELESS, own=(IPV4,))
    assert f"add: mx1.example.org. A {IPV4}" in [each.fix for each in findings]


async def test_ptr_is_missing() -> None:
    finding = await one({("5.113.0.203.in-addr.arpa", "PTR"): []})
    assert (finding.status, finding.expected) == (Status.MISSING, "mx1.example.org.")
    assert f"ask the provider of {IPV4}" in finding.fix
    finding = await one({(PTR6, "PTR"): []})
    assert "remove the AAAA record" in finding.fix


async def test_ptr_of_another_name() -> None:
    finding = await one({("5.113.0.203.in-addr.arpa", "PTR"): ["vps5.provider.example"]})
    assert (finding.status, finding.there) == (Status.DIFFERENT, "vps5.provider.example.")
    assert "vps5.provider.example does not lead back to it either" in finding.fix
    finding = await one(
        {("5.113.0.203.in-addr.arpa", "PTR"): ["vps5.provider.example"], ("vps5.provider.example", "A"): [IPV4]}
    )
    assert "either" not in finding.fix


async def test_several_ptr() -> None:
    finding = await one({("5.113.0.203.in-addr.arpa", "PTR"): ["mx1.example.org", "vps5.provider.example"]})
    assert finding.status is Status.WARNING


async def test_srs_domain_without_mx_or_zone() -> None:
    finding = await one({("fwd.example.org", "MX"): []})
    assert (finding.status, finding.name, finding.kind) == (Status.MISSING, "fwd.example.org", "MX")
    finding = await one({("example.org", "SOA"): []})
    assert (finding.status, finding.name, finding.kind) == (Status.MISSING, "fwd.example.org", "SOA")
    finding = await one({("example.org", "SOA"): [], ("org", "SOA"): ["ns.org."]})  # of those who sell names
    assert (finding.status, finding.name, finding.kind) == (Status.MISSING, "fwd.example.org", "SOA")
    nothing: Zone = {(name, kind): [] for name, kind in RIGHT if "fwd.example.org" in name}
    assert wrong(await found(nothing)) == [
        (Status.MISSING, "fwd.example.org", "MX"),
        (Status.MISSING, "fwd.example.org", "SOA"),
        (Status.MISSING, "fwd.example.org", "TXT"),
    ]


SPF = ("fwd.example.org", "TXT")


@pytest.mark.parametrize(
    ("records", "status", "words"),
    [
        (["v=spf1 a -all", "v=spf1 mx -all"], Status.DIFFERENT, "make one SPF record of them"),
        (["v=spf1 +all"], Status.DIFFERENT, 'take "all" out: it lets everybody send'),
        (["v=spf1 ip4:0.0.0.0/0 -all"], Status.DIFFERENT, 'take "ip4:0.0.0.0/0" out'),
        (
            [f"v=spf1 {' '.join(f'exists:a{n}.example.org' for n in range(11))} -all"],
            Status.DIFFERENT,
            "counts as an error",
        ),
        ([f"v=spf1 {' '.join('a:mx1.example.org' for n in range(11))} -all"], Status.DIFFERENT, "more than 10 terms"),
        ([f"v=spf1 {' '.join('a:mx1.example.org' for n in range(10))} -all"], Status.OK, ""),
        (["v=spf1 include:fwd.example.org -all"], Status.DIFFERENT, "counts as an error"),
        (["v=spf1 ipv4:203.0.113.5 -all"], Status.DIFFERENT, "correct the SPF record"),
        (
            ["v=spf1 ip4:203.0.113.6 -all"],
            Status.DIFFERENT,
            f"add ip4:{IPV4} before its end: this host, {IPV4}, gets fail",
        ),
        ([f"v=spf1 ip4:{IPV4} ~all"], Status.DIFFERENT, f"add ip6:{IPV6}"),
        ([f"v=spf1 ip4:{IPV4} ip6:{IPV6}"], Status.WARNING, 'end the SPF record in "-all"'),
        ([f"v=spf1 ip4:{IPV4} ip6:{IPV6} ?all"], Status.WARNING, "rules out nobody"),
        (["v=spf1 a:mx1.example.org ~all", "some other text"], Status.OK, ""),
        (["some other text"], Status.MISSING, "add: fwd.example.org. TXT"),
    ],
)
async def test_spf(records: list[str], status: Status, words: str) -> None:
    findings = await found({SPF: records})
    (finding,) = [each for each in findings if (each.name, each.kind) == SPF]
    assert (finding.status, words in finding.fix) == (status, True), finding


async def test_spf_that_leads_to_no_answer() -> None:
    findings = await found({SPF: ["v=spf1 include:_spf.example.net -all"]}, failing="_spf.example.net")
    assert wrong(findings) == [(Status.UNANSWERED, *SPF)]
    site = Site("mx1.example.org", "fwd.example.org", ("example.org",), (IPV4,), (DKIM,))
    changes: Zone = {SPF: [f"v=spf1 ip4:{IPV4} -all"], ("mx1.example.org", "AAAA"): []}
    assert wrong(await found(changes, site)) == []


async def test_spf_of_a_served_domain_is_only_looked_at() -> None:
    assert (
        wrong(
            await found(
                {
                    ("example.org", "TXT"): ["v=spf1 include:_spf.example.net -all"],
                    ("_spf.example.net", "TXT"): ["v=spf1 -all"],
                }
            )
        )
        == []
    )
    finding = await one({("example.org", "TXT"): ["v=spf1 mx +all"]})
    assert (finding.status, finding.name) == (Status.DIFFERENT, "example.org")


NAME = ("s1._domainkey.example.org", "TXT")
CUT = "v=DKIM1; k=rsa; p=" + base64.b64encode(PUBLIC[:180]).decode()
OTHER = "v=DKIM1; k=rsa; p=" + base64.b64encode(PUBLIC[::-1]).decode()


@pytest.mark.parametrize(
    ("records", "status", "words"),
    [
        ([OTHER], Status.DIFFERENT, "p= is another key"),
        ([CUT], Status.DIFFERENT, "p= is cut off after 180 of 200 octets"),
        ([KEY, OTHER], Status.DIFFERENT, "leave one TXT record"),
        ([KEY.replace(";", "\\;")], Status.DIFFERENT, "backslashes"),
        ([f'"{KEY}"'], Status.DIFFERENT, "quotation marks"),
        (["v=DKIM1; k=rsa; p="], Status.DIFFERENT, "revokes"),
        (["v=DKIM1; k=ed25519; p=AAAA"], Status.DIFFERENT, "k= is ed25519, the key is rsa"),
        (["hello"], Status.DIFFERENT, "put the expected text in its place"),
        ([KEY.replace("k=rsa", "k=rsa; t=y")], Status.WARNING, "t=y"),
        (["k=rsa;" + KEY.partition("k=rsa;")[2].replace("p=", "p= ")], Status.OK, ""),
    ],
)
async def test_key(records: list[str], status: Status, words: str) -> None:
    findings = await found({NAME: records})
    (finding,) = [each for each in findings if (each.name, each.kind) == NAME]
    assert (finding.status, words in finding.fix) == (status, True), finding
    assert finding.expected == f'"{KEY[:255]}" "{KEY[255:]}"'


async def test_key_is_missing() -> None:
    finding = await one({NAME: []})
    assert (finding.status, finding.name) == (Status.MISSING, NAME[0])
    retired = DkimRecord("example.org", "s0._domainkey.example.org", KEY, "signs no more", needed=False)
    site = Site(SITE.hostname, SITE.srs_domain, SITE.served, SITE.addresses, (retired, DKIM))
    finding = await one({}, site=site)
    assert (finding.status, finding.name) == (Status.WARNING, retired.name)


class Denying(Dns):
    """A name server that denies names which have others below them."""

    def _look(self, name: str, kind: str) -> tuple[DnsStatus, list[str]]:
        return (DnsStatus.NXDOMAIN, []) if name == "_domainkey.example.org" else super()._look(name, kind)


async def test_name_server_that_denies_an_empty_domainkey() -> None:
    findings = await check(Denying(RIGHT), SITE)
    (finding,) = [each for each in findings if each.status is not Status.OK]
    assert (finding.status, finding.name, finding.there) == (Status.WARNING, "_domainkey.example.org", "NXDOMAIN")
    assert "RFC 8020" in finding.fix


async def test_a_domain_that_nothing_signs_for() -> None:
    other = DkimRecord("example.com", "s1._domainkey.example.com", KEY)
    site = Site("mx1.example.org", "fwd.example.org", ("example.org",), SITE.addresses, (other,))
    finding = await one({("s1._domainkey.example.com", "TXT"): [KEY]}, site=site)
    assert (finding.status, finding.owner) == (Status.WARNING, "example.org")
    assert "forwarder keys generate --domain example.org" in finding.fix
    third = Site("mx1.example.org", "fwd.example.org", ("example.org", "example.com"), SITE.addresses, (DKIM,))
    more: Zone = {("example.com", "MX"): ["10 mx1.example.org."], ("_dmarc.example.com", "TXT"): ["v=DMARC1; p=none"]}
    assert wrong(await found(more, third)) == []  # the SRS domain's organisation signs in its place


DMARC = ("_dmarc.example.org", "TXT")


@pytest.mark.parametrize(
    ("records", "status", "words"),
    [
        ([], Status.MISSING, "add: _dmarc.example.org. TXT"),
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], Status.DIFFERENT, "leave one"),
        (["v=DMARC1; p=perhaps"], Status.DIFFERENT, "correct it"),
        (["v=DMARC1; p=quarantine; aspf=s", "other text"], Status.OK, ""),
        (["v=DMARC1; p=reject"], Status.WARNING, "add aspf=s"),
    ],
)
async def test_dmarc(records: list[str], status: Status, words: str) -> None:
    findings = await found({DMARC: records})
    (finding,) = [each for each in findings if (each.name, each.kind) == DMARC]
    assert (finding.status, words in finding.fix) == (status, True), finding


async def test_dmarc_of_the_organisation_is_enough() -> None:
    site = Site("mx1.example.org", "fwd.example.org", ("mail.example.org",), SITE.addresses, (DKIM,))
    findings = await found({("mail.example.org", "MX"): ["10 mx1.example.org."]}, site)
    (finding,) = [each for each in findings if each.name == "_dmarc.mail.example.org"]
    assert finding.status is Status.OK
    assert "that of example.org applies" in finding.there


async def test_dmarc_that_leads_to_no_answer() -> None:
    assert wrong(await found({DMARC: []}, failing="_dmarc.org")) == [(Status.UNANSWERED, *DMARC)]


async def test_dmarc_reports_to_another_domain() -> None:
    record = "v=DMARC1; p=none; aspf=s; rua=mailto:a@dmarc.example.net,mailto:b@sub.example.org"
    finding = await one({DMARC: [record]})
    assert (finding.status, finding.name) == (Status.WARNING, "example.org._report._dmarc.dmarc.example.net")
    assert "no reports will come" in finding.fix
    assert wrong(await found({DMARC: [record], (finding.name, "TXT"): ["v=DMARC1;"]})) == []


async def test_host_that_is_the_srs_domain() -> None:
    site = Site("mx1.example.org", "mx1.example.org", ("example.org",), SITE.addresses, (DKIM,))
    assert wrong(await found({("mx1.example.org", "MX"): ["10 mx1.example.org."]}, site)) == []
