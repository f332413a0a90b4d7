"""Policy records: what is one, and what each tag comes to (RFC 9989 4.7, 4.8, 4.10.1)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forwarder.auth.dmarc.record import MAX_OCTETS, Alignment, DmarcRecord, Policy, Psd, parse_record, select_record


def parsed(text: str) -> DmarcRecord:
    record = parse_record(text.encode())
    assert record is not None
    return record


@pytest.mark.parametrize(
    "text",
    [
        "v=DMARC1",
        "v=DMARC1;",
        "v=DMARC1; p=none",
        "v = DMARC1 ; p = none ;",
        "v\t=\tDMARC1\t;p=none",
        "V=DMARC1;p=none",
        "v=DMARC1;;;",
        "v=DMARC1; garbage; =; p",
    ],
)
def test_what_is_a_record(text: str) -> None:
    assert parse_record(text.encode()) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " v=DMARC1; p=reject",
        "v=dmarc1; p=reject",
        "v=DMARC2; p=reject",
        "v=DMARC10; p=reject",
        "v=DMARC1 p=reject",
        "p=reject; v=DMARC1",
        "v=spf1 -all",
        "vv=DMARC1; p=reject",
        ";v=DMARC1; p=reject",
        "v=DMARC1; p=reject; x=" + "y" * MAX_OCTETS,
    ],
)
def test_what_is_none(text: str) -> None:
    assert parse_record(text.encode()) is None


@pytest.mark.parametrize(
    ("text", "usable", "policies"),
    [
        ("p=none", True, (Policy.NONE, None, None)),
        ("p=quarantine", True, (Policy.QUARANTINE, None, None)),
        ("p=reject", True, (Policy.REJECT, None, None)),
        ("P=Reject", True, (Policy.REJECT, None, None)),
        ("p=reject ", True, (Policy.REJECT, None, None)),
        ("sp=none; np=quarantine; p=reject", True, (Policy.REJECT, Policy.NONE, Policy.QUARANTINE)),
        ("p=none; p=reject", True, (Policy.NONE, None, None)),
        ("p=reject; pct=0; rf=afrf; ri=1; zz=top", True, (Policy.REJECT, None, None)),
        ("p=reject; adkim", True, (Policy.REJECT, None, None)),
        ("p=rejct", False, (Policy.NONE, None, None)),
        ("p=", False, (Policy.NONE, None, None)),
        ("sp=reject", False, (Policy.NONE, Policy.REJECT, None)),
        ("sp=reject; rua=mailto:a@b.example", True, (Policy.NONE, Policy.REJECT, None)),
        ("p=rejct; sp=reject; rua=mailto:a@b.example", True, (Policy.NONE, None, None)),
        ("p=rejct; rua=nonsense", False, (Policy.NONE, None, None)),
        ("p=rejct; rua=mailto:nobody", False, (Policy.NONE, None, None)),
        ("p=rejct; rua=", False, (Policy.NONE, None, None)),
        ("p=rejct; rua=nonsense, https://b.example/report", True, (Policy.NONE, None, None)),
        ("p=reject; sp=rejct", False, (Policy.NONE, None, None)),
        ("p=reject; np=rejct", False, (Policy.NONE, None, None)),
        ("p=reject; sp=rejct; rua=mailto:a@b.example", True, (Policy.NONE, None, None)),
        ("p=reject; np=rejct; rua=mailto:a@b.example", True, (Policy.NONE, None, None)),
        ("p=réject", False, (Policy.NONE, None, None)),
    ],
)
def test_policies(text: str, usable: bool, policies: tuple[Policy, Policy | None, Policy | None]) -> None:
    record = parsed("v=DMARC1; " + text)
    assert (record.usable, (record.policy, record.subdomains, record.nonexistent)) == (usable, policies)


@pytest.mark.parametrize(
    ("tag", "dkim", "spf"),
    [
        ("", Alignment.RELAXED, Alignment.RELAXED),
        ("adkim=s", Alignment.STRICT, Alignment.RELAXED),
        ("aspf=S", Alignment.RELAXED, Alignment.STRICT),
        ("adkim=r;aspf=r", Alignment.RELAXED, Alignment.RELAXED),
        ("adkim=strict;aspf=x", Alignment.RELAXED, Alignment.RELAXED),
    ],
)
def test_alignment(tag: str, dkim: Alignment, spf: Alignment) -> None:
    record = parsed("v=DMARC1; p=none; " + tag)
    assert (record.dkim, record.spf) == (dkim, spf)


@pytest.mark.parametrize(
    ("tag", "psd", "testing"),
    [
        ("", Psd.UNKNOWN, False),
        ("psd=y", Psd.YES, False),
        ("psd=N", Psd.NO, False),
        ("psd=u; t=n", Psd.UNKNOWN, False),
        ("psd=yes; t=yes", Psd.UNKNOWN, False),
        ("t=Y", Psd.UNKNOWN, True),
    ],
)
def test_place_and_test_mode(tag: str, psd: Psd, testing: bool) -> None:
    record = parsed("v=DMARC1; p=none; " + tag)
    assert (record.psd, record.testing) == (psd, testing)


@pytest.mark.parametrize(
    ("value", "options"),
    [("0", "0"), ("1", "1"), ("d:s", "ds"), ("0:d", "0d"), ("D", "d"), ("0:1", "0"), ("d:d", "0"), ("x", "0")],
)
def test_failure_options(value: str, options: str) -> None:
    assert parsed(f"v=DMARC1; p=none; fo={value}").options == frozenset(options)


def test_report_addresses_come_without_their_obsolete_size() -> None:
    record = parsed("v=DMARC1; p=none; rua=mailto:a@b.example!10m , mailto:c@d.example?x=y; ruf=https://e.example/f")
    assert record.aggregate == ("mailto:a@b.example", "mailto:c@d.example?x=y")
    assert record.failure == ("https://e.example/f",)


def test_the_text_is_one_short_printable_line() -> None:
    record = parsed("v=DMARC1; p=none; x=\r\n\x1bé" + "y" * 1000)
    assert record.text.startswith("v=DMARC1; p=none; x=???")
    assert record.text.isascii() and record.text.isprintable() and len(record.text) == 403


def test_several_records_cancel_each_other() -> None:
    one, two = b"v=DMARC1; p=none", b"v=DMARC1; p=reject"
    assert select_record([one, two]) is None
    assert select_record([one, one]) is None
    assert select_record([]) is None
    chosen = select_record([b"v=spf1 -all", two, b"v=DMARC2"])
    assert chosen is not None and chosen.policy is Policy.REJECT


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"v=DMARC1;" + tail)))
def test_any_octets_are_a_record_or_none(octets: bytes) -> None:
    record = parse_record(octets)
    if record is not None:
        assert record.text.isascii() and record.text.isprintable()
        assert record.usable or record.policy is Policy.NONE


TAGS = st.sampled_from(["p", "sp", "np", "rua", "ruf", "fo", "psd", "t", "adkim", "aspf", "pct", "x"])
VALUES = st.sampled_from(["none", "quarantine", "reject", "y", "n", "u", "r", "s", "0:1", "mailto:a@b.c", "", " ", "!"])


@given(st.lists(st.tuples(TAGS, VALUES), max_size=12))
@example([("p", "none"), ("sp", "")])
@example([("p", ""), ("p", "reject")])
def test_any_tags_make_a_record(tags: list[tuple[str, str]]) -> None:
    record = parsed("v=DMARC1" + "".join(f";{name}={value}" for name, value in tags))
    first = {name: value for name, value in reversed(tags) if value.strip()}  # RFC 9989 4.8: one without is no tag
    bad = any(first.get(tag, "none") not in ("none", "quarantine", "reject") for tag in ("p", "sp", "np"))
    assert record.usable == (("p" in first and not bad) or bool(record.aggregate))
    assert not bad or record.policy is Policy.NONE
