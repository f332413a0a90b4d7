"""Messages that cannot be passed on as they are: line ends that servers disagree about, and NUL."""

from collections.abc import Iterator

from tests.corpus.odd import HEADER, NOT_RELAYABLE, Odd, body, header, odd

_SECOND = b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@forward.test>\r\nDATA\r\nsmuggled\r\n"


def hostile() -> Iterator[Odd]:
    """Give them."""
    yield body("nul-in-the-body", b"a\0b\r\n", NOT_RELAYABLE)
    yield header("nul-in-the-header", b"X-Nul: a\0b\r\n", NOT_RELAYABLE)
    yield body("utf-16", "text\r\n".encode("utf-16"), NOT_RELAYABLE)
    yield body("bare-cr", b"a\rb\r\n", NOT_RELAYABLE)
    yield body("bare-lf", b"a\nb\r\n", NOT_RELAYABLE)
    yield body("cr-cr-lf", b"a\r\r\nb\r\n", NOT_RELAYABLE)
    yield body("lf-cr", b"a\n\rb\r\n", NOT_RELAYABLE)
    yield body("cr-before-the-end", b"a\r", NOT_RELAYABLE)
    yield body("lf-before-the-end", b"a\n", NOT_RELAYABLE)
    yield header("bare-lf-in-the-header", b"X-A: a\nX-B: b\r\n", NOT_RELAYABLE)
    yield header("bare-cr-in-the-header", b"X-A: a\rX-B: b\r\n", NOT_RELAYABLE)
    yield odd("lf-lines-throughout", (HEADER + b"\r\ntext\r\n").replace(b"\r\n", b"\n"), NOT_RELAYABLE)
    yield body("bare-cr-after-a-megabyte", b"x" * 70 + b"\r\n" * 500_000 + b"\r", NOT_RELAYABLE)
    yield body("cr-at-a-chunk-boundary", b"z" * (65_535 - len(HEADER) - 2) + b"\r" + b"z\r\n", NOT_RELAYABLE)
    ends = (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n")
    for end in (*ends, b"\r\r\n.\r\r\n", b"\r\n.\r\r\n"):
        shown = end.decode().replace("\r", "cr").replace("\n", "lf").replace("\0", "nul").replace(".", "-dot-")
        yield body(f"smuggling-{shown}", b"first" + end + _SECOND, NOT_RELAYABLE)
