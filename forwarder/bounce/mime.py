"""Pieces of MIME that are 7-bit whatever goes in: text, parts, header fields (RFC 2045, 2046, 2047).

Nothing here fails. What comes from a peer passes through `one_line` or one of the encodings, so that it can end
neither a line nor a part. Left out on purpose: reading MIME.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import Header as EncodedWords
from textwrap import wrap

from forwarder.model.address import Address
from forwarder.smtp.replies import printable

MAX_LINE = 998  # RFC 5322 2.1.1, without CRLF
WIDTH = 78  # RFC 5322 2.1.1: what a line should keep to

_ESCAPED = re.compile(rb"[^\t !-<>-~]|[\t ]\Z")  # RFC 2045 6.7, rules 1 to 3
# 76 characters with the "=" of the soft break (rule 5), never inside of an escape.
_PIECE = re.compile(rb".{1,73}(?:(?<==)..|(?<==.).)?")
_NOT_SEVEN_BIT = re.compile(rb"[\x00\x80-\xff]|\r(?!\n)|(?<!\r)\n")


@dataclass(frozen=True, slots=True)
class Part:
    """A body part; `body` is already in the `encoding`."""

    type: str
    body: bytes
    encoding: str = "7bit"
    description: str = ""

    def __bytes__(self) -> bytes:
        """Give its header fields, the blank line and its body."""
        fields = [f"Content-Type: {self.type}", f"Content-Transfer-Encoding: {self.encoding}"]
        if self.description:
            fields.append(f"Content-Description: {self.description}")
        return "".join(f"{line}\r\n" for line in (*fields, "")).encode("ascii") + self.body


def is_seven_bit(octets: bytes) -> bool:
    """Whether octets are 7bit data as they stand (RFC 2045 2.7): short lines, no NUL, CR and LF in pairs only."""
    return not _NOT_SEVEN_BIT.search(octets) and all(len(line) <= MAX_LINE for line in octets.split(b"\r\n"))


def quoted_printable(octets: bytes) -> bytes:
    """Encode octets with lines ended by CRLF so that exactly they come out again (RFC 2045 6.7)."""
    return b"\r\n".join(map(_quoted_line, octets.split(b"\r\n")))


def _quoted_line(line: bytes) -> bytes:
    escaped = _ESCAPED.sub(lambda match: b"=%02X" % match[0][0], line)
    return escaped if len(escaped) <= 76 else b"=\r\n".join(_PIECE.findall(escaped))


def plain_text(lines: Sequence[str], description: str = "") -> Part:
    """Give a text/plain part: as it is where it is ASCII, otherwise quoted-printable UTF-8."""
    octets = "".join(f"{line}\r\n" for line in lines).encode()
    if is_seven_bit(octets):
        return Part("text/plain; charset=us-ascii", octets, description=description)
    return Part("text/plain; charset=utf-8", quoted_printable(octets), "quoted-printable", description)


def one_line(text: str, limit: int) -> str:
    """Give a peer's words as one line for people, at most `limit` characters of them, spaces never doubled."""
    line = " ".join(printable(text, utf8=True).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def paragraph(text: str, indent: str = "") -> list[str]:
    """Break a text into lines; a word is never broken, since it may be an address."""
    return wrap(
        text, WIDTH - 2, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def mailbox(address: Address, hostname: str) -> str:
    """Give an address for a header field; one without a domain is at `hostname`.

    Beyond ASCII there is no 7-bit form of it: an empty group shows it for people (RFC 6857 3.2.1).
    """
    text = shown(address, hostname)
    if text.isascii():
        return text
    return EncodedWords(text, "utf-8", header_name="To").encode(linesep="\r\n") + " :;"


def shown(address: Address, hostname: str) -> str:
    """Give an address on one line, as people write it; one without a domain is at `hostname`."""
    return printable(str(Address(address.local, address.domain or hostname)), utf8=True)


def multipart(parts: Sequence[Part], id: str) -> tuple[str, bytes]:
    """Join parts (RFC 2046 5.1.1); give the boundary and the body.

    The boundary is made of a digest over all parts, so that no part can contain it, whoever wrote it. "=_" keeps it
    apart from all quoted-printable (RFC 2045 6.7).
    """
    octets = [bytes(part) for part in parts]
    boundary = f"=_{id}_{hashlib.sha256(b''.join(octets)).hexdigest()[:24]}"
    delimiter = f"--{boundary}".encode("ascii")
    body = b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in octets)
    return boundary, body + delimiter + b"--\r\n"
