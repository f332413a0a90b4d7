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


_REGEX = re.compile(r"/((?:[^/\\]|\\.)*)/(?=[ \t,]|->|$)")
_TOKEN = re.compile(
    r"[ \t]*(?:"
    r"(?P<END>$|(?<![^ \t])\#.*)"  # a comment stands at the beginning or after white space
    r"|(?P<COMMA>,)"
    r"|(?P<ARROW>->)"
    r'|(?P<QUOTED>"(?:[^"\\]|\\.)*"(?=[ \t,]|->|$))'
    r'|(?P<WORD>(?>[^ \t,"-]+|-(?!>)|"(?:[^"\\]|\\.)*")+)'
    r")"
)
_SORTS = {"END": Sort.END, "COMMA": Sort.COMMA, "ARROW": Sort.ARROW, "QUOTED": Sort.QUOTED, "WORD": Sort.WORD}


def tokens_of(line: str) -> list[Token]:
    """Split a line; the last token is always END."""
    tokens: list[Token] = []
    position = 0
    pattern_side = True  # expressions stand before the arrow and before `from` only
    while True:
        match = _TOKEN.match(line, position)
        if match is None:
            column = len(line) - len(line[position:].lstrip(" \t")) + 1
            raise LineError(column, "the quoted text is not closed: a closing quotation mark is missing")
        group = match.lastgroup or "END"
        sort, start, text, position = _SORTS[group], match.start(group), match[group], match.end()
        if sort is Sort.END:
            tokens.append(Token(sort, "", start + 1))
            return tokens
        if pattern_side and text[0] == "/":
            sort, text, position = Sort.REGEX, *_expression(line, start)
        elif sort is Sort.ARROW or (text == "from" and tokens):
            pattern_side = False
        tokens.append(Token(sort, text, start + 1))


def _expression(line: str, start: int) -> tuple[str, int]:
    """Read the expression that begins at `start`; give it and where it ends."""
    match = _REGEX.match(line, start)
    if match is None:
        raise LineError(start + 1, r"the expression is not closed: it ends with / (write \/ for a slash within)")
    return match[1], match.end()


def unquoted(text: str) -> str:
    """Give what a quoted text says."""
    return re.sub(r"\\(.)", r"\1", text[1:-1])
