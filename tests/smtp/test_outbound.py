"""Dots doubled and the terminator, whatever the pieces."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.smtp.outbound import stuffed


def plain(content: bytes) -> bytes:
    """The same as RFC 5321 4.5.2 says it, line by line."""
    if not content.endswith(b"\r\n") and content:
        content += b"\r\n"
    lines = content.split(b"\r\n")[:-1]
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


CASES = [
    b"",
    b"\r\n",
    b".",
    b".\r\n",
    b"..\r\n",
    b"a\r\n.b\r\n",
    b"a\r\n.\r\n.\r\n",
    b"a",
    b"a\r",
    b"a\n.b",
    b"\r.\r\n",
]
CASES += [b"\r\n\r\n.\r\n", b"a\r\n.b", b"a\r\r\n.b\r\n", b".\r", b"\n.\n", b"x" * 200_000 + b"\r\n." + b"y" * 200_000]


@pytest.mark.parametrize("content", CASES)
def test_whole_and_octet_by_octet(content: bytes) -> None:
    assert b"".join(stuffed([content])) == plain(content)
    if len(content) < 1000:
        assert b"".join(stuffed(bytes([octet]) for octet in content)) == plain(content)


@given(st.lists(st.text("\r\n.a").map(str.encode)))
def test_pieces_change_nothing(pieces: list[bytes]) -> None:
    assert b"".join(stuffed(pieces)) == plain(b"".join(pieces))


@given(st.lists(st.sampled_from([b"x" * 65_536, b"x" * 65_533 + b"\r\n", b"", b".\r\n", b"x"]), max_size=6))
def test_the_last_piece_holds_the_terminator(pieces: list[bytes]) -> None:
    *before, last = stuffed(pieces)
    assert last.endswith(b".\r\n")
    assert b"".join([*before, last]) == plain(b"".join(pieces))
    assert all(len(piece) >= 65_536 for piece in before)


def test_a_small_message_is_one_piece() -> None:
    assert list(stuffed([b"Received: x\r\n", b"Subject: y\r\n\r\nbody\r\n"])) == [
        b"Received: x\r\nSubject: y\r\n\r\nbody\r\n.\r\n"
    ]


def test_memory_is_flat() -> None:
    line = b".x" * 32_000 + b"\r\n"
    tracemalloc.start()
    try:
        for _ in stuffed(line for _ in range(400)):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000
