"""Local parts as rules see them: folded for comparison, with and without their tag; globs as expressions.

Comparison is without case in every script: NFC, case folding, NFC again (RFC 5321 2.4 asks hosts to avoid local
parts that differ by case alone). What is substituted into targets keeps the spelling that the sender used.
"""

import re
from dataclasses import dataclass
from unicodedata import normalize

SEPARATOR = "+"  # between a name and its tag


@dataclass(frozen=True, slots=True)
class Name:
    """The local part of one recipient. `base` is the folded part before the first "+", "" if there is no tag."""

    written: str
    folded: str
    base: str

    @property
    def tag(self) -> str:
        """What follows the first "+", as it was written; "" if nothing does."""
        return self.written.partition(SEPARATOR)[2]


def fold(local: str) -> str:
    """Give what all spellings of one local part have in common."""
    if local.isascii():
        return local.lower()
    return normalize("NFC", normalize("NFC", local).casefold())


def name_of(local: str) -> Name:
    """Split a local part at its tag."""
    folded = fold(local)
    base, separator, _ = folded.partition(SEPARATOR)
    return Name(local, folded, base if separator else "")


def is_glob(text: str) -> bool:
    """Whether a name holds a wildcard: "*" is any run of characters, none too; "?" is exactly one."""
    return "*" in text or "?" in text


def glob_expression(glob: str, *, tags: bool) -> str:
    """Give the RE2 expression of a folded glob. With `tags` it also matches when only the part before the tag does."""
    whole = _translate(glob, ".")
    if not tags or SEPARATOR in glob:
        return whole
    return rf"{whole}|{_translate(glob, '[^+]')}\+.*"


def _translate(glob: str, any_one: str) -> str:
    pieces = re.split(r"(\*+|\?)", glob)
    return "".join(_wildcard(piece, any_one) if at % 2 else re.escape(piece) for at, piece in enumerate(pieces))


def _wildcard(piece: str, any_one: str) -> str:
    return any_one if piece == "?" else any_one + "*"
