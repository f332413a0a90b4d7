"""Row 42: no field that claims to be ours comes in, whatever it looks like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.forged import forged_fields, identifier
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


def test_an_internationalised_name_has_two_spellings() -> None:
    header = split_header("Authentication-Results: bücher.example; spf=pass\r\n\r\n".encode())
    assert len(forged_fields(header, "xn--bcher-kva.example")) == 1


def test_several_are_found_in_order() -> None:
    one = b"Authentication-Results: mx.ours.example; a=b\r\n"
    assert removed(one + b"From: x@y\r\n" + one + one) == [one] * 3


@given(st.binary(max_size=200))
def test_any_value_has_an_identifier_or_none(value: bytes) -> None:
    assert isinstance(identifier(value), str)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("value", [b"(" * 500_000, b'"' + b"\\" * 500_000, b'"' + b"a" * 500_000, b" " * 500_000])
def test_hostile_values_take_linear_time(value: bytes) -> None:
    assert identifier(value) == ""
