"""From the text of a configuration file to a `Config`, or to every problem in it.

Each key is read by itself, so that one wrong value hides no other. What contradicts something else is looked for
among the keys that are right by themselves. At most `_MAX_PROBLEMS` are told, which bounds the time.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from forwarder.config.contradictions import CHECKS
from forwarder.config.kinds import File, Unfit
from forwarder.config.problems import ConfigError, Problem, joined, printable, shown
from forwarder.config.schema import Config, Section, kinds, sections
from forwarder.config.writing import as_tree
from forwarder.model.address import Address

MAX_SIZE = 1_048_576  # octets; a thousand times what any configuration needs
_MAX_PROBLEMS = 100
_MAX_REASON = 200  # characters
_MAX_NAME = 64  # longer names are no near misses of ours, and comparing is quadratic
_SYNTAX = re.compile(r"(.*) \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)", re.DOTALL)
_SECRET_NAMES = re.compile(r"pass|secret|token|private", re.IGNORECASE)
# What the keys without a default are taken to be while the rest is checked.
_PLACEHOLDERS = {"hostname": "host.invalid", "postmaster": Address("postmaster", "example.invalid"), "rules": Path("/")}

S = TypeVar("S", bound=Section)


def load(path: Path) -> Config:
    """Read a configuration file; raise `ConfigError`."""
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(str(path), [Problem("", "", f"cannot be read: {error.strerror}")]) from None
    if len(octets) > MAX_SIZE:
        raise ConfigError(str(path), [Problem("", "", f"is larger than {MAX_SIZE} octets")])
    try:
        return parse(octets.decode(), str(path))
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        column = error.start - octets.rfind(b"\n", 0, error.start)
        raise ConfigError(str(path), [Problem("", "", "is not UTF-8", line, column)]) from None


def parse(text: str, name: str) -> Config:
    """Read the text of a configuration; `name` is for the messages of the `ConfigError` that it may raise."""
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # int() has a limit of its own, and nesting has the stack's
        raise ConfigError(name, [_syntax(text, error)]) from None
    return read(tree, name)


def read(tree: Mapping[str, object], name: str) -> Config:
    """Read a configuration from what tomllib makes of it; raise `ConfigError`."""
    reader = _Reader()
    config = reader.section(Config, tree)
    reader.contradictions(config)
    if reader.problems:
        raise ConfigError(name, reader.problems[:_MAX_PROBLEMS])
    anchored = _anchored(config, config.state_dir)
    srs = msgspec.structs.replace(anchored.srs, domain=anchored.srs.domain or anchored.hostname)
    return msgspec.structs.replace(anchored, srs=srs)


class _Reader:
    """Collects the problems of one configuration; `_wrong` has the paths of the keys that have one."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._wrong: set[str] = set()

    def section(self, schema: type[S], tree: object, prefix: str = "") -> S:
        """Read one table and those within it; what is wrong there has its default in what is given."""
        if not isinstance(tree, Mapping):
            self._add(prefix[:-1], shown(tree), f"expected a table, [{prefix[:-1]}]")
            return schema()
        self._unknown(schema, tree, prefix)
        values = self._keys(schema, tree, prefix)
        for name, inner in sections(schema):
            values[name] = self.section(inner, tree.get(name, {}), f"{prefix}{name}.")
        return schema(**values)

    def contradictions(self, config: Config) -> None:
        """Look for keys that do not go together, among those that are right by themselves."""
        for check in CHECKS:
            if self._wrong.isdisjoint((check.key, *check.others)) and (expected := check.expected(config)):
                self._add(check.key, shown(_at(config, check.key)), expected)

    def _keys(self, schema: type[Section], tree: Mapping[str, object], prefix: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field, kind in kinds(schema):
            key = field.encode_name
            if key not in tree and not field.required:
                continue
            value = tree.get(key)
            try:
                values[field.name] = kind.read(value)
            except Unfit as unfit:
                self._wrong.add(prefix + key)
                for flaw in unfit.flaws:
                    text = "(missing)" if flaw.value is None else shown(kind.shown(flaw.value))
                    self._add(prefix + key + flaw.where, text, flaw.expected)
                if field.required:
                    values[field.name] = _PLACEHOLDERS[field.name]
        return values

    def _unknown(self, schema: type[Section], tree: Mapping[str, object], prefix: str) -> None:
        known = schema.__struct_encode_fields__
        keys = [field.encode_name for field, _ in kinds(schema)]
        for name, given in tree.items():
            if name not in known and len(self.problems) < _MAX_PROBLEMS:
                value = "***" if _SECRET_NAMES.search(name) else shown(given)
                meant = known if isinstance(given, Mapping) else keys  # only a table is a misspelt table
                self._add(joined(prefix, name), value, f"unknown key{_suggestion(name, meant, prefix)}")

    def _add(self, key: str, value: str, expected: str) -> None:
        self.problems.append(Problem(key, value, expected))


def _suggestion(name: str, known: Sequence[str], prefix: str) -> str:
    """Name the key that may have been meant: one of this table that looks alike, or one of that name elsewhere."""
    if len(name) > _MAX_NAME:
        return ""
    close = difflib.get_close_matches(name, known, n=1)
    elsewhere = [f"{table}.{name}" for table, schema in sections(Config) if name in schema.__struct_encode_fields__]
    if name in Config.__struct_encode_fields__:
        elsewhere.insert(0, name)
    meant = [prefix + close[0]] if close else elsewhere
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _syntax(text: str, error: Exception) -> Problem:
    """Say where the text is no TOML; an error at the end of the document gets the position of the end."""
    match = _SYNTAX.fullmatch(str(error))
    if isinstance(error, RecursionError):
        return Problem("", "", "is nested too deeply")
    if match is None:
        return Problem("", "", "has a value that cannot be read")
    line, column = match[2] or text.count("\n") + 1, match[3] or len(text) - text.rfind("\n")
    return Problem("", "", f"is not TOML: {printable(match[1], _MAX_REASON)}", int(line), int(column))


def _at(config: Config, key: str) -> object:
    tree: Any = as_tree(config)
    for name in key.split("."):
        tree = tree[name]
    return tree


def _anchored(section: S, base: Path) -> S:
    """Make the relative paths of a section and of those within it absolute."""
    changes: dict[str, Any] = {
        field.name: base / path
        for field, kind in kinds(type(section))
        if isinstance(kind, File) and (path := getattr(section, field.name)) is not None
    }
    changes |= {name: _anchored(getattr(section, name), base) for name, _ in sections(type(section))}
    return msgspec.structs.replace(section, **changes)
