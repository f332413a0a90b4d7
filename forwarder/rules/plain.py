"""The most common line by far, `name -> address`, kept as text until it is asked for.

100,000 rules as objects would be a million objects, which take a second to make, and over which every full pass of the
garbage collector holds the process for longer than a session may wait. So a plain line is known by its number alone and
becomes a `Rule` when somebody writes to it; a line is plain only if nothing in it can be wrong. `read_line` would make
the same rule of it.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable

from forwarder.model.address import Address, AddressError, canonical_name
from forwarder.model.destination import Destination
from forwarder.rules.rule import Kind, Place, Rule
from forwarder.rules.targets import Send

_ATOM = r"[A-Za-z0-9_=~-]+"
_LOCAL = rf"{_ATOM}(?:[.+]{_ATOM})*"
_PLAIN = re.compile(
    rf"[ \t]*({_LOCAL})[ \t]+->[ \t]+({_LOCAL})@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)[ \t]*(?:(?<=[ \t])#.*)?"
)
_MAX_LENGTH = 250  # characters: too short for an address in it to be too long


class Lines:
    """The lines of all files, numbered through from 0."""

    __slots__ = ("_domains", "_files", "_starts", "_texts")

    def __init__(self) -> None:
        self._files: list[str] = []
        self._starts: list[int] = []
        self._texts: list[str] = []
        self._domains: dict[str, str] = {}  # as written -> canonical, "" if it is none

    def add(self, file: str, lines: Iterable[str]) -> int:
        """Take in the lines of one more file; give the number of the first."""
        start = len(self._texts)
        self._files.append(file)
        self._starts.append(start)
        self._texts.extend(lines)
        return start

    def plain(self, number: int) -> tuple[str, str] | None:
        """Give the name and the target's domain of a plain line, both canonical; None if it is not plain."""
        line = self._texts[number]
        match = _PLAIN.fullmatch(line)
        if match is None or len(line) > _MAX_LENGTH:
            return None
        domain = self._domain(match[3])
        return (match[1].lower(), domain) if domain else None

    def text(self, number: int) -> str:
        """Give a line as written."""
        return self._texts[number]

    def order(self, number: int) -> tuple[int, int]:
        """Give the index of the file of a line, and its number in there from 1."""
        file = bisect_right(self._starts, number) - 1
        return file, number - self._starts[file] + 1

    def target(self, number: int) -> tuple[Destination, Place]:
        """Give where a plain line sends, and where it stands."""
        match = self._match(number)
        file, within = self.order(number)
        place = Place(self._files[file], within, match.start(1) + 1)
        return Destination(Address(match[2], self._domain(match[3]))), place

    def rule(self, number: int) -> Rule:
        """Make the rule of a plain line."""
        name = self._match(number)[1].lower()
        destination, place = self.target(number)
        text = self._texts[number].strip()
        return Rule(Kind.EXACT, name, None, Send((destination,)), None, None, place, text)

    def _match(self, number: int) -> "re.Match[str]":
        match = _PLAIN.fullmatch(self._texts[number])
        assert match is not None, "not a plain line"
        return match

    def _domain(self, text: str) -> str:
        known = self._domains.get(text)
        if known is None:
            try:
                known = canonical_name(text)
            except AddressError:
                known = ""
            self._domains[text] = known
        return known
