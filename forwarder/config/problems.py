"""What is wrong with a configuration, in words: the key, the value as it stands there, what was expected.

Everything shown is one printable line of bounded length, whatever the file held.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MAX_SHOWN = 80
_LARGE = 10**20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `key` is a path such as `delivery.expire`, "" for the file as a whole.

    `line` and `column` count from 1 and are 0 where they are not known: only errors of TOML itself have them.
    """

    key: str
    value: str
    expected: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Write it on one line."""
        return ": ".join(part for part in (self.key, self.value, self.expected) if part)


class ConfigError(Exception):
    """A configuration that cannot be used: `problems` has at least one entry. `name` is the file's."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.name = printable(name, 1024)
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Give `file: key: value: expected …` for every problem, or `file:line:column: …`."""
        places = [f":{problem.line}:{problem.column}" if problem.line else "" for problem in self.problems]
        return [f"{self.name}{place}: {problem}" for place, problem in zip(places, self.problems, strict=True)]


def shown(value: object) -> str:
    """Write a value as it would stand in the file, shortened, on one line."""
    text = "something else"
    match value:
        case str():
            text = f'"{printable(value, _MAX_SHOWN)}"'
        case bool():
            text = "true" if value else "false"
        case int() if abs(value) >= _LARGE:
            text = "a very large number"
        case int() | float() | date() | time():
            text = str(value)
        case Mapping():
            text = "a table"
        case list():
            text = "a list" if value else "an empty list"
    return text


def joined(prefix: str, key: str) -> str:
    """Append a key to a key path, quoted where TOML would have it so."""
    name = printable(key, _MAX_SHOWN)
    return f"{prefix}{name}" if _BARE_KEY.fullmatch(name) else f'{prefix}"{name}"'


def printable(text: str, limit: int) -> str:
    """Escape whatever does not print; shorten what is longer than `limit` characters."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)
