"""How a reply is written on the wire.

`encode` never fails: a code out of range is written as 451, a malformed enhanced code is left out, and whatever in
the text could end a line or move a terminal's cursor becomes "?". So one `Reply` is one reply, whoever supplied its
text (a next hop, an exception, a rule). Lines are at most 512 octets and there are at most 40 of them.

Left out on purpose: reading replies of others (`smtp.client`).
"""

import re

from forwarder.model.reply import Reply

MAX_LINE = 512  # octets with the code and CRLF, RFC 5321 4.5.3.1.5
MAX_LINES = 40

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}", re.ASCII)  # RFC 3463 2
_NOT_ASCII = re.compile(r"[^ -~]")
# C0 and C1 controls, DEL, line and paragraph separators, what turns the direction of writing, lone surrogates.
_NOT_PRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_UNKNOWN_CODE = 451
_SHORT = 400  # characters that fit into one line with any code


def encode(reply: Reply, *, utf8: bool = False) -> bytes:
    """Give the octets of a reply with every CRLF (RFC 5321 4.2.1); text beyond ASCII is kept only with `utf8`."""
    code = reply.code if 200 <= reply.code <= 599 else _UNKNOWN_CODE
    enhanced = _enhanced(code, reply.enhanced)
    if len(reply.text) < _SHORT and reply.text.isascii() and reply.text.isprintable():
        return f"{code} {enhanced}{reply.text}\r\n".encode()
    room = MAX_LINE - len(f"{code} {enhanced}\r\n")
    lines = _lines(reply.text, room, utf8)
    # RFC 5321 4.2.1: a hyphen after the code on all lines but the last; RFC 2034 4: the enhanced code on each line.
    before = f"{code}-{enhanced}".encode()
    octets = b"".join(before + line + b"\r\n" for line in lines[:-1])
    return octets + f"{code} {enhanced}".encode() + lines[-1] + b"\r\n"


def printable(text: str, *, utf8: bool = False) -> str:
    """Replace each character that may not stand in one line of a reply by "?"."""
    return (_NOT_PRINTABLE if utf8 else _NOT_ASCII).sub("?", text)


def _enhanced(code: int, enhanced: str) -> str:
    """Give the enhanced code and a space; "" where there is none of the code's own class (RFC 2034 4)."""
    if _ENHANCED.fullmatch(enhanced) and enhanced[0] == str(code)[0]:
        return enhanced + " "
    return ""


def _lines(text: str, room: int, utf8: bool) -> list[bytes]:
    lines: list[bytes] = []
    for line in text[: room * MAX_LINES].split("\n", MAX_LINES):
        octets = printable(line, utf8=utf8).encode()
        while len(octets) > room:
            end = _break(octets, room)
            lines.append(octets[:end])
            octets = octets[end:].lstrip(b" ")
        lines.append(octets)
        if len(lines) >= MAX_LINES:
            break
    return lines[:MAX_LINES]


def _break(octets: bytes, room: int) -> int:
    """Find where to wrap: at the last space that fits, else between two characters."""
    end = octets.rfind(b" ", 1, room + 1)
    if end > 0:
        return end
    end = room
    while octets[end] & 0xC0 == 0x80:  # never inside a UTF-8 sequence (RFC 3629 3)
        end -= 1
    return end
