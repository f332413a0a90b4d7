"""The field that readers behind us believe: what it says of each finding, and that strangers cannot write in it."""

import re
from dataclasses import replace

import pytest
from authres import AuthenticationResultsHeader
from authres.core import AuthenticationResult
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc.record import Policy
from forwarder.auth.dmarc.verify import DmarcResult, DmarcStatus
from forwarder.auth.iprev import IprevResult, IprevStatus
from forwarder.auth.results import MAX_LINE, Authentication, authentication_results
from forwarder.auth.spf.verify import SpfCheck, SpfResult, SpfStatus
from forwarder.model.address import Address, parse_mailbox

ID = "mx1.example.org"
ALICE = parse_mailbox("alice@sender.test")
NOTHING = Authentication("192.0.2.1", "mail.sender.test", ALICE)
SPF = SpfResult(SpfStatus.PASS, "sender.test", "ip4:192.0.2.0/24", "")
BY_HELO = SpfResult(SpfStatus.NONE, "mail.sender.test", "", "mail.sender.test publishes no SPF record")
DKIM = DkimResult(DkimStatus.PASS, "sender.test", "lab", "@sender.test", "rsa-sha256", "dzdVyOf/")
ARC = ArcResult(ArcStatus.PASS, 2, sealer="relay.test", oldest_pass=1)
DMARC = DmarcResult(DmarcStatus.PASS, "sender.test", Policy.REJECT, published="v=DMARC1; p=reject")
ALL = Authentication(
    "192.0.2.1",
    "mail.sender.test",
    ALICE,
    iprev=IprevResult(IprevStatus.PASS, "mail.sender.test", ""),
    spf=SpfCheck(SPF, BY_HELO),
    dkim=(DKIM,),
    dkim_checked=True,
    arc=ARC,
    dmarc=DMARC,
)


def field(found: Authentication, disposition: str = "none") -> str:
    return authentication_results(ID, found, disposition).decode("ascii")


def clauses(found: Authentication, disposition: str = "none") -> list[str]:
    """Give the clauses, unfolded."""
    text = field(found, disposition)
    assert text.endswith("\r\n")
    first, *rest = [re.sub(r"\r\n[\t ]+", " ", clause).strip() for clause in text.split(";")]
    assert first == f"Authentication-Results: {ID}"
    return rest


Read = tuple[str, str, tuple[tuple[str, str], ...]]


def read_by_authres(text: str) -> list[Read]:
    """Parse as authres does: (method, result, its properties as (type.name, value))."""
    header = AuthenticationResultsHeader.parse(text.replace("\r\n", ""))
    assert header.authserv_id == ID
    return [_read(result) for result in header.results]


def _read(result: AuthenticationResult) -> Read:
    properties = tuple((f"{each.type}.{each.name}", str(each.value)) for each in result.properties)
    return result.method, result.result, properties


def test_everything_at_once() -> None:
    assert field(ALL, "pass") == (
        "Authentication-Results: mx1.example.org;\r\n"
        "\tiprev=pass (mail.sender.test) policy.iprev=192.0.2.1;\r\n"
        "\tspf=pass (ip4:192.0.2.0/24) smtp.mailfrom=alice@sender.test;\r\n"
        "\tdkim=pass header.d=sender.test header.i=@sender.test header.s=lab\r\n"
        '\t header.a=rsa-sha256 header.b="dzdVyOf/";\r\n'
        "\tarc=pass (2 sets, sealed by relay.test) header.oldest-pass=1\r\n"
        "\t smtp.remote-ip=192.0.2.1;\r\n"
        "\tdmarc=pass (p=reject dis=pass) header.from=sender.test policy.dmarc=reject\r\n"
    )


def test_authres_reads_all_that_was_written() -> None:
    assert read_by_authres(field(ALL, "pass")) == [
        ("iprev", "pass", (("policy.iprev", "192.0.2.1"),)),
        ("spf", "pass", (("smtp.mailfrom", "alice@sender.test"),)),
        ("dkim", "pass", (
            ("header.d", "sender.test"), ("header.i", "@sender.test"), ("header.s", "lab"),
            ("header.a", "rsa-sha256"), ("header.b", "dzdVyOf/"),
        )),
        ("arc", "pass", (("header.oldest-pass", "1"), ("smtp.remote-ip", "192.0.2.1"))),
        ("dmarc", "pass", (("header.from", "sender.test"), ("policy.dmarc", "reject"))),
    ]  # fmt: skip


def test_nothing_was_checked() -> None:
    assert field(NOTHING) == "Authentication-Results: mx1.example.org;\r\n\tnone\r\n"
    assert read_by_authres(field(NOTHING)) == []


