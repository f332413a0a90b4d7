"""Our ARC sets: that everybody validates them, on any chain that held, and what the third-party suite wants of them."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.arc.record import (
    MAX_SETS,
    MESSAGE_SIGNATURE,
    RESULTS,
    SEAL,
    Seal,
    parse_message_signature,
    parse_seal,
)
from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.dkim.canonical import header_relaxed as relaxed
from forwarder.auth.dkim.canonical import without_signature
from forwarder.auth.dkim.keys import PublicKey, published
from forwarder.auth.dkim.record import Signature
from forwarder.auth.dkim.verify import DkimStatus, compare
from forwarder.model.headers import MAX_FIELDS, split_header
from forwarder.rewrite.seal import Stamp, seal
from forwarder.rewrite.sign import BODY, MAX_OF_A_NAME, OPEN, SINGLE, WIDTH, signable
from forwarder.rewrite.signing_key import SigningKey
from tests.auth.arc import suite
from tests.auth.arc.test_differential import RECORDS, theirs
from tests.auth.dkim.signer import MESSAGE, NOW
from tests.auth.dkim.signer import sign as sign_before
from tests.conformance import folder
from tests.corpus.collection import ODD
from tests.corpus.odd import Odd, arriving
from tests.fakes import FakeResolver
from tests.rewrite import judges
from tests.rewrite.judges import HEAD, arc, dkimpy_arc, ed25519, prepared, received, rsa, stamped, zone
from tests.rewrite.test_sign import DKIMPY_REFUSES, FULL, LARGE

PASS, FAIL, NONE = ArcStatus.PASS, ArcStatus.FAIL, ArcStatus.NONE
HELD = ArcResult(NONE)


def sets(message: bytes) -> tuple[bytes, bytes, bytes]:
    """Give the newest set: ARC-Seal, ARC-Message-Signature, ARC-Authentication-Results."""
    header = split_header(message)
    first, second, third = (header.all(name)[0].raw for name in (SEAL, MESSAGE_SIGNATURE, RESULTS))
    return first, second, third


def message_signature(message: bytes) -> Signature:
    found = parse_message_signature(sets(message)[1]).signature
    assert isinstance(found, Signature)
    return found


def chain(length: int) -> bytes:
    """Give a message that passed as many forwarders of ours, of two domains in turn."""
    message = FULL
    for n in range(length):
        message = stamped(message, rsa("r2", "second.test") if n % 2 else rsa())
    return message


@pytest.mark.parametrize("length", range(1, 6))
def test_chains_of_ours(length: int) -> None:
    message = chain(length)
    found = arc(message)
    assert (found.status, found.instances, found.oldest_pass) == (PASS, length, 0)
    assert found.sealer == ("second.test" if length % 2 == 0 else "ours.test")
    assert found.from_signed
    assert dkimpy_arc(message) is PASS
    assert judges.ours(message)[0].value == "pass"


@pytest.mark.parametrize("length", range(1, 4))
def test_on_top_of_chains_of_others(length: int) -> None:
    resolver = zone(rsa(), **RECORDS)
    below = theirs(length)
    what = prepared(below)
    message = seal(rsa(), arc(below, resolver), what, judges.RESULTS) + HEAD + below
    assert (arc(message, resolver).status, arc(message, resolver).instances) == (PASS, length + 1)
    assert dkimpy_arc(message, resolver) is PASS


@pytest.mark.parametrize("case", suite.parameters())
def test_on_top_of_the_chains_of_the_suite(case: suite.Case) -> None:
    resolver = zone(rsa())
    resolver = FakeResolver({**resolver.zone, **case.zone})
    before = arc(case.message, resolver)
    assert before.status is case.status
    made = seal(rsa(), before, prepared(case.message), judges.RESULTS)
    if case.status is FAIL:
        assert made == b""
        return
    message = made + HEAD + case.message
    assert arc(message, resolver).status is PASS
    if judged_by_dkimpy(case.message, resolver) is case.status:
        assert judged_by_dkimpy(message, resolver) is PASS


def judged_by_dkimpy(message: bytes, resolver: FakeResolver) -> ArcStatus | None:
    try:
        return dkimpy_arc(message, resolver)
    except (IndexError, ValueError):  # how it refuses some forms of fields
        return None


def test_what_stands_in_the_fields() -> None:
    message = chain(2)
    top, signature, reported = sets(message)
    assert message.index(top) < message.index(signature) < message.index(reported) < message.index(HEAD)
    cover = parse_seal(top)
    assert (cover.instance, cover.status, cover.domain, cover.algorithm) == (2, "pass", "second.test", "rsa-sha256")
    assert b" h=" not in top
    assert parse_seal(split_header(message).all(SEAL)[1].raw).status == "none"
    found = message_signature(message)
    assert (found.instance, found.signed_at, found.expires, found.body.length) == (2, NOW, None, None)
    assert found.header_relaxed
    assert found.body.relaxed
    assert reported == b"ARC-Authentication-Results: i=2; " + judges.RESULTS.partition(b": ")[2]
    assert max(map(len, (top + signature).split(b"\r\n"))) <= WIDTH


def test_which_fields_are_signed() -> None:
    """RFC 8617 4.1.2: DKIM-Signature fields, ours too; no ARC fields, no Authentication-Results."""
    message = stamped(sign_before(sign_before(FULL)))
    names = message_signature(message).names
    assert set(names) == {*SINGLE, *OPEN, b"dkim-signature"}
    assert names.count(b"dkim-signature") == 3
    assert message_signature(stamped(MESSAGE)).names.count(b"dkim-signature") == 1
    many = (b"DKIM-Signature: x\r\n" * (MAX_FIELDS - 20)) + MESSAGE
    assert message_signature(stamped(many)).names.count(b"dkim-signature") == MAX_OF_A_NAME
    assert arc(stamped(many)).status is PASS


@pytest.mark.parametrize(
    "name", ["X-Forwarded-To", "Received", "Delivered-To", "Return-Path", "DKIM-Signature", "Authentication-Results"]
)
def test_what_the_next_hops_add(name: str) -> None:
    assert arc(name.encode() + b": something\r\n" + stamped(FULL)).status is PASS


def test_what_the_next_hops_remove() -> None:
    assert arc(stamped(FULL).replace(HEAD, b"")).status is PASS


@pytest.mark.parametrize("name", SINGLE)
def test_no_second_one_can_be_put_on_top(name: bytes) -> None:
    assert arc(name + b": another\r\n" + stamped(MESSAGE)).status is FAIL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Alice", b"Mallory"),
        (b"\r\nbody", b"\r\nBody"),
        (b"; mx.ours.test;", b"; mx.evil.test;"),
        (b"cv=none", b"cv=pass"),
        (b"ARC-Message-Signature: i=1", b"ARC-Message-Signature: i=2"),
        (b"DKIM-Signature: v=1; a=", b"DKIM-Signature: v=1;a="),
    ],
)
def test_every_part_counts(old: bytes, new: bytes) -> None:
    message = stamped(FULL)
    assert old in message
    assert arc(message.replace(old, new, 1)).status is FAIL


def test_no_set_where_none_may_be_added() -> None:
    what = prepared(FULL)
    for result in (
        ArcResult(FAIL, 2, "it does not hold"),
        ArcResult(FAIL, 2, "DNS did not answer", temporary=True),
        ArcResult(PASS, MAX_SETS),
    ):
        assert seal(rsa(), result, what, judges.RESULTS) == b""
    assert seal(rsa(), HELD, what, b"") == b""


def test_the_last_set_that_is_possible() -> None:
    message = FULL
    for _ in range(MAX_SETS):
        message = stamped(message, head=b"")
    assert (arc(message).status, arc(message).instances) == (PASS, MAX_SETS)
    assert seal(rsa(), arc(message), prepared(message), judges.RESULTS) == b""


def test_only_rsa_keys_seal() -> None:
    with pytest.raises(AssertionError):
        seal(ed25519(), HELD, prepared(FULL), judges.RESULTS)


def test_a_result_of_another_message_is_not_taken() -> None:
    with pytest.raises(AssertionError):
        seal(rsa(), ArcResult(PASS, 1), prepared(FULL), judges.RESULTS)


def test_results_are_copied_octet_by_octet() -> None:
    value = b"mx.ours.test;\r\n\tdkim=pass  (a;\t b)\r\n  header.d=x.test ;\r\n\t spf=none \r\n"
    for space in (b"", b" ", b" \t "):
        made = seal(rsa(), HELD, prepared(FULL), b"Authentication-Results:" + space + value)
        assert made.endswith(b"\r\nARC-Authentication-Results: i=1; " + value)


def test_a_stamp_is_what_stands_on_top() -> None:
    assert Stamp(b"a", b"b").octets == b"ab"
    assert Stamp().octets == b""


@pytest.mark.parametrize("one", [one for one in ODD if not one.refusal], ids=lambda one: one.name)
def test_odd_messages(one: Odd) -> None:
    octets = arriving(one.octets)
    before = arc(octets)
    message = stamped(octets)
    if before.status is FAIL:
        assert SEAL not in {field.name for field in split_header(message).fields[:4]}
        return
    assert arc(message).status is PASS
    if len(octets) < LARGE and one.name not in DKIMPY_REFUSES:
        assert dkimpy_arc(message) is PASS


@given(
    st.lists(st.sampled_from([field.raw for field in split_header(FULL + HEAD).fields]), max_size=12).map(b"".join),
    st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\xe9"]), max_size=8).map(b"".join),
    st.integers(1, 3),
)
def test_any_message_that_we_seal_validates(header: bytes, body: bytes, times: int) -> None:
    """Whatever the fields and the body, and however often it comes by: our validator says pass."""
    message = header + b"\r\n" + body
    for n in range(times):
        message = stamped(message)
        assert (arc(message).status, arc(message).instances) == (PASS, n + 1)


@dataclass(frozen=True, slots=True)
class Case:
    """A signing case of the suite. `fields` are the expected AAR, AMS and AS as values with LF, "" for no set."""

    name: str
    message: bytes
    time: int
    fields: tuple[str, str, str]
    private: bytes
    zone: dict[tuple[str, str], list[str]]


# RFC 8617 5.1.2: "In the case of a failed Authenticated Received Chain, the header fields included in the signature
# scope of the AS header field b= value MUST only include the ARC Set header fields created by the MTA that detected the
# malformed chain, as if this newest ARC Set was the only set present." It says how such a set is signed; we make none.
NO_SET_OF_OURS = {"i1_base_fail", "i2_base_fail"}


def signing_cases() -> list[Any]:
    try:
        path = folder() / "arc" / "arc-draft-sign-tests.yml"
    except pytest.skip.Exception as missing:
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=str(missing)))]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = []
    with path.open("rb") as file:
        for scenario in yaml.load_all(file, loader):
            # The suite writes records in several lines; DNS would give one.
            texts = {owner: record.replace("\n", "") for owner, record in scenario["txt-records"].items()}
            records = {(owner, "TXT"): [text] for owner, text in texts.items()}
            for name, test in scenario["tests"].items():
                fields = (test["AAR"], test["AMS"], test["AS"])
                message = test["message"].replace("\n", "\r\n").encode()
                case = Case(name, message, test["t"], fields, scenario["privatekey"].encode(), records)
                found.append(pytest.param(case, id=name))
    return found


def as_field(title: str, value: str) -> bytes:
    """Give a field of the suite, each of its lines a fold."""
    return f"{title}: ".encode() + "\r\n ".join(line.strip() for line in value.strip().split("\n")).encode() + b"\r\n"


def sealed(case: Case) -> tuple[bytes, ArcResult]:
    """Seal as the case says, with our Authentication-Results saying what its set is to say."""
    before = arc(case.message, FakeResolver(case.zone))
    private: Any = load_pem_private_key(case.private, None, unsafe_skip_rsa_key_validation=True)
    made = received(case.message)
    body = made.body_digest(BODY)
    assert made.header is not None
    assert body is not None
    results = as_field("Authentication-Results", re.sub(r"^i=\d+; ", "", case.fields[0].strip()))
    key = SigningKey("example.org", "dummy", private)
    return seal(key, before, signable(made.header, body.digest, case.time), results), before


@pytest.mark.parametrize("case", signing_cases())
def test_the_signing_cases(case: Case) -> None:
    made, before = sealed(case)
    if before.status is FAIL:
        assert made == b""
        assert case.fields[2] == "" or case.name in NO_SET_OF_OURS
        return
    reported, signature, cover = (as_field(*each) for each in zip(TITLES, case.fields, strict=True))
    ours = sets(made)
    assert ours[2] == reported  # RFC 8617 4.1.1
    assert said(parse_seal(ours[0])) == said(parse_seal(cover))
    mine, expected = message_signature(made), message_signature(cover + signature + reported)
    assert (mine.body_hash, mine.signed_at) == (expected.body_hash, expected.signed_at)
    assert set(expected.names) <= set(mine.names)
    assert arc(made + case.message, FakeResolver(case.zone)).status is PASS
    theirs_on_top = received(cover + signature + reported + case.message)
    assert theirs_on_top.header is not None
    (raw, *_) = (field.raw for field in theirs_on_top.header.all(MESSAGE_SIGNATURE))
    (record,) = case.zone["dummy._domainkey.example.org", "TXT"]
    key = published(record.encode())
    assert isinstance(key, PublicKey)
    assert compare(theirs_on_top, raw, expected, [key]).status is DkimStatus.PASS


def said(cover: Seal) -> tuple[int, str, str, str]:
    return cover.instance, cover.status, cover.key_name, cover.algorithm


TITLES = ("ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal")


@pytest.mark.parametrize(("name", "following"), [("i0_base", "i1_base"), ("i1_base", "i2_base")])
def test_the_seals_of_the_suite(name: str, following: str) -> None:
    """What the suite expects in b= of ARC-Seal is not made of the other two fields as it shows them.

    RFC 8617 5.1.1 leaves no choice: the fields of the sets, relaxed. The message of the next case has the same set,
    field by field, with another b=; that one is right by the RFC, to us and to dkimpy.
    """
    folder()
    found = {each.id: each.values[0] for each in signing_cases()}
    message = found[following].message
    shown = sets(message)
    expected = [as_field(*each) for each in zip(TITLES, found[name].fields, strict=True)]
    assert [relaxed(field) for field in shown[:0:-1]] == [relaxed(field) for field in expected[:2]]
    assert relaxed(without_signature(shown[0])) == relaxed(without_signature(expected[2]))
    assert arc(message, FakeResolver(found[name].zone)).status is PASS
    assert dkimpy_arc(message, FakeResolver(found[name].zone)) is PASS
    assert parse_seal(shown[0]).signature != parse_seal(expected[2]).signature


def test_the_signing_cases_are_complete() -> None:
    folder()
    assert len(signing_cases()) == 17
