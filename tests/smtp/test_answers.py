"""Replies of a next hop, whole and in pieces, well-formed and hostile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.reply import Reply
from forwarder.smtp.answers import MAX_LINES, MAX_OCTETS, MAX_TEXT, AnswerError, Answers, printable, quote


def read(octets: bytes, step: int = 0) -> list[Reply]:
    answers, replies = Answers(), []
    for start in range(0, len(octets), step or len(octets) or 1):
        answers.feed(octets[start : start + (step or len(octets))])
        while reply := answers.next():
            replies.append(reply)
    return replies


CASES = [
    (b"250 ok\r\n", [Reply(250, "", "ok")]),
    (b"250 ok\n", [Reply(250, "", "ok")]),
    (b"250\r\n", [Reply(250, "", "")]),
    (b"250 \r\n", [Reply(250, "", "")]),
    (b"250-one\r\n250-two\r\n250 three\r\n", [Reply(250, "", "one\ntwo\nthree")]),
    (b"250-one\r\n250\r\n", [Reply(250, "", "one\n")]),
    (b"550 5.1.1 no such user\r\n", [Reply(550, "5.1.1", "no such user")]),
    (b"550 5.1.1\r\n", [Reply(550, "5.1.1", "")]),
    (b"550-5.1.1 no\r\n550 5.1.1 such user\r\n", [Reply(550, "5.1.1", "no\nsuch user")]),
    (b"550-5.1.1 no\r\n550 5.7.1 other\r\n", [Reply(550, "5.1.1", "no\n5.7.1 other")]),
    (b"550 4.7.1 disagrees\r\n", [Reply(550, "", "4.7.1 disagrees")]),
    (b"220 5.1.1 is not said\r\n", [Reply(220, "", "5.1.1 is not said")]),
    (b"421-4.7.28 Our system\r\n421 4.7.28 has detected\r\n", [Reply(421, "4.7.28", "Our system\nhas detected", True)]),
    (b"250 a\r\n550 b\r\n354 c\r\n", [Reply(250, "", "a"), Reply(550, "", "b"), Reply(354, "", "c")]),
    ("550 Empfänger unbekannt\r\n".encode(), [Reply(550, "", "Empfänger unbekannt")]),
    (b"550 caf\xe9 \x1b[31m\x00\x7f\tx\r\n", [Reply(550, "", "caf? ?[31m?? x")]),
    ("550 a\u202eb\u2028c\ufeff\r\n".encode(), [Reply(550, "", "a?b?c?")]),
    (b"550 a\rb\r\n", [Reply(550, "", "a?b")]),
]


@pytest.mark.parametrize("step", [0, 1, 2, 7])
@pytest.mark.parametrize(("octets", "expected"), CASES)
def test_replies_are_read_in_pieces_of_any_size(octets: bytes, expected: list[Reply], step: int) -> None:
    assert read(octets, step) == expected


@pytest.mark.parametrize(
    "octets",
    [
        *(
            b"hello\r\n",
            b"\r\n",
            b"25\r\n",
            b"2500 ok\r\n",
            b"250_ok\r\n",
            b"150 ok\r\n",
            b"650 ok\r\n",
            b" 250 ok\r\n",
        ),
        *(b"\x00\n", b"250-a\r\n251 b\r\n", b"250-a\r\nb\r\n", b"\xb2\xb550 ok\r\n", b"HTTP/1.1 400 Bad Request\r\n"),
    ],
)
def test_what_is_no_reply_is_an_error(octets: bytes) -> None:
    with pytest.raises(AnswerError, match="malformed"):
        read(octets)
    with pytest.raises(AnswerError, match="malformed"):
        read(octets, 1)


@pytest.mark.parametrize(
    "octets", [b"250-x\r\n" * 20_000, b"2" * 100_000, b"250 " + b"x" * 100_000, b"250-\r\n" * 100_000]
)
@pytest.mark.parametrize("step", [0, 1000])
def test_a_reply_without_end_is_an_error(octets: bytes, step: int) -> None:
    with pytest.raises(AnswerError):
        read(octets, step)


def test_the_bound_holds_for_each_reply_alone() -> None:
    assert len(read(b"250-x\r\n250 y\r\n" * 50_000)) == 50_000


def test_of_a_long_reply_a_part_is_kept() -> None:
    lines = (MAX_OCTETS - 100) // 100
    (reply,) = read((b"550-" + b"x" * 94 + b"\r\n") * lines + b"550 end\r\n")
    assert reply.code == 550
    assert len(reply.text.replace("\n", "")) == MAX_TEXT
    (reply,) = read(b"550-x\r\n" * 1000 + b"550 end\r\n")
    assert reply.text.count("\n") == MAX_LINES - 1


@pytest.mark.parametrize(
    ("octets", "partial"),
    [(b"", False), (b"2", True), (b"250-ok\r\n", True), (b"250 ok\r\n", False), (b"250 ok\r\n2", True)],
)
def test_partial_says_that_something_has_come(octets: bytes, partial: bool) -> None:
    answers = Answers()
    answers.feed(octets)
    answers.next()
    assert answers.partial is partial


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_octets_give_printable_replies_or_the_error(pieces: list[bytes]) -> None:
    answers = Answers()
    try:
        for piece in pieces:
            answers.feed(piece)
            while reply := answers.next():
                assert 200 <= reply.code <= 599
                assert reply.text.replace("\n", "").isprintable()
    except AnswerError as error:
        assert str(error)


@given(st.integers(200, 599), st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_pieces_change_nothing(code: int, lines: list[str]) -> None:
    texts = [line.replace("\n", "").encode("utf-8", "replace") for line in lines]
    octets = b"".join(b"%d-%s\r\n" % (code, text) for text in texts[:-1]) + b"%d %s\r\n" % (code, texts[-1])
    assert read(octets) == read(octets, 1)
    assert len(read(octets)) == 1


@given(st.binary(max_size=100))
def test_printable_is_printable(octets: bytes) -> None:
    assert printable(octets).isprintable()


def test_quoting_gives_one_short_line_of_ascii() -> None:
    assert quote(Reply(550, "5.1.1", "no\nsuch übel user")) == "550 5.1.1 no such ?bel user"
    long = quote(Reply(550, "5.1.1", "x" * 1000))
    assert len(long) == 400
    assert long.endswith("...")


@given(st.text(), st.integers(10, 500))
def test_a_quotation_never_breaks_a_line(text: str, limit: int) -> None:
    line = quote(Reply(550, "5.0.0", text), limit)
    assert len(line) <= limit
    assert all(" " <= character <= "~" for character in line)
