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
from forwarder.rules.check import check_routes, duplicates
from forwarder.rules.line import read_line
from forwarder.rules.match import Table, configured, make_table
from forwarder.rules.plain import Lines
from forwarder.rules.rule import Kind, Place, Problem, Rule, RulesError
from forwarder.rules.ruleset import RuleSet

MAX_MERGED = 1_000_000  # rules in all tables of domains with several sections

# Controls but tab and line feed; the line separators of Unicode; a byte order mark within the text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")
_PIECE = 1 << 16  # characters
_HEADER = re.compile(r"[ \t]*\[([^\]]*)\][ \t]*(?:(?<=[ \t])#.*)?")


@dataclass(slots=True)
class _Block:
    """The rules of all sections with the same domains: plain lines by name, and the others in file order."""

    plain: dict[str, int] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)


@dataclass(slots=True)
class _Reading:
    """What has been read so far."""

    blocks: dict[frozenset[str], _Block] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)  # of the first section of each domain
    problems: list[Problem] = field(default_factory=list)
    lines: Lines = field(default_factory=Lines)
    files: dict[str, int] = field(default_factory=dict)  # in which order they came
    total: int = 0


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
    tables = _tables(reading, postmaster)
    problems = [*reading.problems, *duplicates(tables.values())]
    if not problems:
        problems = check_routes(tables, reading.places, postmaster)
    if problems:
        raise RulesError(problems)
    return RuleSet(tables, reading.total, postmaster)


def _read_text(reading: _Reading, file: str, text: str) -> None:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    lines = text.split("\n")
    if _has_controls(text):
        lines = _without_controls(reading, file, lines)
    block: _Block | None = None
    start = reading.lines.add(file, lines)
    reading.files.setdefault(file, len(reading.files))
    for number, line in enumerate(lines, 1):
        plain = reading.lines.plain(start + number - 1)
        if plain is not None and block is not None and plain[0] not in block.plain:
            block.plain[plain[0]] = start + number - 1
            reading.total += 1
        elif line.lstrip(" \t").startswith("["):
            block = _read_header(reading, file, number, line)
        elif rules := _read_other(reading, file, number, line):
            block = block or _no_section(reading, rules[0])
            block.rules.extend(rules)
            reading.total += len(rules)


def _no_section(reading: _Reading, rule: Rule) -> _Block:
    """Report a rule before any section, and give a block for it and the next ones: once is enough."""
    reason = "a rule before any section: write [your.domain] on a line above it"
    reading.problems.append(Problem(*_where(rule.place), reason))
    return _Block()


def _has_controls(text: str) -> bool:
    """Look in pieces, so that other threads get their turn in between."""
    return any(_CONTROL.search(text, at, at + _PIECE) for at in range(0, len(text), _PIECE))


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


def _tables(reading: _Reading, postmaster: Address) -> dict[str, Table]:
    """Give the table of each domain. Domains with the same sections share one."""
    sections: dict[str, list[_Block]] = {}
    for domains, block in reading.blocks.items():
        for domain in domains:
            sections.setdefault(domain, []).append(block)
    groups: dict[tuple[int, ...], list[str]] = {}
    for domain, blocks in sections.items():
        groups.setdefault(tuple(id(block) for block in blocks), []).append(domain)
    if _overlap_too_much(reading, [sections[sharing[0]] for sharing in groups.values()]):
        return {}
    fallback = configured(postmaster)
    tables: dict[str, Table] = {}
    for sharing in groups.values():
        blocks = sections[sharing[0]]
        block = blocks[0] if len(blocks) == 1 else _merged(reading.lines, blocks)
        table = make_table(_in_order(reading, block), block.plain, reading.lines, fallback)
        tables.update(dict.fromkeys(sharing, table))
    return tables


def _overlap_too_much(reading: _Reading, groups: Sequence[Sequence[_Block]]) -> bool:
    merged = sum(len(block.rules) + len(block.plain) for blocks in groups if len(blocks) > 1 for block in blocks)
    if merged <= MAX_MERGED:
        return False
    place = next(iter(reading.places.values()))
    reason = f"the sections overlap too much ({merged:,} rules): put domains with the same rules under one header"
    reading.problems.append(Problem(*_where(place), reason))
    return True


def _merged(lines: Lines, blocks: Sequence[_Block]) -> _Block:
    """Put the sections of one domain together. A name that is plain in several of them is no longer plain."""
    merged = _Block()
    for block in blocks:
        for name, number in block.plain.items():
            if merged.plain.setdefault(name, number) != number:
                merged.rules.append(lines.rule(number))
        merged.rules.extend(block.rules)
    return merged


def _in_order(reading: _Reading, block: _Block) -> list[Rule]:
    """Give the rules of a block that are not plain, in file order; plain ones of the same names go over to them."""
    names = {rule.name for rule in block.rules if rule.kind is Kind.EXACT and rule.name in block.plain}
    rules = [*block.rules, *(reading.lines.rule(block.plain.pop(name)) for name in names)]
    return sorted(rules, key=lambda rule: (reading.files[rule.place.file], rule.place.line, rule.place.column))