@pytest.mark.parametrize(
    ("found", "clause"),
    [
        (IprevResult(IprevStatus.PASS, "mail.a.test", ""), "iprev=pass (mail.a.test) policy.iprev=192.0.2.1"),
        (
            IprevResult(IprevStatus.PERMERROR, "", "192.0.2.1 has no reverse name"),
            "iprev=permerror (192.0.2.1 has no reverse name) policy.iprev=192.0.2.1",
        ),
    ],
)
def test_iprev(found: IprevResult, clause: str) -> None:
    assert clauses(replace(NOTHING, iprev=found)) == [clause]


def test_iprev_is_left_out_without_an_address() -> None:
    nowhere = IprevResult(IprevStatus.NONE, "", "the client has no IP address")
    assert clauses(replace(NOTHING, iprev=nowhere)) == ["none"]


def test_ipv6_is_quoted_and_read() -> None:
    text = field(replace(ALL, client="2001:db8::1"))
    assert 'policy.iprev="2001:db8::1";' in text
    read = read_by_authres(text)
    assert read[0][2] == (("policy.iprev", "2001:db8::1"),)
    assert read[3][2] == (("header.oldest-pass", "1"), ("smtp.remote-ip", "2001:db8::1"))


@pytest.mark.parametrize(
    ("sender", "found", "clause"),
    [
        (ALICE, SPF, "spf=pass (ip4:192.0.2.0/24) smtp.mailfrom=alice@sender.test"),
        (
            ALICE,
            SpfResult(SpfStatus.FAIL, "sender.test", "-all", "192.0.2.1 is not allowed to send for sender.test"),
            "spf=fail (192.0.2.1 is not allowed to send for sender.test) smtp.mailfrom=alice@sender.test",
        ),
        (None, SPF, "spf=none (mail.sender.test publishes no SPF record) smtp.helo=mail.sender.test"),
        (Address("a b", "sender.test"), SPF, "spf=pass (ip4:192.0.2.0/24) smtp.mailfrom=sender.test"),
        (Address("jürgen", "sender.test"), SPF, "spf=pass (ip4:192.0.2.0/24) smtp.mailfrom=sender.test"),
        (Address('x"; dmarc=pass', "sender.test"), SPF, "spf=pass (ip4:192.0.2.0/24) smtp.mailfrom=sender.test"),
        (Address("dmarc=pass", "sender.test"), SPF, "spf=pass (ip4:192.0.2.0/24) smtp.mailfrom=sender.test"),
        (Address("SRS0=x=y=a.test=b", "sender.test"), SPF, "spf=pass (ip4:192.0.2.0/24) smtp.mailfrom=sender.test"),
        (Address("a/b+c", "sender.test"), SPF, "spf=pass (ip4:192.0.2.0/24) smtp.mailfrom=a/b+c@sender.test"),
        (Address("a", "[192.0.2.9]"), SPF, 'spf=pass (ip4:192.0.2.0/24) smtp.mailfrom="[192.0.2.9]"'),
    ],
)
def test_spf(sender: Address | None, found: SpfResult, clause: str) -> None:
    asked = replace(NOTHING, sender=sender, spf=SpfCheck(found, BY_HELO))
    assert clauses(asked) == [clause]
    ((_, _, ((name, value),)),) = read_by_authres(field(asked))
    assert clause.replace('"', "").endswith(f"{name}={value}")


def test_an_address_literal_as_helo() -> None:
    found = replace(NOTHING, helo="[192.0.2.1]", sender=None, spf=SpfCheck(SPF, SPF))
    assert clauses(found) == ['spf=pass (ip4:192.0.2.0/24) smtp.helo="[192.0.2.1]"']


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"status": DkimStatus.FAIL, "reason": "the body was changed"}, "dkim=fail (the body was changed) header.d="),
        ({"body_extended": True}, "dkim=pass (the end of the body is not signed) header.d="),
        ({"testing": True}, "dkim=pass (the key is marked as a test) header.d="),
        (
            {"status": DkimStatus.FAIL, "reason": "the body is shorter than l= says", "testing": True},
            "dkim=fail (the body is shorter than l= says, the key is marked as a test) header.d=",
        ),
    ],
)
def test_dkim(change: dict[str, object], start: str) -> None:
    result = DkimResult(**{**{name: getattr(DKIM, name) for name in DKIM.__slots__}, **change})
    (clause,) = clauses(replace(NOTHING, dkim_checked=True, dkim=(result,)))
    assert clause.startswith(start)


def test_a_signature_that_could_not_be_read() -> None:
    broken = DkimResult(DkimStatus.PERMERROR, reason="the signature cannot be read: there is no d=")
    found = replace(NOTHING, dkim_checked=True, dkim=(broken,))
    assert clauses(found) == ["dkim=permerror (the signature cannot be read: there is no d=)"]
    assert read_by_authres(field(found)) == [("dkim", "permerror", ())]


