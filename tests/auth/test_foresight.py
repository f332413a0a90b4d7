"""What DMARC will say behind us, as a table of what was found and what survives."""

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc import verify as dmarc
from forwarder.auth.dmarc.record import Policy
from forwarder.auth.dmarc.verify import DmarcResult, DmarcStatus
from forwarder.auth.foresight import Expectation, Foresight, foresee, passed_at_our_door
from forwarder.auth.results import Authentication, authentication_results
from forwarder.auth.spf.verify import SpfCheck, SpfResult, SpfStatus
from forwarder.model.address import parse_mailbox
from forwarder.model.headers import split_header
from tests.auth.test_results import everything
from tests.fakes import FakeResolver

NO_SPF = SpfResult(SpfStatus.NONE, "x.example", "", "no record")
PASS, FAIL, NONE = Expectation.PASS, Expectation.FAIL, Expectation.NONE
LOST = "SPF does not survive forwarding"


def signature(domain: str, status: DkimStatus = DkimStatus.PASS, algorithm: str = "rsa-sha256") -> DkimResult:
    reason = "" if status is DkimStatus.PASS else "the body was changed"
    return DkimResult(status, domain, "s", f"@{domain}", algorithm, "abc", reason)


async def at_the_door(
    author: str, record: str, *signatures: DkimResult, spf: str = "", more: dict[str, str] | None = None
) -> Authentication:
    """Let the real check judge: `record` is published at the organisation, `more` at other names."""
    records = {"example.com" if author.endswith("example.com") else author: record} | (more or {})
    zone = {(f"_dmarc.{name}", "TXT"): [text] for name, text in records.items() if text}
    by_mail_from = SpfResult(SpfStatus.PASS, spf, "a", "") if spf else NO_SPF
    check = SpfCheck(by_mail_from, NO_SPF)
    header = split_header(f"From: a@{author}\r\n\r\n".encode())
    result = await dmarc.verify(FakeResolver(zone), header, check, signatures)
    return Authentication(
        "192.0.2.1", "h.example", parse_mailbox("a@x.example"), spf=check, dkim=signatures, dmarc=result
    )


REJECT = "v=DMARC1; p=reject"
OWN = signature("example.com")
BELOW = signature("mail.example.com")
FOREIGN = signature("esp.example")


@pytest.mark.parametrize(
    ("author", "record", "signatures", "spf", "surviving", "expected", "carrier", "reason"),
    [
        ("example.com", REJECT, [OWN], "", {0}, PASS, "example.com", "the signature of example.com survives"),
        ("example.com", REJECT, [OWN], "example.com", {0}, PASS, "example.com", "the signature of example.com"),
        ("example.com", REJECT, [BELOW], "", {0}, PASS, "mail.example.com", "the signature of mail.example.com"),
        ("a.example.com", REJECT, [BELOW], "", {0}, PASS, "mail.example.com", "the signature of mail"),
        ("example.com", REJECT, [FOREIGN, OWN], "", {0, 1}, PASS, "example.com", "the signature of example.com"),
        ("example.com", REJECT, [], "example.com", set(), FAIL, "", f"only SPF passed here, and {LOST}"),
        (
            *("example.com", REJECT, [FOREIGN], "example.com", {0}, FAIL, ""),
            f"the signature of esp.example is not aligned with example.com; and {LOST}",
        ),
        (
            *("example.com", REJECT, [OWN], "", set(), FAIL, ""),
            "the signature of example.com does not survive what is done to the header here",
        ),
        (
            *("example.com", REJECT, [FOREIGN, OWN], "", {0}, FAIL, ""),
            "the signature of esp.example is not aligned with example.com; "
            "the signature of example.com does not survive what is done to the header here",
        ),
        ("example.com", REJECT + "; adkim=s", [OWN], "", {0}, PASS, "example.com", "the signature of example.com"),
        (
            *("example.com", REJECT + "; adkim=s", [BELOW], "example.com", {0}, FAIL, ""),
            f"the signature of mail.example.com is not aligned with example.com; and {LOST}",
        ),
        (  # the strict one is broken, and the other does not do
            *("example.com", REJECT + "; adkim=s", [OWN, BELOW], "", {1}, FAIL, ""),
            "the signature of example.com does not survive what is done to the header here; "
            "the signature of mail.example.com is not aligned with example.com",
        ),
        (
            *("example.com", REJECT, [signature("example.com", DkimStatus.FAIL)], "example.com", {0}, FAIL, ""),
            f"only SPF passed here, and {LOST}",
        ),
        (
            *("example.com", REJECT, [replace(OWN, body_extended=True)], "example.com", {0}, FAIL, ""),
            f"the signature of example.com leaves out the end of the body (l=); and {LOST}",
        ),
        (  # what DMARC did not believe here does not stand in for what is broken
            *("example.com", REJECT, [replace(OWN, body_extended=True), BELOW], "", {0}, FAIL, ""),
            "the signature of example.com leaves out the end of the body (l=); "
            "the signature of mail.example.com does not survive what is done to the header here",
        ),
        ("example.com", REJECT, [FOREIGN], "esp.example", {0}, FAIL, "", "it does not pass here either: nothing shows"),
        ("example.com", "", [OWN], "", {0}, NONE, "", "no DMARC policy is published for example.com"),
    ],
)
async def test_what_is_foreseen(
    author: str,
    record: str,
    signatures: list[DkimResult],
    spf: str,
    surviving: Collection[int],
    expected: Expectation,
    carrier: str,
    reason: str,
) -> None:
    foreseen = foresee(await at_the_door(author, record, *signatures, spf=spf), surviving)
    assert (foreseen.expected, foreseen.carrier) == (expected, carrier)
    assert foreseen.reason.startswith(reason)
    assert foreseen.author == author


