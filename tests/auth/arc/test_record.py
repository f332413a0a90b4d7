import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.arc.record import (
    MAX_SETS,
    ArcError,
    Results,
    Seal,
    key_names,
    parse_message_signature,
    parse_results,
    parse_seal,
    read_chain,
)
from forwarder.auth.dkim.canonical import BodyKey
from forwarder.auth.dkim.record import Signature, SignatureError
from forwarder.model.headers import split_header
from tests.auth.arc.sealer import NAME, chain, seal
from tests.auth.dkim.signer import MESSAGE

SEAL = "i=2; a=rsa-sha256; cv=pass; d=Relay.test; s=Arc; t=12345; b=dGVz\r\n dA=="
SIGNATURE = "i=2; a=rsa-sha256; d=relay.test; s=arc; h=From:To; bh=" + "A" * 43 + "=; b=dGVzdA=="


def seal_of(text: str) -> Seal:
    return parse_seal(f"ARC-Seal: {text}\r\n".encode())


def message_signature_of(text: str) -> Signature | SignatureError:
    return parse_message_signature(f"ARC-Message-Signature: {text}\r\n".encode()).signature


def results_of(text: bytes) -> Results:
    return parse_results(b"ARC-Authentication-Results:" + text + b"\r\n")


def test_a_seal() -> None:
    raw = f"ARC-Seal: {SEAL}\r\n".encode()
    assert parse_seal(raw) == Seal(2, raw, "pass", "relay.test", "arc", "rsa-sha256", b"test")
    assert parse_seal(raw).key_name == "arc._domainkey.relay.test"


@pytest.mark.parametrize("more", ["", "; ", "; x=unknown", "; c=relaxed/relaxed"])
def test_tags_that_mean_nothing_in_a_seal(more: str) -> None:
    assert seal_of(SEAL + more).instance == 2


def test_a_seal_may_have_no_time() -> None:
    assert seal_of(SEAL.replace("t=12345; ", "")).instance == 2


def test_domains_in_u_labels() -> None:
    seal = seal_of(SEAL.replace("Relay.test", "bücher.test").replace("Arc", "schlüssel"))
    assert seal.key_name == "xn--schlssel-95a._domainkey.xn--bcher-kva.test"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("i=2; ", "", "the tag i= is missing"),
        ("a=rsa-sha256; ", "", "the tag a= is missing"),
        ("cv=pass; ", "", "the tag cv= is missing"),
        ("d=Relay.test; ", "", "the tag d= is missing"),
        ("s=Arc; ", "", "the tag s= is missing"),
        ("b=dGVz\r\n dA==", "x=", "the tag b= is missing"),
        ("i=2", "i=0", "i= is not from 1 to 50"),
        ("i=2", "i=51", "i= is not from 1 to 50"),
        ("i=2", "i=", "i= is not from 1 to 50"),
        ("i=2", "i=-1", "i= is not from 1 to 50"),
        ("i=2", "i=\u0662", "i= is not from 1 to 50"),
        ("cv=pass", "cv=Pass", "cv= is neither none nor pass nor fail"),
        ("cv=pass", "cv=", "cv= is neither none nor pass nor fail"),
        ("t=12345", "t=now", "t= is not a time"),
        ("t=12345", "t=", "t= is not a time"),
        ("Relay.test", "", "d= is not a domain name"),
        ("Relay.test", "relay.test.", "d= is not a domain name"),
        ("Relay.test", "relay test", "d= is not a domain name"),
        ("Arc", "", "s= is not a domain name"),
        ("Arc", ".".join(["x" * 63] * 3), None),
        ("Arc", ".".join([*["x" * 63] * 3, "x" * 40]), "the name of its key is longer than DNS allows"),
        ("b=dGVz\r\n dA==", "b=", "b= is not base64"),
        ("b=dGVz\r\n dA==", "b=*", "b= is not base64"),
        ("t=12345", "h=from", "it has a tag h=, which is not allowed there"),
        ("t=12345", "h=", "it has a tag h=, which is not allowed there"),
        ("t=12345", "d=other.test", "the tag d= is there twice"),
        ("t=12345", ";", "it has a part that is not name=value"),
    ],
)
def test_what_is_no_seal(old: str, new: str, reason: str | None) -> None:
    text = SEAL.replace(old, new)
    assert text != SEAL
    if reason is None:
        assert seal_of(text).instance == 2
    else:
        with pytest.raises(ArcError, match=f"^{reason}$"):
            seal_of(text)


