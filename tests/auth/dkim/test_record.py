"""Signatures and key records as they are read: every tag, right and wrong."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim.canonical import BodyKey
from forwarder.auth.dkim.record import (
    MAX_NAMES,
    KeyRecord,
    KeyRecordError,
    Signature,
    SignatureError,
    parse_key,
    parse_signature,
)

BODY_HASH = base64.b64encode(b"h" * 32).decode()
USUAL = {"v": "1", "a": "rsa-sha256", "d": "b.test", "s": "sel", "h": "From:To", "bh": BODY_HASH, "b": "c2ln"}


def written(without: str = "", **tags: str) -> bytes:
    both = {**USUAL, **tags}
    return ";\r\n ".join(f"{name}={text}" for name, text in both.items() if name != without).encode()


def read(**tags: str) -> Signature:
    return parse_signature(written(**tags))


def test_a_signature_with_what_must_be_there() -> None:
    assert read() == Signature(
        domain="b.test",
        selector="sel",
        algorithm="rsa-sha256",
        signature=b"sig",
        text="c2ln",
        body_hash=b"h" * 32,
        names=(b"from", b"to"),
        header_relaxed=False,  # RFC 6376 3.5: simple/simple unless c= says otherwise
        body=BodyKey(relaxed=False),
        identity="@b.test",
        identity_domain="b.test",
        signed_at=None,
        expires=None,
    )
    assert read().key_name == "sel._domainkey.b.test"


def test_a_signature_with_everything() -> None:
    signature = read(
        c="relaxed/relaxed", i="me@Sub.B.test", t="100", x="200", l="5", q="x/y:dns/txt", z="From:a", new="?"
    )
    assert signature.header_relaxed
    assert signature.body == BodyKey(relaxed=True, length=5)
    assert (signature.identity, signature.identity_domain) == ("me@sub.b.test", "sub.b.test")
    assert (signature.signed_at, signature.expires) == (100, 200)


@pytest.mark.parametrize("c", ["simple", "relaxed", "simple/relaxed", "relaxed / simple"])
def test_canonicalisations(c: str) -> None:
    signature = read(c=c)
    assert (signature.header_relaxed, signature.body.relaxed) == (c.startswith("relaxed"), c.endswith("/relaxed"))


def test_folding_inside_values() -> None:
    folded = written(b="c2\r\n ln", bh=BODY_HASH[:9] + "\r\n\t " + BODY_HASH[9:], h="From :\r\n To", i="a \r\n @b.test")
    assert parse_signature(folded) == read(i="a@b.test")


def test_international_domains() -> None:
    signature = read(d="Bücher.example".lower(), s="schlüssel", i="jörg@lesen.bücher.example")
    assert signature.domain == "xn--bcher-kva.example"  # RFC 8616 4
    assert signature.key_name == "xn--schlssel-95a._domainkey.xn--bcher-kva.example"
    assert signature.identity == "jörg@lesen.xn--bcher-kva.example"


@pytest.mark.parametrize("name", list(USUAL))
def test_a_tag_is_missing(name: str) -> None:
    with pytest.raises(SignatureError, match=f"{name}= is missing"):
        parse_signature(written(without=name))


@pytest.mark.parametrize("names", ["From:To:", ":From:To", "From::To", "From : To :"])
def test_names_that_signers_leave_out_count_for_nothing(names: str) -> None:
    assert read(h=names).names == (b"from", b"to")


@pytest.mark.parametrize(
    "tags",
    [
        *({"v": v} for v in ("", "0.5", "2", "1 1")),
        *(
            {"d": d}
            for d in ("", "a b", "b.test.", ".", "b..test", "[192.0.2.1]", "a@b", "x" * 256, "\u2603\u200d.test")
        ),
        *({"s": s} for s in ("", "a b", "a..b", "x" * 64, ".".join(["x" * 60] * 5))),
        {"s": ".".join(["x" * 49] * 3), "d": ".".join(["y" * 49] * 2)},
        *({"i": i} for i in ("", "b.test", "@c.test", "@ab.test", "a@test", "me@b.test@c.test", "@b.test.")),
        *({"h": h} for h in ("", "To", ":", "To:", "Fröm:From", "X From", "From:a\u212a")),
        {"h": "From:" + ":".join(["x"] * MAX_NAMES)},
        *({"bh": bh} for bh in ("", "=", "a", BODY_HASH[:-1], base64.b64encode(b"h" * 31).decode(), "é", "Y Q")),
        *({"b": b} for b in ("", "=", "abc", "c2ln!", "c2ln=", "é", "c2ln====")),
        *({"c": c} for c in ("", "Relaxed", "nowsp", "simple/", "relaxed/x", "simple/simple/simple")),
        *({name: time} for name in "tx" for time in ("", "-1", "1.0", "1" * 13, "٣", "0x1")),
        {"t": "100", "x": "100"},
        {"t": "100", "x": "99"},
        *({"l": length} for length in ("", "-1", "1" * 77, "1 2", "٣")),
        *({"q": q} for q in ("", "dns", "x/y", "dns/txt2")),
        {"a": "rsa-sha1"},  # with a hash of 32 octets
    ],
)
def test_a_tag_is_wrong(tags: dict[str, str]) -> None:
    with pytest.raises(SignatureError, match=r"\w"):
        read(**tags)


def test_a_tag_is_there_twice() -> None:
    with pytest.raises(SignatureError, match="twice"):
        parse_signature(written() + b"; d=c.test")


def test_the_longest_numbers() -> None:
    assert read(l="9" * 76).body.length == int("9" * 76)
    assert read(t="0", x="9" * 12).expires == int("9" * 12)


def test_algorithms_are_judged_later() -> None:
    assert read(a="rsa-sha512", bh="YQ==").algorithm == "rsa-sha512"
    assert read(a="rsa-sha1", bh=base64.b64encode(b"h" * 20).decode()).algorithm == "rsa-sha1"


ARC = {"i": "3", "h": "to"}


def test_a_message_signature_of_arc() -> None:
    signature = parse_signature(written(without="v", **ARC), arc=True)
    assert (signature.instance, signature.names, signature.identity) == (3, (b"to",), "")
    assert parse_signature(written(**ARC | {"i": "50"}), arc=True).instance == 50


@pytest.mark.parametrize("instance", ["", "0", "51", "03", "-1", "x", "٣", "100"])
def test_an_instance_that_is_none(instance: str) -> None:
    with pytest.raises(SignatureError, match="i="):
        parse_signature(written(**ARC | {"i": instance}), arc=True)
    with pytest.raises(SignatureError, match="i= is missing"):
        parse_signature(written(), arc=True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("p=YQ==", KeyRecord("rsa", b"a", testing=False, exact_domain=False)),
        ("v=DKIM1; k=rsa; p=Y Q==", KeyRecord("rsa", b"a", testing=False, exact_domain=False)),
        ("k=ed25519; p=YQ==", KeyRecord("ed25519", b"a", testing=False, exact_domain=False)),
        ("v=DKIM1; t=y; p=", KeyRecord("rsa", b"", testing=True, exact_domain=False)),
        ("p=YQ==; t = x : s; n=note; new=?", KeyRecord("rsa", b"a", testing=False, exact_domain=True)),
        ("v=DKIM1;h=sha1:sha256;s=email:tlsrpt;t=y:s;p=YQ==;", KeyRecord("rsa", b"a", testing=True, exact_domain=True)),
        ("s=*; h=new:sha256; g=x; p=YQ==", KeyRecord("rsa", b"a", testing=False, exact_domain=False)),
    ],
)
def test_key_records(text: str, key: KeyRecord) -> None:
    assert parse_key(text.encode()) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=DKIM1",
        "v=spf1 -all",
        "v=DKIM2; p=YQ==",
        "v=dkim1; p=YQ==",
        "p=YQ==; v=DKIM1",
        "p=YQ",
        "p=*",
        "p=é",
        "k=dsa; p=YQ==",
        "k=RSA; p=YQ==",
        "h=sha1; p=YQ==",
        "h=; p=YQ==",
        "s=tlsrpt; p=YQ==",
        "s=; p=YQ==",
        "p=YQ==;p=YQ==",
    ],
)
def test_what_is_no_key_record(text: str) -> None:
    with pytest.raises(KeyRecordError, match=r"\w"):
        parse_key(text.encode())


# A tag list in which anything may be wrong, but usually only a little is.
values = st.one_of(
    st.sampled_from([*USUAL.values(), "relaxed/relaxed", "me@b.test", "100", "DKIM1", "y:s", "email", "ed25519", ""]),
    st.text("abA1٣é=;:@./ \t\r\n\x00\u2028", max_size=8),
)
names = st.sampled_from([*USUAL, "c", "i", "t", "x", "l", "q", "p", "k", "n"])
lists = st.dictionaries(names, values).map(
    lambda tags: "; ".join(f"{n}={v}" for n, v in tags.items()).encode("utf-8", "replace")
)
anything = st.one_of(
    st.binary(max_size=80), lists, st.dictionaries(names, values, max_size=2).map(lambda tags: written(**tags))
)


@given(anything, st.booleans())
def test_a_signature_or_the_defined_error(text: bytes, arc: bool) -> None:
    try:
        signature = parse_signature(text, arc=arc)
    except SignatureError as error:
        assert str(error)
        assert str(error).isprintable()
    else:
        assert signature.signature
        assert signature.names
        assert len(signature.key_name) <= 253
        assert signature.identity_domain == signature.domain or signature.identity_domain.endswith(
            "." + signature.domain
        )


@given(anything)
def test_a_key_record_or_the_defined_error(text: bytes) -> None:
    try:
        assert parse_key(text).kind in ("rsa", "ed25519")
    except KeyRecordError as error:
        assert str(error)
