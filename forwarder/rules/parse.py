"""Texts into a `RuleSet`, or everything that is wrong with them.

`parse` reads sections (`[example.org, example.net]`) and the lines below them. A domain may have several sections, in
several files: its rules are then those of all of them, in the order of the texts. A byte order mark at the beginning
and CRLF line ends are taken as what they are; other control characters are errors. Faults of single lines,
duplicates, loops and dead ends are all reported at once.

Time and memory are linear in the text: domains that share their sections share one table, and where sections overlap
so much that tables multiply, that is an error. It runs for as long as it takes, in pure Python: a server calls it in a
thread, where it gives way to other threads every few milliseconds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from forwarder.model.address import Address, AddressError, canonical_name
from forwarder.model.destination import Destination
from forwarder.rules.check import check_routes, duplicates
from forwarder.rules.line import read_line
from forwarder.rules.match import Table, make_table
from forwarder.rules.rule import Kind, Place, Problem, Rule, RulesError
from forwarder.rules.ruleset import RuleSet
from forwarder.rules.targets import Send

MAX_MERGED = 1_000_000  # rules in all tables of domains with several sections

# Controls but tab and line feed; the line separators of Unicode; a byte order mark within the text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")
_HEADER = re.compile(r"[ \t]*\[([^\]]*)\][ \t]*(?:(?<=[ \t])#.*)?")
# The most common line by far: `name -> address`. What it matches, `read_line` reads in the same way.
_ATOM = r"[A-Za-z0-9_=~-]+"
_PLAIN = re.compile(
    rf"({_ATOM}(?:[.+]{_ATOM})*)[ \t]+->[ \t]+({_ATOM}(?:[.+]{_ATOM})*)@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)[ \t]*"
)
_PLAIN_MAX = 160  # characters: too short for anything in it to be too long


@dataclass(slots=True)
class _Block:
    """The rules of all sections with the same domains."""

    rules: list[Rule] = field(default_factory=list)


@dataclass(slots=True)
class _Reading:
    """What has been read so far."""

    blocks: dict[frozenset[str], _Block] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)  # of the first section of each domain
    problems: list[Problem] = field(default_factory=list)
    domains: dict[str, str] = field(default_factory=dict)  # as written -> canonical, for common lines


def parse(sources: Sequence[tuple[str, str]], postmaster: Address) -> RuleSet:
    """Read texts, each with its name for messages; raise `RulesError`.

    `postmaster` gets the mail for postmaster and abuse of every domain that has no rule for them.
    """
    reading = _Reading()
    for file, text in sources:
        _read_text(reading, file, text)
    if not reading.blocks and not reading.problems:
        file = sources[0][0] if sources else "rules"
        reading.problems.append(Problem(file, 1, 1, "there are no rules: begin with a section, such as [example.org]"))
    order = {file: at for at, (file, _) in enumerate(sources)}
    tables = _tables(reading, order, postmaster)
    problems = [*reading.problems, *duplicates(tables.values())]
    if not problems:
        problems = check_routes(tables, reading.places, postmaster)
    if problems:
        raise RulesError(problems)
    return RuleSet(tables, sum(len(block.rules) for block in reading.blocks.values()), postmaster)


def _read_text(reading: _Reading, file: str, text: str) -> None:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if _CONTROL.search(text, 1) or text[:1] == "\0":
        lines = _without_controls(reading, file, lines)
    block: _Block | None = None
    plain = _PLAIN.fullmatch
    for number, line in enumerate(lines, 1):
        match = plain(line) if len(line) <= _PLAIN_MAX else None
        if match is not None and block is not None and (rule := _plain_rule(reading, file, number, match)):
            block.rules.append(rule)
        elif line.lstrip(" \t").startswith("["):
            block = _read_header(reading, file, number, line)
        else:
            rules = _read_other(reading, file, number, line)
            if rules and block is None:
                reading.problems.append(
                    Problem(file, number, 1, "a rule before any section: write [your.domain] on a line above it")
                )
                block = _Block()  # said once is enough
            elif block is not None:
                block.rules.extend(rules)


def _without_controls(reading: _Reading, file: str, lines: list[str]) -> list[str]:
    """Report control characters, and blank the lines that hold them."""
    clean = []
    for number, line in enumerate(lines, 1):
        match = _CONTROL.search(line)
        if match:
            character = f"U+{ord(match[0]):04X}"
            reading.problems.append(Problem(file, number, match.start() + 1, f"control character {character}"))
        clean.append("" if match else line)
    return clean


def _plain_rule(reading: _Reading, file: str, number: int, match: "re.Match[str]") -> Rule | None:
    """Read the common line; None if the domain is not a plain one, so that `read_line` says what is wrong."""
    name, local, written = match.groups()
    domain = reading.domains.get(written)
    if domain is None:
        try:
            domain = canonical_name(written)
        except AddressError:
            return None
        reading.domains[written] = domain
    send = Send((Destination(Address(local, domain)),))
    return Rule(Kind.EXACT, name.lower(), None, send, None, None, Place(file, number), match.string)


def _read_other(reading: _Reading, file: str, number: int, line: str) -> list[Rule]:
    def report(column: int, reason: str) -> None:
        reading.problems.append(Problem(file, number, column, reason))

    return read_line(file, number, line, report)


def _read_header(reading: _Reading, file: str, number: int, line: str) -> _Block:
    """Give the block of the section that begins here; a faulty header gives one that is thrown away."""
    match = _HEADER.fullmatch(line)
    if match is None:
        reason = "a section is a line of its own: [example.org, example.net]"
        reading.problems.append(Problem(file, number, 1, reason))
        return _Block()
    domains: set[str] = set()
    column = match.start(1) + 1
    for written in match[1].split(","):
        place = Place(file, number, column + len(written) - len(written.lstrip()))
        if (domain := _header_domain(reading, place, written.strip())) is None:
            pass
        elif domain in domains:
            reading.problems.append(Problem(*_where(place), f"{domain} is listed twice"))
        else:
            domains.add(domain)
            reading.places.setdefault(domain, place)
        column += len(written) + 1
    if not domains:
        return _Block()
    return reading.blocks.setdefault(frozenset(domains), _Block())


def _header_domain(reading: _Reading, place: Place, written: str) -> str | None:
    reason = ""
    if not written:
        reason = "a domain is missing: [example.org]"
    elif "*" in written:
        reason = "a section has no wildcards: name each domain"
    elif "@" in written:
        reason = "a section names domains, not addresses"
    else:
        try:
            return canonical_name(written)
        except AddressError as error:
            reason = f"{written[:80]!r}: {error}"
    reading.problems.append(Problem(*_where(place), reason))
    return None


def _where(place: Place) -> tuple[str, int, int]:
    return place.file, place.line, place.column


def _tables(reading: _Reading, order: dict[str, int], postmaster: Address) -> dict[str, Table]:
    """Give the table of each domain. Domains with the same sections share one."""
    sections: dict[str, list[int]] = {}
    blocks = list(reading.blocks.items())
    for index, (domains, _) in enumerate(blocks):
        for domain in domains:
            sections.setdefault(domain, []).append(index)
    groups: dict[tuple[int, ...], list[str]] = {}
    for domain, indices in sections.items():
        groups.setdefault(tuple(indices), []).append(domain)
    merged = sum(len(blocks[index][1].rules) for indices in groups if len(indices) > 1 for index in indices)
    if merged > MAX_MERGED:
        place = reading.places[next(iter(sections))]
        reason = f"the sections overlap too much ({merged:,} rules): put domains with the same rules under one header"
        reading.problems.append(Problem(*_where(place), reason))
        return {}
    fallback = Rule(
        Kind.FALLBACK, "postmaster", None, Send((Destination(postmaster),)), None, None,
        Place("postmaster of the configuration", 0), f"postmaster = {postmaster}",
    )  # fmt: skip
    tables: dict[str, Table] = {}
    for indices, sharing in groups.items():
        rules = [rule for index in indices for rule in blocks[index][1].rules]
        if len(indices) > 1:
            rules.sort(key=lambda rule: (order[rule.place.file], rule.place.line))
        tables.update(dict.fromkeys(sharing, make_table(rules, fallback)))
    return tables