@pytest.mark.parametrize(
    ("text", "instance", "payload"),
    [
        (b" i=1; relay.test; spf=pass", 1, b"relay.test; spf=pass"),
        (b"i=50;relay.test;\r\n\tspf=pass ;\r\n dkim=none", 50, b"relay.test;\r\n\tspf=pass ;\r\n dkim=none"),
        (b"\r\n i (the \\) number) \r\n\t= 7 () ; relay.test; none", 7, b"relay.test; none"),
        (b' I=3; relay.test; spf=pass reason="\xc3\xbc"', 3, b'relay.test; spf=pass reason="\xc3\xbc"'),
        (b" i=1;", 1, b""),
    ],
)
def test_results(text: bytes, instance: int, payload: bytes) -> None:
    results = results_of(text)
    assert (results.instance, results.payload) == (instance, payload)
    assert results.raw == b"ARC-Authentication-Results:" + text + b"\r\n"


@pytest.mark.parametrize(
    "text",
    [
        *(b" relay.test; i=1;", b" i=1 relay.test;", b" i=; relay.test", b" i=0; relay.test", b" i=51; relay.test"),
        *(b" i=1a; relay.test", b" i=-1; x", b" i==1; x", b" (i=1; x", b" i=1(; x", b"", b" i=1", b" i=9999; x"),
    ],
)
def test_what_are_no_results(text: bytes) -> None:
    with pytest.raises(ArcError):
        results_of(text)


def test_a_message_signature() -> None:
    signature = message_signature_of(SIGNATURE)
    assert isinstance(signature, Signature)
    assert (signature.instance, signature.names, signature.domain) == (2, (b"from", b"to"), "relay.test")


def test_a_message_signature_is_relaxed_unless_it_says_otherwise() -> None:
    signature, simple = message_signature_of(SIGNATURE), message_signature_of(SIGNATURE + "; c=simple")
    assert isinstance(signature, Signature) and isinstance(simple, Signature)
    assert signature.header_relaxed and signature.body == BodyKey(relaxed=True)
    assert not simple.header_relaxed and simple.body == BodyKey(relaxed=False)


def test_a_message_signature_has_no_version() -> None:
    assert isinstance(message_signature_of(SIGNATURE + "; v=17"), Signature)


def test_a_message_signature_may_name_nothing() -> None:
    signature = message_signature_of(SIGNATURE.replace("From:To", ""))
    assert isinstance(signature, Signature) and signature.names == ()
    signature = message_signature_of(SIGNATURE.replace("From:To", "From::To:"))
    assert isinstance(signature, Signature) and signature.names == (b"from", b"to")


def test_a_message_signature_must_not_sign_seals() -> None:
    error = message_signature_of(SIGNATURE.replace("From:To", "From:ARC-Seal"))
    assert str(error) == "it signs ARC-Seal fields, which it must not"


def test_an_unreadable_message_signature_keeps_its_instance() -> None:
    part = parse_message_signature(b"ARC-Message-Signature: i=4; a=rsa-sha256\r\n")
    assert part.instance == 4
    assert str(part.signature) == "the tag b= is missing"


@pytest.mark.parametrize("text", ["a=rsa-sha256", "i=1; i=1", "i=0", "i=x; a=b", "i=51; a=b", "\0"])
def test_a_message_signature_without_instance(text: str) -> None:
    with pytest.raises(ArcError):
        message_signature_of(text)


@given(st.binary(max_size=200), st.sampled_from([parse_seal, parse_results, parse_message_signature]))
def test_any_octets_are_read_or_refused(octets: bytes, parse: object) -> None:
    assert callable(parse)
    try:
        part = parse(b"X:" + octets + b"\r\n")
    except ArcError as error:
        assert str(error)
    else:
        assert 1 <= part.instance <= MAX_SETS


