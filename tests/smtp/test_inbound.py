"""The end of DATA and what is in it, against a plain reading of RFC 5321, for every way of cutting the input."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forwarder.smtp.inbound import MAX_LINE, DataScanner, Defect


def plain(octets: bytes) -> tuple[bytes, bytes] | None:
    """Read octet by octet, line by line; give content and what follows, None when the end does not come."""
    content, line = b"", b""
    for position in range(len(octets)):
        line += octets[position : position + 1]
        if line.endswith(b"\r\n"):
            if line == b".\r\n":
                return content, octets[position + 1 :]
            content += line.removeprefix(b".")
            line = b""
    return None


def scan(pieces: list[bytes]) -> tuple[DataScanner, bytes, bytes]:
    """Feed pieces until the end is seen; give the scanner, the content and what is left over."""
    scanner, content, left = DataScanner(), b"", b""
    for piece in pieces:
        if scanner.done:
            left += piece
        else:
            content += scanner.feed(piece)
    return scanner, content, scanner.rest + left


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[a:b] for a, b in pairwise(bounds)]


SNIPPETS = [b"\r\n", b".", b"\r", b"\n", b"\r\n.", b"..", b"\r\n.\r\n", b".\r\n", b"a", b"\0", b"\xff", b"text\r\n"]
wire = st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=5), max_size=30).map(b"".join)


@given(wire, st.lists(st.integers(min_value=0), max_size=40))
@example(b".\r\n", [1])
@example(b"..\r\n.\r\nMAIL", [1, 2, 3, 4])
@example(b"\r\r\n.\r\n", [1, 2, 3])
@example(b"\r\n.\r\r\n.\r\n", [4])
def test_any_octets_in_any_pieces(octets: bytes, places: list[int]) -> None:
    scanner, content, rest = scan(cut(octets, places))
    expected = plain(octets)
    assert scanner.done == (expected is not None)
    if expected:
        assert (content, rest) == expected
        lines = content.split(b"\r\n")
        spoiled = any(set(line) & set(b"\r\n\0") for line in lines)
        assert (scanner.defect is not None) == spoiled
        assert scanner.size == len(content)
        assert scanner.eight_bit == (not content.isascii())


@given(wire)
def test_byte_by_byte_is_as_whole(octets: bytes) -> None:
    whole = scan([octets])
    bytewise = scan([octets[i : i + 1] for i in range(len(octets))])
    assert whole[1:] == bytewise[1:]
    assert whole[0].done == bytewise[0].done
    assert (whole[0].defect is None) == (bytewise[0].defect is None)


@given(wire, st.lists(st.integers(min_value=0), max_size=10))
def test_what_is_given_is_certain(octets: bytes, places: list[int]) -> None:
    """Without an end nothing is lost: what was given and a later end make up the message."""
    scanner, content, _ = scan(cut(octets, places))
    if plain(octets) is None:
        content += scanner.feed(b"\r\n.\r\n")
        assert (content, scanner.rest) == plain(octets + b"\r\n.\r\n")


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    "variant",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r\n.\r",
        b"\r.\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\r\n.\r\r\n",
    ],
)
def test_row_01_only_crlf_dot_crlf_ends(variant: bytes, bytewise: bool) -> None:
    octets = b"one" + variant + b"MAIL FROM:<x@y>\r\n.\r\nQUIT\r\n"
    scanner, content, rest = scan([octets[i : i + 1] for i in range(len(octets))] if bytewise else [octets])
    assert rest == b"QUIT\r\n"
    assert content.endswith(b"MAIL FROM:<x@y>\r\n")
    assert scanner.refusal() is not None


def test_a_cr_before_a_proper_end() -> None:
    """`CR CRLF . CRLF`: the end counts, the lone CR in front of it spoils the message."""
    scanner, content, rest = scan([b"one\r\r\n.\r\nQUIT\r\n"])
    assert (content, rest) == (b"one\r\r\n", b"QUIT\r\n")
    assert scanner.defect is Defect.BARE_CR


@pytest.mark.parametrize(
    ("octets", "defect"), [(b"a\rb", Defect.BARE_CR), (b"a\nb", Defect.BARE_LF), (b"a\0b", Defect.NUL), (b"ab", None)]
)
def test_row_02_defects(octets: bytes, defect: Defect | None) -> None:
    scanner, _, _ = scan([octets + b"\r\n.\r\n"])
    assert scanner.defect is defect
    reply = scanner.refusal()
    if defect is None:
        assert reply is None
    else:
        assert reply is not None
        assert (reply.code, reply.enhanced, reply.text) == (550, "5.6.0", defect.value)


def test_empty_message() -> None:
    scanner, content, rest = scan([b".\r\nRSET\r\n"])
    assert (content, rest, scanner.size) == (b"", b"RSET\r\n", 0)


def test_dots_are_unstuffed() -> None:
    assert scan([b"..\r\n.a\r\n...b\r\nc..\r\n.\r\n"])[1] == b".\r\na\r\n..b\r\nc..\r\n"


@given(st.lists(st.integers(0, 3000), max_size=8), st.lists(st.integers(min_value=0), max_size=10))
@example([MAX_LINE], [])
@example([MAX_LINE + 1], [500])
@example([2000, 10, 1500], [])
def test_row_21_longest_line(lengths: list[int], places: list[int]) -> None:
    octets = b"".join(b"x" * length + b"\r\n" for length in lengths) + b".\r\n"
    scanner, _, _ = scan(cut(octets, places))
    longest = max(lengths, default=0)
    assert scanner.long_line == (longest if longest > MAX_LINE else 0)


def test_row_17_it_keeps_nothing() -> None:
    scanner = DataScanner()
    for _ in range(16):
        assert len(scanner.feed(b"a" * 65_536)) == 65_536
    assert scanner.long_line == 16 * 65_536
