"""Where the content of DATA ends, and what is in it.

`DataScanner` is fed what arrived after the 354, in any pieces, and gives back the content with the transparency dots
taken out (RFC 5321 4.5.2), as soon as it is certain. Only CRLF "." CRLF ends the content (RFC 5321 4.1.1.4): a lone
CR or LF never counts as the end of a line, so no two servers can disagree about where this message ends ("SMTP
smuggling"). A message that has one, or a NUL, is refused afterwards: it could not be passed on as it came.

It never fails and never buffers more than four octets of its own. Every step is one operation over a whole piece;
there is none per line. Hashing, storing and size limits are the caller's.
"""

import re
from enum import Enum

from forwarder.model.reply import Reply

MAX_LINE = 998  # octets without CRLF: RFC 5322 2.1.1, RFC 5321 4.5.3.1.6

_END = b"\r\n.\r\n"
_DOT = re.compile(rb"\r\n\.")  # twice as fast as bytes.find, which looks for the last octet first
_BEGINNINGS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")  # of _END, longest first


class Defect(Enum):
    """What makes content impossible to pass on as it came; the value is told to the sender."""

    BARE_CR = "The message has a CR without LF, which RFC 5321 2.3.8 forbids"
    BARE_LF = "The message has an LF without CR, which RFC 5321 2.3.8 forbids"
    NUL = "The message has a NUL octet, which RFC 5322 4 forbids"


class DataScanner:
    """Reads one message.

    `done` says that the end was seen; `rest` is what followed it. `size` counts the octets given back so far,
    `long_line` the octets of the longest line over 998 (0: there is none), `eight_bit` whether any is above 127.
    """

    __slots__ = ("_at_start", "_held", "_line", "defect", "done", "eight_bit", "long_line", "rest", "size")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.size = 0
        self.long_line = 0
        self.eight_bit = False
        self.defect: Defect | None = None
        # The CRLF that ended the DATA command also begins the terminator of an empty message (RFC 5321 4.1.1.4).
        self._held = b"\r\n"
        self._at_start = True
        self._line = 0  # octets of the unfinished line

    def feed(self, chunk: bytes) -> bytes:
        """Take the next octets (any number); give the content that they make certain. Not to be called when `done`."""
        octets = self._held + chunk
        dots = _DOT.search(octets) is not None
        end = octets.find(_END) if dots else -1
        if end >= 0:
            self.done = True
            self.rest = octets[end + len(_END) :]
            self._held = b""
            return self._release(octets[: end + 2], dots)
        self._held = next((part for part in _BEGINNINGS if octets.endswith(part)), b"")
        return self._release(octets[: len(octets) - len(self._held)], dots)

    def refusal(self) -> Reply | None:
        """Give the reply to a message that cannot be passed on as it came; None when nothing is wrong with it."""
        return Reply(550, "5.6.0", self.defect.value) if self.defect else None

    def _release(self, octets: bytes, dots: bool) -> bytes:
        """Unstuff and take note. A piece begins and ends where no CRLF is torn apart, so counting is exact."""
        if not octets:
            return b""
        content = octets.replace(b"\r\n.", b"\r\n") if dots else octets  # RFC 5321 4.5.2
        if self._at_start:
            self._at_start = False
            content = content[2:]
        self.size += len(content)
        self.eight_bit = self.eight_bit or not content.isascii()
        self.defect = self.defect or _defect(content)
        self._measure(content)
        return content

    def _measure(self, content: bytes) -> None:
        """Look for lines over 998 octets, in strides: a stride that holds an LF passes over short lines only."""
        start = -self._line  # where the current line begins, seen from this piece
        while len(content) - start > MAX_LINE:
            last = content.rfind(b"\n", max(start, 0), max(start + MAX_LINE + 2, 0))
            if last < 0:
                last = content.find(b"\n", max(start, 0))
                length = (last - 1 if last >= 0 else len(content)) - start
                self.long_line = max(self.long_line, length if length > MAX_LINE else 0)
            if last < 0:
                break
            start = last + 1
        newest = content.rfind(b"\n", max(start, 0))
        self._line = len(content) - (newest + 1 if newest >= 0 else start)


def _defect(content: bytes) -> Defect | None:
    pairs = content.count(b"\r\n")
    if content.count(b"\r") != pairs:
        return Defect.BARE_CR
    if content.count(b"\n") != pairs:
        return Defect.BARE_LF
    return Defect.NUL if b"\0" in content else None
