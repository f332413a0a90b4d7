"""Replies on the wire: their form, and that no text makes two of one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.reply import Reply
from forwarder.smtp.replies import MAX_LINE, MAX_LINES, encode

_WIRE = re.compile(rb"(?:(\d{3})-[^\r\n]*\r\n)*(\d{3}) [^\r\n]*\r\n")


def test_one_line() -> None:
    assert encode(Reply(250, "2.1.0", "Sender OK")) == b"250 2.1.0 Sender OK\r\n"


def test_no_enhanced_code_where_there_is_none() -> None:
    assert encode(Reply(354, "", "Go ahead")) == b"354 Go ahead\r\n"


def test_lines_of_ehlo() -> None:
    assert (
        encode(Reply(250, "", "mx.example\nSIZE 1\nPIPELINING"))
        == b"250-mx.example\r\n250-SIZE 1\r\n250 PIPELINING\r\n"
    )


def test_enhanced_code_stands_on_every_line() -> None:
    assert encode(Reply(550, "5.1.1", "one\ntwo")) == b"550-5.1.1 one\r\n550 5.1.1 two\r\n"


def test_no_text() -> None:
    assert encode(Reply(250, "2.0.0", "")) == b"250 2.0.0 \r\n"


@pytest.mark.parametrize("enhanced", ["5", "5.1", "5.1.1\r\n", "5.1.1 x", "3.1.1", "5.1.1000", "x", "５.1.1"])
def test_malformed_enhanced_code_is_left_out(enhanced: str) -> None:
    assert encode(Reply(550, enhanced, "no")) == b"550 no\r\n"


def test_enhanced_code_of_another_class_is_left_out() -> None:
    assert encode(Reply(451, "5.1.1", "no")) == b"451 no\r\n"


@pytest.mark.parametrize("code", [0, -1, 25, 199, 600, 2500])
def test_code_out_of_range_is_temporary(code: int) -> None:
    assert encode(Reply(code, "", "what")) == b"451 what\r\n"


def test_row_25_line_ends_in_text_stay_one_reply() -> None:
    assert encode(Reply(451, "4.3.0", "bad\r\n250 2.0.0 fine")) == b"451-4.3.0 bad?\r\n451 4.3.0 250 2.0.0 fine\r\n"


def test_row_51_controls_are_replaced() -> None:
    assert encode(Reply(550, "", "a\x1b[31m\rb\x00\x7f\t")) == b"550 a?[31m?b???\r\n"


def test_text_is_ascii_unless_asked() -> None:
    assert encode(Reply(550, "", "Zoë")) == b"550 Zo?\r\n"
    assert encode(Reply(550, "", "Zoë"), utf8=True) == "550 Zoë\r\n".encode()


def test_utf8_text_has_no_controls_either() -> None:
    assert encode(Reply(550, "", "a\x85\u2028\u202e\ud800b"), utf8=True) == b"550 a????b\r\n"


def test_long_text_is_wrapped_at_spaces() -> None:
    wire = encode(Reply(550, "5.7.1", "word " * 300))
    lines = wire.split(b"\r\n")[:-1]
    assert len(lines) == 3
    assert all(set(line[10:].split(b" ")) <= {b"word", b""} for line in lines)


def test_long_word_is_cut_between_characters() -> None:
    wire = encode(Reply(550, "", "é" * 600), utf8=True)
    assert "".join(line[4:] for line in wire.decode().split("\r\n")[:-1]) == "é" * 600


@given(st.integers(), st.text(max_size=10), st.text(max_size=3000), st.booleans())
def test_any_reply_is_one_bounded_reply(code: int, enhanced: str, text: str, utf8: bool) -> None:
    wire = encode(Reply(code, enhanced, text), utf8=utf8)
    assert _WIRE.fullmatch(wire)
    lines = wire.split(b"\r\n")[:-1]
    assert len({line[:3] for line in lines}) == 1
    assert len(lines) <= MAX_LINES
    assert all(len(line) + 2 <= MAX_LINE for line in lines)
    wire.decode("utf-8" if utf8 else "ascii")


@given(st.text(alphabet="ab \n", max_size=60_000))
def test_a_huge_text_is_bounded(text: str) -> None:
    assert len(encode(Reply(550, "", text * 20))) <= MAX_LINE * MAX_LINES