async def test_what_is_aligned_for_some_receivers_only_is_not_relied_on() -> None:
    """Nobody but the public suffix list knows that two names below co.uk are strangers when co.uk has a record."""
    found = await at_the_door("one.co.uk", "", signature("co.uk"), more={"co.uk": "v=DMARC1; p=reject"})
    assert found.dmarc is not None and found.dmarc.aligned_dkim and not found.dmarc.aligned_both
    foreseen = foresee(found, {0})
    assert (foreseen.expected, foreseen.passed_here, foreseen.matters) == (FAIL, True, True)
    assert foreseen.reason == "the signature of co.uk does not align with one.co.uk under the public suffix list"


async def test_what_is_aligned_by_the_list_alone_does_not_pass() -> None:
    more = {"a.example.com": "v=DMARC1; p=reject; psd=n"}
    found = await at_the_door("a.example.com", "v=DMARC1; p=reject", OWN, spf="a.example.com", more=more)
    foreseen = foresee(found, {0})
    assert foreseen.expected is FAIL
    assert foreseen.reason.startswith("the signature of example.com is not aligned with a.example.com; and SPF")


async def test_a_signer_that_is_an_organisation_of_its_own_was_not_aligned_here() -> None:
    more = {"mail.example.com": "v=DMARC1; p=none; psd=n"}
    found = await at_the_door("example.com", REJECT, BELOW, spf="example.com", more=more)
    assert foresee(found, {0}).expected is FAIL


@pytest.mark.parametrize(
    ("record", "passed_here", "policy", "matters"),
    [
        ("v=DMARC1; p=none", True, Policy.NONE, False),
        ("v=DMARC1; p=quarantine", True, Policy.QUARANTINE, True),
        ("v=DMARC1; p=reject", True, Policy.REJECT, True),
        ("v=DMARC1; p=reject; sp=none", True, Policy.NONE, False),
        ("v=DMARC1; p=quarantine; t=y", True, Policy.NONE, False),
    ],
)
async def test_whether_failing_matters(record: str, passed_here: bool, policy: Policy, matters: bool) -> None:
    author = "below.example.com" if "sp=" in record else "example.com"
    foreseen = foresee(await at_the_door(author, record, spf=author), set())
    assert (foreseen.expected, foreseen.passed_here) == (FAIL, passed_here)
    assert (foreseen.policy, foreseen.matters) == (policy, matters)


async def test_nothing_is_foreseen_where_dmarc_is_not_checked() -> None:
    found = replace(await at_the_door("example.com", REJECT, OWN), dmarc=None)
    assert foresee(found, {0}) == Foresight(NONE, "DMARC is not checked here")


async def test_mail_without_an_author_fails_and_never_passed() -> None:
    header = split_header(b"From: a@example.com\r\nFrom: b@other.example\r\n\r\n")
    resolver = FakeResolver({("_dmarc.example.com", "TXT"): [REJECT]})
    result = await dmarc.verify(resolver, header, SpfCheck(NO_SPF, NO_SPF), [OWN])
    found = Authentication("192.0.2.1", "h", None, dkim=(OWN,), dmarc=result)
    foreseen = foresee(found, {0}, {"example.com"})
    assert (foreseen.expected, foreseen.passed_here, foreseen.policy) == (FAIL, False, Policy.REJECT)
    assert foreseen.reason == "it does not pass here either: there are several From fields"


async def test_our_own_signature_counts_where_the_author_is_of_our_domain() -> None:
    found = await at_the_door("example.com", REJECT, spf="example.com")
    assert foresee(found, (), {"ours.example", "example.com"}).carrier == "example.com"
    assert foresee(found, (), {"ours.example"}).expected is FAIL
    below = await at_the_door("a.example.com", REJECT, spf="a.example.com")
    assert foresee(below, (), {"example.com"}).carrier == "example.com"
    strict = await at_the_door("a.example.com", REJECT + "; adkim=s", spf="a.example.com")
    assert foresee(strict, (), {"example.com"}).expected is FAIL


