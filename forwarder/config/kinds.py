"""The kinds of value that a configuration key may hold: how each is written in TOML, and what it becomes.

A kind reads what tomllib gave into the value that the program works with, or raises `Unfit`, which says of every part
that is wrong what was expected there; and it writes the value back as what TOML can hold. Reading and writing are
inverse: `kind.read(kind.write(value)) == value`. Time and memory are linear in the value. No file is looked at: a path
that reads well may not exist.

Left out on purpose: numbers without a unit where more than one is in use, and what names hosts (`config.hosts`).
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from forwarder.config.units import duration_text, parse_duration, parse_size, size_text

_DAY = 86_400.0  # seconds

Toml = str | int | bool | list["Toml"] | dict[str, "Toml"]


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a value, or with the part of it at `where` (such as `[1]`; "" is the whole)."""

    value: object
    expected: str
    where: str = ""


class Unfit(ValueError):  # noqa: N818 - it says that a value does not fit, which is a finding and no failure
    """The value is not of the kind; `flaws` has every part that is wrong."""

    def __init__(self, *flaws: Flaw) -> None:
        super().__init__("; ".join(flaw.expected for flaw in flaws))
        self.flaws = flaws


class Kind(ABC):
    """How the values of a key are read and written."""

    __slots__ = ()

    @abstractmethod
    def read(self, value: object) -> object:
        """Give the value that the program works with, or raise `Unfit`."""

    def write(self, value: object) -> Toml:
        """Give what TOML holds for a value that `read` gave."""
        return str(value)

    def shown(self, value: object) -> object:
        """Give what an error message may show of a wrong value; secrets are taken out."""
        return value


@dataclass(frozen=True, slots=True)
class Switch(Kind):
    """true or false."""

    def read(self, value: object) -> bool:
        """Take a boolean as it is."""
        if not isinstance(value, bool):
            raise Unfit(Flaw(value, "expected true or false"))
        return value

    def write(self, value: object) -> Toml:
        """Write a boolean."""
        return bool(value)


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number within bounds; with `or_zero` also 0, which then means what that says."""

    low: int
    high: int
    or_zero: str = ""

    def read(self, value: object) -> int:
        """Take a number within the bounds."""
        number = value if isinstance(value, int) and not isinstance(value, bool) else -1
        if self.low <= number <= self.high or (number == 0 and self.or_zero):
            return number
        zero = f" or 0 ({self.or_zero})" if self.or_zero else ""
        raise Unfit(Flaw(value, f"expected a whole number from {self.low} to {self.high}{zero}"))

    def write(self, value: object) -> Toml:
        """Write a number."""
        assert isinstance(value, int)
        return value


@dataclass(frozen=True, slots=True)
class Size(Kind):
    """A number of octets within bounds; `per` is "/s" for a rate."""

    low: str
    high: str
    per: str = ""

    def read(self, value: object) -> int:
        """Give octets."""
        try:
            octets = parse_size(value.removesuffix(self.per)) if isinstance(value, str) else -1
        except ValueError:
            octets = -1
        if not parse_size(self.low) <= octets <= parse_size(self.high) or not str(value).endswith(self.per):
            what = f'a rate such as "100B{self.per}"' if self.per else 'a size such as "50MB" or "1MiB"'
            raise Unfit(Flaw(value, f"expected {what}, from {self.low}{self.per} to {self.high}{self.per}"))
        return octets

    def write(self, value: object) -> Toml:
        """Write it with the largest unit that fits."""
        assert isinstance(value, int)
        return size_text(value) + self.per


@dataclass(frozen=True, slots=True)
class Duration(Kind):
    """Seconds within bounds; `because` says why the upper bound is what it is. With `days`, whole days alone."""

    low: str
    high: str
    because: str = ""
    days: bool = False

    def read(self, value: object) -> float:
        """Give seconds."""
        try:
            seconds = parse_duration(value) if isinstance(value, str) else -1.0
        except ValueError:
            seconds = -1.0
        in_bounds = parse_duration(self.low) <= seconds <= parse_duration(self.high)
        if not in_bounds or (self.days and seconds % _DAY):
            what = 'whole days such as "21d"' if self.days else 'a duration such as "25s" or "1h30m"'
            reason = f": {self.because}" if self.because else ""
            text = f"expected {what}, from {self.low} to {self.high}{reason}"
            raise Unfit(Flaw(value, text))
        return seconds

    def write(self, value: object) -> Toml:
        """Write it with units."""
        assert isinstance(value, float)
        return duration_text(value)


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words."""

    words: type[Enum]

    def read(self, value: object) -> Enum:
        """Give the member of the enumeration."""
        for member in self.words:
            if isinstance(value, str) and value == member.value:
                return member
        names = ", ".join(f'"{member.value}"' for member in self.words)
        raise Unfit(Flaw(value, f"expected one of {names}"))

    def write(self, value: object) -> Toml:
        """Write the word."""
        assert isinstance(value, Enum)
        return str(value.value)


@dataclass(frozen=True, slots=True)
class File(Kind):
    """A file or folder. A relative one is made absolute by whoever reads the whole configuration.

    `absolute` refuses relative ones, `optional` lets "" stand for None, and `secret` says that the file holds secrets:
    what stands here by mistake may be one, so it is not shown unless it is a path.
    """

    absolute: bool = False
    optional: bool = False
    secret: bool = False

    def read(self, value: object) -> Path | None:
        """Give the path."""
        if value == "" and self.optional:
            return None
        if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 1024:
            raise Unfit(Flaw(value, f"expected the name of a file or folder{self._empty()}"))
        path = Path(value)
        if self.absolute and not path.is_absolute():
            raise Unfit(Flaw(value, 'expected an absolute path, one that begins with "/"'))
        return path

    def write(self, value: object) -> Toml:
        """Write the path, "" for None."""
        return "" if value is None else str(value)

    def shown(self, value: object) -> object:
        """Hide what may be a secret in the place of its file's name."""
        return "***" if self.secret else value

    def _empty(self) -> str:
        return ' or ""' if self.optional else ""


@dataclass(frozen=True, slots=True)
class Many(Kind):
    """A list of values of one kind, none of them twice."""

    kind: Kind
    at_least: int = 0

    def read(self, value: object) -> tuple[object, ...]:
        """Give the values in their order."""
        if not isinstance(value, list) or len(value) < self.at_least:
            raise Unfit(Flaw(value, f"expected a list{' with at least one entry' if self.at_least else ''}"))
        values: dict[Hashable, None] = {}
        flaws: list[Flaw] = []
        for number, item in enumerate(value):
            try:
                entry = self.kind.read(item)
            except Unfit as unfit:
                flaws += [Flaw(flaw.value, flaw.expected, f"[{number}]{flaw.where}") for flaw in unfit.flaws]
                continue
            assert isinstance(entry, Hashable)
            if entry in values:
                flaws.append(Flaw(item, "expected each entry once: it is listed twice", f"[{number}]"))
            values[entry] = None
        if flaws:
            raise Unfit(*flaws)
        return tuple(values)

    def write(self, value: object) -> Toml:
        """Write a list."""
        assert isinstance(value, tuple)
        return [self.kind.write(entry) for entry in value]