def test_a_signer_that_says_who_it_was() -> None:
    found = replace(NOTHING, dkim_checked=True, dkim=(replace(DKIM, identity="bob+x@mail.sender.test"),))
    assert "header.i=bob+x@mail.sender.test" in field(found)
    odd = replace(NOTHING, dkim_checked=True, dkim=(replace(DKIM, identity='"a b"@mail.sender.test'),))
    assert " header.i=@mail.sender.test" in field(odd)


def test_no_signature() -> None:
    assert clauses(replace(NOTHING, dkim_checked=True)) == ["dkim=none"]


def test_each_signature_has_its_clause_up_to_ten() -> None:
    many = tuple(replace(DKIM, selector=f"s{n}", signature_start=f"{n:08}") for n in range(30))
    read = read_by_authres(field(replace(NOTHING, dkim_checked=True, dkim=many)))
    assert [dict(properties)["header.s"] for _, _, properties in read] == [f"s{n}" for n in range(10)]
    assert [dict(properties)["header.b"] for _, _, properties in read] == [f"{n:08}" for n in range(10)]


@pytest.mark.parametrize(
    ("found", "clause"),
    [
        (ArcResult(ArcStatus.NONE, reason="the message has no ARC sets"), "arc=none (the message has no ARC sets)"),
        (ArcResult(ArcStatus.FAIL, 3, "set 2 is missing"), "arc=fail (set 2 is missing)"),
        (
            ArcResult(ArcStatus.PASS, 1, sealer="relay.test"),
            "arc=pass (1 set, sealed by relay.test) header.oldest-pass=0 smtp.remote-ip=192.0.2.1",
        ),
    ],
)
def test_arc(found: ArcResult, clause: str) -> None:
    assert clauses(replace(NOTHING, arc=found)) == [clause]


@pytest.mark.parametrize(
    ("found", "disposition", "clause"),
    [
        (
            replace(DMARC, status=DmarcStatus.FAIL, policy=Policy.QUARANTINE, reason="nothing shows it"),
            "quarantine",
            "dmarc=fail (p=quarantine dis=quarantine) header.from=sender.test policy.dmarc=quarantine",
        ),
        (
            DmarcResult(DmarcStatus.NONE, "sender.test", Policy.NONE, reason="no DMARC policy is published for it"),
            "none",
            "dmarc=none (no DMARC policy is published for it) header.from=sender.test",
        ),
        (
            DmarcResult(DmarcStatus.PERMERROR, "", Policy.NONE, reason="there is no From field"),
            "none",
            "dmarc=permerror (there is no From field)",
        ),
        (
            DmarcResult(DmarcStatus.TEMPERROR, "sender.test", Policy.REJECT, reason="DNS did not answer"),
            "none",
            "dmarc=temperror (DNS did not answer) header.from=sender.test",
        ),
    ],
)
def test_dmarc(found: DmarcResult, disposition: str, clause: str) -> None:
    assert clauses(replace(NOTHING, dmarc=found), disposition) == [clause]


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("a; dmarc=pass (x) header.from=bank.test", "a, dmarc_pass ?x? header.from=bank.test"),
        ("a\r\nX-Injected: yes", "a??X-Injected: yes"),
        ('quoted "x\\" text', "quoted ?x?? text"),
        ("naïve\x00\x1b[31m", "na?ve??[31m"),
        ("SPF = pass", "SPF _ pass"),
        ("the body is shorter than l= says", "the body is shorter than l= says"),
        ("include:%{i}._spf.a.test", "include:%{i}._spf.a.test"),
        ("x" * 200, "x" * 117 + "..."),
        ("  ", None),
    ],
)
def test_comments(reason: str, shown: str | None) -> None:
    result = replace(BY_HELO, reason=reason)
    expected = f"spf=none ({shown}) smtp.helo=mail.sender.test" if shown else "spf=none smtp.helo=mail.sender.test"
    assert clauses(replace(NOTHING, sender=None, spf=SpfCheck(result, result))) == [expected]


def test_a_name_that_is_too_long_does_not_become_another() -> None:
    helo = "a" * 245 + ".bank.test.evil.test"
    (clause,) = clauses(replace(NOTHING, helo=helo, sender=None, spf=SpfCheck(SPF, SPF)))
    assert clause.endswith("...")
    assert "bank.test" not in clause.removesuffix("...")[-9:]


@pytest.mark.parametrize(
    ("found", "proven", "undecided"),
    [
        (NOTHING, False, False),
        (ALL, True, False),
        (replace(NOTHING, spf=SpfCheck(SPF, BY_HELO)), True, False),
        (replace(NOTHING, spf=SpfCheck(BY_HELO, SPF)), False, False),
        (replace(NOTHING, spf=SpfCheck(replace(SPF, status=SpfStatus.TEMPERROR), SPF)), False, True),
        (replace(NOTHING, dkim=(replace(DKIM, status=DkimStatus.FAIL), DKIM)), True, False),
        (replace(NOTHING, dkim=(replace(DKIM, status=DkimStatus.FAIL),)), False, False),
        (replace(NOTHING, dkim=(replace(DKIM, status=DkimStatus.TEMPERROR),)), False, True),
    ],
)
def test_what_is_proven(found: Authentication, proven: bool, undecided: bool) -> None:
    assert (found.proven, found.undecided) == (proven, undecided)