async def test_rsa_is_preferred_to_what_not_all_can_verify() -> None:
    edwards = signature("example.com", algorithm="ed25519-sha256")
    alone = foresee(await at_the_door("example.com", REJECT, edwards), {0})
    assert (alone.expected, alone.carrier) == (PASS, "example.com")
    assert alone.reason == "only an Ed25519 signature of example.com survives, which not all can read"
    both = foresee(await at_the_door("example.com", REJECT, edwards, BELOW), {0, 1})
    assert both.carrier == "mail.example.com"
    with_ours = foresee(await at_the_door("a.example.com", REJECT, edwards), {0}, {"example.com"})
    assert with_ours.reason == "our own signature of example.com is aligned"


LONG = "v=DMARC1; p=reject; rua=" + ",".join(f"mailto:report{n}@example.com" for n in range(40))


@pytest.mark.parametrize(
    ("tail", "signatures", "surviving", "expected"),
    [
        ("", [BELOW], {0}, PASS),  # it was aligned, so adkim=s was not there
        ("", [OWN, BELOW], {1}, FAIL),  # nobody can tell
        ("; adkim=s", [OWN, BELOW], {1}, FAIL),
        ("; adkim=s", [OWN, BELOW], {0}, PASS),
    ],
)
async def test_a_record_that_is_not_known_whole(
    tail: str, signatures: list[DkimResult], surviving: set[int], expected: Expectation
) -> None:
    found = await at_the_door("example.com", LONG + tail, *signatures)
    assert found.dmarc is not None and found.dmarc.published.endswith("...")
    assert foresee(found, surviving).expected is expected


NAMES = ["example.com", "mail.example.com", "esp.example", "co.uk", "one.co.uk", ""]


@given(
    st.builds(
        DmarcResult,
        st.sampled_from(DmarcStatus),
        st.sampled_from(NAMES),
        st.sampled_from(Policy),
        organisation=st.sampled_from(NAMES),
        aligned_spf=st.booleans(),
        aligned_dkim=st.booleans(),
        published=st.sampled_from(["", REJECT, REJECT + "; adkim=s", "v=DMARC1; ..."]),
        reason=st.just("it is so"),
    ),
    st.lists(st.builds(signature, st.sampled_from(NAMES), st.sampled_from(DkimStatus)), max_size=5),
    st.sets(st.integers(0, 5)),
)
def test_nothing_passes_but_by_a_signature_that_passed_and_survives(
    result: DmarcResult, signatures: list[DkimResult], surviving: set[int]
) -> None:
    """Whatever was found, a PASS names a signature that passed here and survives, and there is always a reason."""
    found = Authentication("192.0.2.1", "h", None, dkim=tuple(signatures), dmarc=result)
    foreseen = foresee(found, surviving)
    good = {each.domain for n, each in enumerate(signatures) if n in surviving and each.status is DkimStatus.PASS}
    assert foreseen.reason
    assert (foreseen.expected is PASS) == bool(foreseen.carrier)
    assert foreseen.carrier in good | {""}


# What we have written ourselves


@pytest.mark.parametrize(
    ("octets", "passed"),
    [
        (b"Authentication-Results: mx.ours.example;\r\n\tspf=pass;\r\n\tdmarc=pass (p=none dis=none)\r\n", True),
        (b"Authentication-Results: mx.ours.example; dmarc=pass\r\n", True),
        (b"ARC-Authentication-Results: i=2; mx.ours.example; dmarc=pass\r\n", True),
        (b"Authentication-Results: mx.ours.example; dmarc=fail\r\n", False),
        (b"Authentication-Results: mx.ours.example; dmarc=passed\r\n", False),
        (b"Authentication-Results: mx.ours.example; spf=pass (dmarc=pass)\r\n", False),
        (b"Received: from dmarc=pass; dmarc=pass\r\n", False),
        (b"", False),
    ],
)
def test_what_our_own_lines_say(octets: bytes, passed: bool) -> None:
    assert passed_at_our_door(split_header(octets)) is passed


@given(everything)
def test_our_own_lines_are_read_as_they_were_meant(found: Authentication) -> None:
    """Whatever strangers have put into what we say, DMARC passed if it did."""
    octets = authentication_results("mx.ours.example", found, "none")
    passed = found.dmarc is not None and found.dmarc.status is DmarcStatus.PASS
    assert passed_at_our_door(split_header(octets)) is passed
    sealed = b"ARC-Authentication-Results: i=1; " + octets.partition(b":")[2]
    assert passed_at_our_door(split_header(sealed)) is passed
