"""Odd bodies: 8-bit, long lines, dots, blank lines, control characters, ends that are missing."""

import random
from collections.abc import Iterator

from tests.corpus.odd import HEADER, Odd, body, odd

_CHUNK = 65_536  # what a receiver is likely to read at once


def bodies() -> Iterator[Odd]:
    """Give them."""
    yield from _ends()
    yield from _eight_bit()
    yield from _lines()
    yield from _dots()
    yield from _text()


def _ends() -> Iterator[Odd]:
    yield body("plain", b"one\r\ntwo\r\n")
    yield body("empty-body", b"")
    yield odd("header-without-blank-line", HEADER)
    yield odd("header-cut-in-a-line", HEADER + b"X-Last: no line end")
    yield odd("nothing-at-all", b"")
    yield odd("one-blank-line", b"\r\n")
    yield odd("blank-line-first", b"\r\nFrom: in@the.body\r\n\r\ntext\r\n")
    yield odd("no-header-only-text", b"just a line of text\r\nand another\r\n")
    yield odd("one-octet", b"x")
    yield body("no-final-line-end", b"the last line has no end")
    yield body("trailing-blank-lines", b"text\r\n" + b"\r\n" * 40)
    yield body("trailing-white-space", b"text \r\ntext\t\r\n \r\n\t \t\r\n   ")


def _eight_bit() -> Iterator[Odd]:
    scramble = random.Random(5321)
    allowed = bytes(octet for octet in range(1, 256) if octet not in b"\r\n")
    lines = (bytes(scramble.choices(allowed, k=scramble.randrange(200))) for _ in range(300))
    yield body("latin-1", "Grüße aus Köln, très drôle\r\n".encode("latin-1"))
    yield body("utf-8", "Grüße 日本語 👩‍👩‍👧 \u2028 \u0085 \u202e\r\n".encode())
    yield body("invalid-utf-8", b"\xc3\x28 \xff\xfe \xed\xa0\x80 \xf8\x88\x80\x80\x80\r\n")
    yield body("every-octet-but-three", allowed + b"\r\n")
    yield body("random-octets", b"\r\n".join(lines) + b"\r\n")
    yield body("random-octets-without-end", b"\r\n".join([bytes(scramble.choices(allowed, k=90)) for _ in range(50)]))
    yield body(
        "mixed-charsets", "ä".encode("latin-1") + "ä".encode() + "я".encode("koi8-r") + "あ".encode("cp932") + b"\r\n"
    )
    yield body("iso-2022-jp", "日本語のメール\r\n".encode("iso-2022-jp"))
    yield odd("byte-order-mark-first", b"\xef\xbb\xbf" + HEADER + b"\r\ntext\r\n")


def _lines() -> Iterator[Odd]:
    for length in (997, 998, 999, 1000, 2048, 10_000, 100_000):
        yield body(f"line-of-{length}", b"short\r\n" + b"x" * length + b"\r\nshort\r\n")
    yield body("line-of-10000-in-8-bit", "ü".encode() * 5_000 + b"\r\n")
    yield body("long-line-without-end", b"y" * 70_000)
    yield body("long-line-of-dots", b"." * 70_000 + b"\r\n")
    yield body("ten-thousand-blank-lines", b"\r\n" * 10_000)
    yield body("lines-of-one-octet", b"x\r\n" * 30_000)


def _dots() -> Iterator[Odd]:
    yield body("dots", b".\r\n..\r\n...\r\n. \r\n.\tx\r\n.x\r\n .\r\n")
    yield body("one-dot", b".")
    yield body("one-dot-line", b".\r\n")
    yield body("only-dots", b".\r\n" * 5_000)
    yield body("stuffed-already", b"..\r\n..x\r\n\r\n..\r\n")
    yield body("dot-before-the-end", b"text\r\n.")
    yield odd("dot-is-the-first-octet", b".From: x@sender.test\r\n\r\ntext\r\n")
    yield odd("dot-is-the-first-line", b".\r\n" + HEADER + b"\r\ntext\r\n")
    for around in range(-3, 4):
        yield _dot_at(_CHUNK + around)
    yield _dot_at(3 * _CHUNK - 1)


def _dot_at(position: int) -> Odd:
    """Give a message with dots at the beginning of lines, one of them at that octet of the content."""
    start = HEADER + b"\r\n"
    filler = position - len(start) - 2
    lines = (b"f" * 76 + b"\r\n") * (filler // 78)
    lines += b"g" * (filler - len(lines)) + b"\r\n"
    return odd(f"dot-at-octet-{position}", start + lines + b".\r\n.\r\n.end\r\n")


def _text() -> Iterator[Odd]:
    yield body(
        "smtp-commands", b"QUIT\r\nRSET\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n250 ok\r\n354 x\r\n"
    )
    yield body("end-of-data-in-text", b"\\r\\n.\\r\\n\r\n.\r\nMAIL FROM:<a@b.test>\r\n.\r\n")
    yield body(
        "control-characters", bytes(range(1, 10)) + b"\x0b\x0c" + bytes(range(14, 32)) + b"\x7f\r\n\x0c\r\n\x1b[31m\r\n"
    )
    yield body("tabs-and-vertical-tabs", b"\t\tx\t\r\n\x0b\x0c\r\n")
    yield body("from-lines", b"From the start\r\n>From here\r\n>>From there\r\nFrom a@b Sun Nov 22 10:00:00 2026\r\n")
    yield body("uuencoded", b"begin 644 x\r\n#0V%T\r\n`\r\nend\r\n")
    yield body(
        "yenc-like", b"=ybegin line=128 size=9 name=x\r\n" + bytes(range(0x80, 0xFF)) + b"=}=n\r\n=yend size=9\r\n"
    )
