"""Header sections of messages, split without being altered.

`split_header` never fails: whatever is not a header field ends the section, as a blank line does. It works on the
octets alone, so that what was split can be joined again to the same octets. Time is linear in the input.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

MAX_FIELDS = 10_000  # more are not looked at: mail has dozens, and Gmail takes some thousands at most

# RFC 5322 3.6.8: a field name is printable US-ASCII without the colon; 4.5 lets white space stand before the colon.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*")
# A field that a reader may still heed behind a line that is none, at the beginning of a line.
_TELLING = re.compile(rb"(?<=\n)(from|authentication-results)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*", re.IGNORECASE)
_MAX_BEYOND = 1000
# What the octets may break off in, so that more of them could still belong to the section.
_UNFINISHED = re.compile(rb"[!-9;-~]+[ \t]*(?:\Z|\r\Z|:)|[ \t]|\r?\Z")


class Field(NamedTuple):  # a message has dozens, and a frozen dataclass takes twice the time to make
    """One header field: its name lower-cased, its octets from the first of the name to its last CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, unfolded (RFC 5322 2.2.3) and stripped."""
        return self.raw.partition(b":")[2].replace(b"\r\n", b"").strip()


@dataclass(frozen=True, slots=True)
class Header:
    """The header section at the beginning of some octets.

    `size` leaves out the blank line; `complete` says that the section ended within the octets at hand. `beyond` has
    the From and Authentication-Results fields, with their offsets, that stand between a line that is no field, where
    the section ends, and the first blank line: some readers take them for fields all the same.
    """

    fields: tuple[Field, ...]
    size: int
    complete: bool
    beyond: tuple[tuple[int, Field], ...] = ()
    _named: dict[bytes, list[Field]] = field(init=False, repr=False, compare=False)  # asked for dozens of times

    def __post_init__(self) -> None:
        """Sort the fields by name."""
        named: dict[bytes, list[Field]] = {}
        for each in self.fields:
            named.setdefault(each.name, []).append(each)
        object.__setattr__(self, "_named", named)

    def all(self, name: bytes) -> Sequence[Field]:
        """Give the fields of that (lower-case) name, topmost first."""
        return self._named.get(name, ())


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
    complete = b"\n" in rest or not _UNFINISHED.match(rest)
    return Header(tuple(fields), position, complete, () if rest.startswith(b"\r\n") else _beyond(octets, position))


def _beyond(octets: bytes, position: int) -> tuple[tuple[int, Field], ...]:
    end = octets.find(b"\r\n\r\n", position)
    found = _TELLING.finditer(octets, position, end + 2 if end >= 0 else len(octets))
    return tuple((match.start(), Field(match[1].lower(), match[0])) for match in islice(found, _MAX_BEYOND))
