"""Replies of a next hop: from octets to `Reply` values (RFC 5321 4.2).

`Answers` is fed whatever arrived and gives the replies that are complete. What a next hop says is not to be trusted:
of each reply a bounded part is kept, made printable, and the rest is read over; a reply that never ends, or is not
one, raises `AnswerError`. Time is linear in the octets, memory bounded by `MAX_OCTETS`.

`quote` puts such a reply into a line of ours. Left out on purpose: what a reply means (`smtp.client`).
"""

import re

from forwarder.model.reply import Reply

MAX_OCTETS = 65_536  # of one reply, counted whole; beyond it the connection is given up
MAX_LINES = 32  # kept of one reply: more than any server's list of extensions
MAX_TEXT = 2_048  # characters kept of one reply
MAX_QUOTE = 400  # characters: a reply line is at most 512 octets with its code and CRLF (RFC 5321 4.5.3.1.5)

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)  # the text is optional (RFC 5321 4.2.1)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)")  # RFC 2034 4


class AnswerError(Exception):
    """What arrived is not an SMTP reply, or one without end; the text says which, without octets of the peer."""


class Answers:
    """The replies on one connection, fed in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._seen = 0
        self._code = b""
        self._kept: list[str] = []
        self._room = MAX_TEXT

    @property
    def partial(self) -> bool:
        """Whether octets have arrived that are not a complete reply yet."""
        return bool(self._buffer or self._code)

    def feed(self, octets: bytes) -> None:
        """Take octets that arrived."""
        self._buffer += octets

    def next(self) -> Reply | None:
        """Give the next complete reply, None when more octets are needed; raise `AnswerError`."""
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")  # a bare LF is tolerated
            del self._buffer[: end + 1]
            self._scanned = 0
            self._count(end + 1)
            if self._take(line):
                return self._finish()
        self._scanned = len(self._buffer)
        self._count(0)
        return None

    def _count(self, octets: int) -> None:
        self._seen += octets
        if self._seen + self._scanned > MAX_OCTETS:
            raise AnswerError("the reply is too long")

    def _take(self, line: bytes) -> bool:
        """Take one line; say whether it is the last of its reply."""
        match = _LINE.fullmatch(line)
        if match is None or (self._code and match[1] != self._code):  # RFC 5321 4.2.1: one code on all lines
            raise AnswerError("the reply is malformed")
        self._code = match[1]
        if len(self._kept) < MAX_LINES and self._room > 0:
            text = printable(match[3] or b"")[: self._room]
            self._kept.append(text)
            self._room -= len(text)
        return match[2] != b"-"

    def _finish(self) -> Reply:
        code, lines = int(self._code), self._kept
        self._code, self._kept, self._room, self._seen = b"", [], MAX_TEXT, 0
        enhanced = _enhanced(code, lines[0])
        if enhanced:
            lines = [_without(line, enhanced) for line in lines]
        return Reply(code, enhanced, "\n".join(lines), close=code == 421)


def printable(octets: bytes) -> str:
    """Give octets of a stranger as printable characters: UTF-8 where it is valid, "?" for all else."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        text = octets.decode("ascii", "replace")
    if text.isprintable():
        return text.replace("\ufffd", "?")
    return "".join(c if c.isprintable() and c != "\ufffd" else "?" for c in text.replace("\t", " "))


def quote(reply: Reply, limit: int = MAX_QUOTE) -> str:
    """Give a next hop's reply as one line of ASCII for a reply of ours (RFC 6531 3.7.4.1: no UTF-8 there)."""
    line = "".join(c if " " <= c <= "~" else "?" for c in str(reply))
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _enhanced(code: int, line: str) -> str:
    match = _ENHANCED.match(line)
    # RFC 2034 4: its first digit is that of the code; where they disagree the code counts and the text stays whole
    return match[1] if match and match[1][0] == str(code)[0] else ""


def _without(line: str, enhanced: str) -> str:
    match = _ENHANCED.match(line)
    return line[match.end() :] if match and match[1] == enhanced else line
