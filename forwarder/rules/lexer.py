r"""One line into tokens.

A token is a word, a quoted text, an expression between slashes, an arrow, a comma, or `<>`. `#` at the beginning of a
line or after white space begins a comment, except within quotes and expressions. There is no continuation of lines.
Raises `LineError` where a quote or an expression is not closed. Linear in the line.
"""

import re
from dataclasses import dataclass
from enum import Enum


class LineError(ValueError):
    """The line cannot be understood from this column (from 1) on."""

    def __init__(self, column: int, reason: str) -> None:
        super().__init__(reason)
        self.column = column
        self.reason = reason


class Sort(Enum):
    """What a token is."""

    WORD = "word"
    QUOTED = "quoted text"
    REGEX = "expression"
    ARROW = "->"
    COMMA = "comma"
    END = "end of the line"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a line. `text` is as written, without the slashes of an expression; `column` counts from 1."""

    sort: Sort
    text: str
    column: int

    def __str__(self) -> str:
        """Name it in a message."""
        return "the end of the line" if self.sort is Sort.END else repr(self.text[:80])


_SPACE = re.compile(r"[ \t]*")
_WORD = re.compile(r'(?:"(?:[^"\\]|\\.)*"|(?!->)[^ \t,"])+')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_REGEX = re.compile(r"/((?:[^/\\]|\\.)*)/")
_AFTER_ITEM = re.compile(r"[ \t,]|->|$")


def tokens_of(line: str) -> list[Token]:
    """Split a line; the last token is always END."""
    tokens: list[Token] = []
    position = 0
    pattern_side = True  # expressions stand before the arrow and before `from` only
    while True:
        start = _SPACE.match(line, position).end()  # type: ignore[union-attr] # it matches the empty text too
        if start == len(line) or (line[start] == "#" and (start == 0 or line[start - 1] in " \t")):
            tokens.append(Token(Sort.END, "", start + 1))
            return tokens
        token, position = _token(line, start, pattern_side)
        tokens.append(token)
        if token.sort is Sort.ARROW or (token.text == "from" and len(tokens) > 1):
            pattern_side = False


def _token(line: str, start: int, pattern_side: bool) -> tuple[Token, int]:
    """Read the token that begins at `start`; give it and where it ends."""
    column = start + 1
    if line[start] == ",":
        return Token(Sort.COMMA, ",", column), start + 1
    if line.startswith("->", start):
        return Token(Sort.ARROW, "->", column), start + 2
    if line[start] == "/" and pattern_side:
        match = _REGEX.match(line, start)
        if match is None or not _AFTER_ITEM.match(line, match.end()):
            raise LineError(column, r"the expression is not closed: it ends with / (write \/ for a slash within)")
        return Token(Sort.REGEX, match[1], column), match.end()
    match = _WORD.match(line, start)
    if match is None:
        raise LineError(column, "the quoted text is not closed: a closing quotation mark is missing")
    sort = Sort.QUOTED if _QUOTED.fullmatch(match[0]) else Sort.WORD
    return Token(sort, match[0], column), match.end()


def unquoted(text: str) -> str:
    """Give what a quoted text says."""
    return re.sub(r"\\(.)", r"\1", text[1:-1])
