"""Header sections of messages, split without being altered.

`split_header` never fails: whatever is not a header field ends the section, as a blank line does. It works on the
octets alone, so that what was split can be joined again to the same octets. Time is linear in the input.
"""

import re
from dataclasses import dataclass

MAX_FIELDS = 10_000  # more are not looked at: mail has dozens, and Gmail takes some thousands at most

# RFC 5322 3.6.8: a field name is printable US-ASCII without the colon; 4.5 lets white space stand before the colon.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")
# What the octets may break off in, so that more of them could still belong to the section.
_UNFINISHED = re.compile(rb"[!-9;-~]+[ \t]*(?:\Z|\r\Z|:)|[ \t]|\r?\Z")


@dataclass(frozen=True, slots=True)
class Field:
    """One header field: its name lower-cased, its octets from the first of the name to its last CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, unfolded (RFC 5322 2.2.3) and stripped."""
        return self.raw.partition(b":")[2].replace(b"\r\n", b"").strip()


@dataclass(frozen=True, slots=True)
class Header:
    """The header section at the beginning of `octets`. `size` leaves out the blank line; `complete` says that the
    section ended within the octets at hand."""

    fields: tuple[Field, ...]
    size: int
    complete: bool

    def all(self, name: bytes) -> tuple[Field, ...]:
        """Give the fields of that (lower-case) name, topmost first."""
        return tuple(field for field in self.fields if field.name == name)


def split_header(octets: bytes) -> Header:
    """Split the header section at the beginning of `octets`, which may be cut off anywhere.

    Of a section with more than `MAX_FIELDS` fields one more than that is given.
    """
    fields: list[Field] = []
    position = 0
    while len(fields) <= MAX_FIELDS and (match := _FIELD.match(octets, position)):
        fields.append(Field(match[1].lower(), match[0]))
        position = match.end()
    rest = octets[position:]
    return Header(tuple(fields), position, complete=b"\n" in rest or not _UNFINISHED.match(rest))