PIECES = (
    *("; dmarc=pass", "dmarc=pass", ")", "(", '"', "\\", "\r\n", "\n\t", "\r\n\r\n", "@", "=", ";", " ", "none", "\0"),
    *(
        "a.test",
        "..",
        ".",
        "ü",
        "\u2028",
        "\x1b",
        "x" * 300,
        "header.from=bank.test",
        "reason=",
        "/",
        "[",
        "=?utf-8?q?=",
        ",",
    ),
)
strings = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.sampled_from(["x" * 10_000, "; dmarc=pass " * 800, "é" * 10_000, '"(' * 5_000]),
)
addresses = st.builds(Address, strings, strings)
spf_results = st.builds(SpfResult, st.sampled_from(SpfStatus), strings, strings, strings)
dkim_results = st.builds(
    DkimResult, st.sampled_from(DkimStatus), *[strings] * 6, body_extended=st.booleans(), testing=st.booleans()
)
everything = st.builds(
    Authentication,
    client=strings,
    helo=strings,
    sender=st.one_of(st.none(), addresses),
    iprev=st.one_of(st.none(), st.builds(IprevResult, st.sampled_from(IprevStatus), strings, strings)),
    spf=st.one_of(st.none(), st.builds(SpfCheck, spf_results, spf_results)),
    dkim=st.lists(dkim_results, max_size=12).map(tuple),
    dkim_checked=st.booleans(),
    arc=st.one_of(
        st.none(),
        st.builds(ArcResult, st.sampled_from(ArcStatus), st.integers(0, 50), strings, sealer=strings,
                  oldest_pass=st.integers(0, 50)),
    ),
    dmarc=st.one_of(
        st.none(),
        st.builds(DmarcResult, st.sampled_from(DmarcStatus), strings, st.sampled_from(Policy), published=strings,
                  reason=strings),
    ),
)  # fmt: skip


def expected(found: Authentication) -> list[tuple[str, str]]:
    """The methods and results that the field must have, and no others."""
    said: list[tuple[str, str]] = []
    if found.iprev and found.iprev.status is not IprevStatus.NONE:
        said.append(("iprev", found.iprev.status.value))
    if found.spf:
        said.append(("spf", (found.spf.mail_from if found.sender is not None else found.spf.helo).status.value))
    if found.dkim_checked:
        said += [("dkim", each.status.value) for each in found.dkim[:10]] or [("dkim", "none")]
    if found.arc:
        said.append(("arc", found.arc.status.value))
    if found.dmarc:
        said.append(("dmarc", found.dmarc.status.value))
    return said


ALLOWED = {
    "iprev": ["policy.iprev"],
    "spf": ["smtp.mailfrom", "smtp.helo"],
    "dkim": ["header.d", "header.i", "header.s", "header.a", "header.b"],
    "arc": ["header.oldest-pass", "smtp.remote-ip"],
    "dmarc": ["header.from", "policy.dmarc"],
}


@given(everything)
def test_whatever_strangers_write_the_clauses_are_ours(found: Authentication) -> None:
    text = field(found)
    read = read_by_authres(text)
    assert [(method, result) for method, result, _ in read] == expected(found)
    for method, _, properties in read:
        names = [name for name, _ in properties]
        assert len(set(names)) == len(names)
        assert set(names) <= set(ALLOWED[method])


@given(everything)
def test_whatever_strangers_write_it_is_one_field_of_bounded_lines(found: Authentication) -> None:
    text = field(found)
    assert re.fullmatch(r"[ -~]+(?:\r\n\t[ -~]+)*\r\n", text)
    assert max(map(len, text.split("\r\n"))) <= MAX_LINE
    assert len(text) < 20_000


@given(everything)
def test_readers_that_only_search_are_not_misled_either(found: Authentication) -> None:
    """Split at every semicolon, or search for "method=" anywhere: nothing but our clauses is there."""
    text = field(found)
    first_words = [clause.split()[0] for clause in text.split(";")[1:]]
    said = [f"{method}={result}" for method, result in expected(found)] or ["none"]
    assert first_words == said
    assert re.findall(r"(?i)(?<![\w.-])(?:spf|dkim|dmarc|arc|iprev|auth) *= *[\w-]*", text) == [
        each for each in said if each != "none"
    ]
    assert text.count("(") == text.count(")")
    assert not re.search(r"\([^()]*$|\([^)]*\(", text)