@pytest.mark.parametrize("octets", [b" ", b"(", b"()", b"(\\", b"i", b"i=", b";", b"(a)\t", b"=", b"i=1;", b"\r\n "])
def test_long_fields_take_linear_time(octets: bytes) -> None:
    """A quadratic look at a megabyte would take hours: the test's time-out speaks."""
    raw = b"X:" + octets * (1_000_000 // len(octets)) + b"\r\n"
    for parse in (parse_seal, parse_results, parse_message_signature):
        try:
            assert parse(raw).instance == 1
        except ArcError:
            continue


def test_no_chain() -> None:
    read = read_chain(split_header(MESSAGE))
    assert (read.sets, read.highest, read.flaw) == ((), 0, "")


def test_a_chain() -> None:
    message = chain(3)
    read = read_chain(split_header(message))
    assert (read.highest, read.flaw) == (3, "")
    assert [each.instance for each in read.sets] == [1, 2, 3]
    assert b"".join(b"".join(reversed(each.fields)) for each in reversed(read.sets)) + MESSAGE == message


def fields(message: bytes) -> list[bytes]:
    return [field.raw for field in split_header(message).fields if field.name.startswith(b"arc-")]


@pytest.mark.parametrize(
    ("order", "flaw", "highest"),
    [  # 0 to 8 are the seal, the signature, the results of i=3, i=2, i=1
        ([8, 3, 5, 1, 0, 4, 7, 2, 6], "", 3),
        ([0, 1, 2, 6, 7, 8], "there is no ARC-Authentication-Results with i=2", 3),
        ([0, 1, 2, 3, 4, 5], "there is no ARC-Authentication-Results with i=1", 3),
        ([0, 1, 2, 3, 4, 5, 6, 7], "there is no ARC-Authentication-Results with i=1", 3),
        ([0, 1, 2, 3, 4, 5, 6, 8], "there is no ARC-Message-Signature with i=1", 3),
        ([0, 1, 2, 3, 4, 5, 7, 8], "there is no ARC-Seal with i=1", 3),
        ([1, 2, 3, 4, 5, 6, 7, 8], "there is no ARC-Seal with i=3", 3),
        ([2, 3, 4, 5, 6, 7, 8], "there is no ARC-Message-Signature with i=3", 3),
        ([1, 6, 7, 8], "there is no ARC-Authentication-Results with i=2", 3),
        ([6], "there is no ARC-Authentication-Results with i=1", 1),
        ([7], "there is no ARC-Authentication-Results with i=1", 1),
        ([8], "there is no ARC-Message-Signature with i=1", 1),
        ([3, 3, 4, 5, 6, 7, 8], "there are two ARC-Seal fields with i=2", 2),
        ([3, 4, 4, 5, 6, 7, 8], "there are two ARC-Message-Signature fields with i=2", 2),
        ([3, 4, 5, 5, 6, 7, 8], "there are two ARC-Authentication-Results fields with i=2", 2),
    ],
)
def test_the_structure_of_a_chain(order: list[int], flaw: str, highest: int) -> None:
    parts = fields(chain(3))
    read = read_chain(split_header(b"".join(parts[n] for n in order) + MESSAGE))
    assert (read.flaw, read.highest, bool(read.sets)) == (flaw, highest, not flaw)


@pytest.mark.parametrize("name", ["ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"])
def test_one_field_that_cannot_be_read(name: str) -> None:
    read = read_chain(split_header(f"{name}: i=99; x\r\n".encode() + chain(2)))
    assert read.flaw.startswith(f"an {name} cannot be read: ")
    assert (read.sets, read.highest) == ((), 2)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_more_than_fifty_fields_of_a_kind(kept: int) -> None:
    field = fields(seal())[kept]
    assert read_chain(split_header(field * 50)).flaw.startswith("there are two ")
    read = read_chain(split_header(field * 51))
    assert (read.flaw, read.highest) == ("there are more than 50 ARC sets", 50)


@pytest.mark.parametrize(
    ("first", "second", "flaw"),
    [
        ("none", "pass", ""),
        ("pass", "pass", "the ARC-Seal with i=1 says cv=pass, not none"),
        ("fail", "pass", "the ARC-Seal with i=1 says cv=fail, not none"),
        ("none", "none", "the ARC-Seal with i=2 says cv=none, not pass"),
        ("none", "fail", "the newest seal (i=2) says that the chain had failed before"),
    ],
)
def test_what_seals_say_of_the_chain(first: str, second: str, flaw: str) -> None:
    message = seal(seal(cover={"cv": first}), cover={"cv": second})
    assert read_chain(split_header(message)).flaw == flaw


def test_a_seal_that_says_fail_needs_no_sets_below() -> None:
    """What closes a broken chain says so, whatever is wrong below (RFC 8617 5.1.2)."""
    message = seal(chain(2), cover={"cv": "fail"})
    broken = message.replace(b"ARC-Seal: i=1", b"ARC-Seal: i=x")
    assert read_chain(split_header(broken)).flaw == "the newest seal (i=3) says that the chain had failed before"


def test_the_names_of_keys() -> None:
    other = {"s": "other", "d": "Other.test"}
    message = seal(seal(seal(cover=other)), signature={"s": "third"})
    names = (f"third._domainkey.{NAME.partition('_domainkey.')[2]}", NAME, "other._domainkey.other.test")
    assert key_names(split_header(message)) == names
    assert key_names(split_header(MESSAGE)) == ()
    assert key_names(split_header(b"ARC-Seal: x\r\n" + message)) == ()
    assert key_names(split_header(seal(signature={"a": None}))) == ()
