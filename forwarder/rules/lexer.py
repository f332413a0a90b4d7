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


_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_REGEX = re.compile(r"/((?:[^/\\]|\\.)*)/(?=[ \t,]|->|$)")
_SPACE = re.compile(r"[ \t]*")
_TOKEN = re.compile(
    r"(?P<END>$|(?<![^ \t])\#.*)"  # a comment stands at the beginning or after white space
    r"|(?P<COMMA>,)"
    r"|(?P<ARROW>->)"
    r'|(?P<WORD>(?>[^ \t,"-]+|-(?!>)|"(?:[^"\\]|\\.)*")+)'
)


def tokens_of(line: str) -> list[Token]:
    """Split a line; the last token is always END."""
    tokens: list[Token] = []
    position = 0
    pattern_side = True  # expressions stand before the arrow and before `from` only
    while not tokens or tokens[-1].sort is not Sort.END:
        space = _SPACE.match(line, position)
        start = space.end() if space else position
        token, position = _token(line, start, pattern_side)
        tokens.append(token)
        if token.sort is Sort.ARROW or (token.text == "from" and len(tokens) > 1):
            pattern_side = False
    return tokens


def _token(line: str, start: int, pattern_side: bool) -> tuple[Token, int]:
    """Read the token that begins at `start`; give it and where it ends."""
    column = start + 1
    if pattern_side and line.startswith("/", start):
        match = _REGEX.match(line, start)
        if match is None:
            raise LineError(column, r"the expression is not closed: it ends with / (write \/ for a slash within)")
        return Token(Sort.REGEX, match[1], column), match.end()
    match = _TOKEN.match(line, start)
    if match is None:
        raise LineError(column, "the quoted text is not closed: a closing quotation mark is missing")
    text = match[0]
    sort = _SORTS[match.lastgroup or "END"]
    if text[:1] == '"' and _QUOTED.fullmatch(text):
        sort = Sort.QUOTED
    return Token(sort, "" if sort is Sort.END else text, column), match.end()


_SORTS = {"END": Sort.END, "COMMA": Sort.COMMA, "ARROW": Sort.ARROW, "WORD": Sort.WORD}


def unquoted(text: str) -> str:
    """Give what a quoted text says."""
    return re.sub(r"\\(.)", r"\1", text[1:-1])
