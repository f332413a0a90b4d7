"""Row 42: no field that claims to be ours comes in, whatever it looks like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.forged import claims, forged_fields
from forwarder.model.headers import split_header

US = "mx.ours.example"


def removed(octets: bytes) -> list[bytes]:
    return [octets[start:end] for start, end in forged_fields(split_header(octets + b"\r\n"), US)]


@pytest.mark.parametrize(
    "field",
    [
        b"Authentication-Results: mx.ours.example; spf=pass\r\n",
        b"authentication-RESULTS: MX.Ours.EXAMPLE; spf=pass\r\n",
        b"Authentication-Results :mx.ours.example;spf=pass\r\n",
        b"Authentication-Results:\r\n mx.ours.example\r\n\t; spf=pass\r\n",
        b"Authentication-Results: mx.ours.example. ; spf=pass\r\n",
        b"Authentication-Results: mx.ours.example 2; spf=pass\r\n",
        b"Authentication-Results: mx.ours.example/1; spf=pass\r\n",
        b"Authentication-Results: (a (nested \\) comment)) mx.ours.example; spf=pass\r\n",
        b"Authentication-Results: (c)mx.ours.example(d); spf=pass\r\n",
        b'Authentication-Results: "mx.ours.example"; spf=pass\r\n',
        b'Authentication-Results: "mx.\\ours.example"; spf=pass\r\n',
        b"Authentication-Results: mx . ours . example; spf=pass\r\n",
        b"Authentication-Results: mx.\r\n\tours.example; spf=pass\r\n",
        b'Authentication-Results: "mx.ours" .example; spf=pass\r\n',
        b'Authentication-Results: "mx".ours.example; spf=pass\r\n',
        b'Authentication-Results: m"x.ou"rs.example; spf=pass\r\n',
        b"Authentication-Results: \\mx.ours.example; spf=pass\r\n",
        b"Authentication-Results: mx.ours\\.example; spf=pass\r\n",
        b"Authentication-Results: mx.ours.example 1 ; spf=pass\r\n",
        b"Authentication-Results: mx.ours.example (x) 1 (y); spf=pass\r\n",
        b"Authentication-Results: mx.ours.example. 1; spf=pass\r\n",
        b"Authentication-Results: (" + b"x" * 5000 + b") mx.ours.example; spf=pass\r\n",
        b"Authentication-Results: mx.ours.example\r\n",
        b"Authentication-Results: mx.ours.example none\r\n",
    ],
)
def test_row_42_forged_fields_are_found(field: bytes) -> None:
    assert removed(b"From: a@b\r\n" + field + b"To: c@d\r\n") == [field]


@pytest.mark.parametrize(
    "field",
    [
        b"Authentication-Results: mx.other.example; spf=pass\r\n",
        b"Authentication-Results: mx.ours.example.other.example; spf=pass\r\n",
        b"Authentication-Results: notmx.ours.example; spf=pass\r\n",
        b"Authentication-Results: other.example (mx.ours.example); spf=pass\r\n",
        b"ARC-Authentication-Results: i=1; mx.ours.example; spf=pass\r\n",
        b"X-Note: Authentication-Results: mx.ours.example; spf=pass\r\n",
        b"Authentication-Results: ;\r\n",
        b"Authentication-Results:\r\n",
        b"Authentication-Results: ((((\r\n",
    ],
)
def test_others_are_left_alone(field: bytes) -> None:
    assert removed(b"From: a@b\r\n" + field) == []


@pytest.mark.parametrize("junk", [b"Junk line\r\n", b"Bad Name: x\r\n", b">From a@b\r\n", b": x\r\n", b"\xff: x\r\n"])
def test_a_line_that_is_no_field_hides_none(junk: bytes) -> None:
    forged = b"Authentication-Results: mx.ours.example;\r\n dmarc=pass\r\n"
    assert removed(b"To: a@b\r\n" + junk + b"X: y\r\n" + forged + b"X: y\r\n") == [forged]
    assert removed(junk + b"\r\n" + forged) == []  # the body may say what it likes


def test_an_internationalised_name_has_two_spellings() -> None:
    header = split_header("Authentication-Results: bücher.example; spf=pass\r\n\r\n".encode())
    assert len(forged_fields(header, "xn--bcher-kva.example")) == 1


def test_several_are_found_in_order() -> None:
    one = b"Authentication-Results: mx.ours.example; a=b\r\n"
    assert removed(one + b"From: x@y\r\n" + one + one) == [one] * 3


@given(st.binary(max_size=200))
def test_any_value_is_judged(value: bytes) -> None:
    assert isinstance(claims(value, US), bool)


@given(st.text('mxours.example()"\\ \t;2/', max_size=30))
def test_what_any_tokenizer_could_read_as_ours_is_found(value: str) -> None:
    before = value.partition(";")[0]
    if "(" not in before and '"' not in before and "".join(before.split()).replace("\\", "") == US:
        assert claims(value.encode(), US)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("value", [b"(" * 500_000, b'"' + b"\\" * 500_000, b'"' + b"a" * 500_000, b" " * 500_000])
def test_hostile_values_take_linear_time_and_are_not_trusted(value: bytes) -> None:
    assert claims(value, US) is (b" " not in value)
