"""SPF macros: texts with placeholders such as `%{ir}.%{v}._spf.%{d2}` (RFC 7208 7).

A text is parsed once into a `MacroString`; parsing fails with `SpfSyntaxError`. `expand_name` fills it in to make a
name for DNS, `expand_text` to make an explanation for people. Neither can fail, and both do no more work than their
bounded result needs, however long the text and the values are.

Left out on purpose: finding the value of `p`, which takes DNS; whoever expands gives it as a value.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MAX_NAME = 253  # characters of a domain name as text (RFC 7208 7.3)
MAX_EXPLANATION = 512  # characters; RFC 7208 6.2 leaves it to us, and a reply line of SMTP has room for no more

_TERM_LETTERS = "slodiphv"  # RFC 7208 7.2
_EXPLANATION_LETTERS = _TERM_LETTERS + "crt"
_ALL_PARTS = 0
_MANY_DIGITS = 4  # more than any name has labels

# RFC 7208 7.1: macro-expand in its two forms, then a run of macro-literal.
_TOKEN = re.compile(r"%\{([A-Za-z])([0-9]*)([rR]?)([.+,/_=-]*)\}|(%[%_-])|([!-$&-~]+)")
_EXPLANATION_TOKEN = re.compile(r"%\{([A-Za-z])([0-9]*)([rR]?)([.+,/_=-]*)\}|(%[%_-])|([ -$&-~]+)")
_ESCAPES = {"%%": "%", "%_": " ", "%-": "%20"}
_TOP_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_RESERVED = re.compile(rb"[^A-Za-z0-9._~-]")  # RFC 3986 2.3 turned round


class SpfSyntaxError(ValueError):
    """Not what RFC 7208 allows in a record; the text says what is wrong, in printable ASCII."""


@dataclass(frozen=True, slots=True)
class Macro:
    """One `%{…}`. `letter` is lower-case; `keep` counts the parts that stay on the right, 0 keeps all of them."""

    letter: str
    keep: int = _ALL_PARTS
    reverse: bool = False
    delimiters: str = ""
    escape: bool = False


@dataclass(frozen=True, slots=True)
class MacroString:
    """Literal texts and macros in their order."""

    pieces: tuple[str | Macro, ...]

    def uses(self, letters: str) -> bool:
        """Say whether one of these (lower-case) macro letters is in it."""
        return any(isinstance(piece, Macro) and piece.letter in letters for piece in self.pieces)


def parse_macro_string(text: str) -> MacroString:
    """Read the value of a modifier that we do not know (RFC 7208 6: it must still be well-formed)."""
    return MacroString(tuple(_pieces(text, _TOKEN, _EXPLANATION_LETTERS)))


def parse_domain_spec(text: str) -> MacroString:
    """Read a domain-spec: a macro-string that ends in a macro or in a dot and a top-level label (RFC 7208 7.1)."""
    pieces = tuple(_pieces(text, _TOKEN, _TERM_LETTERS))
    if not pieces:
        raise SpfSyntaxError("a domain is missing")
    if not _ends_in_expansion(text):
        _check_top_label(text)
    return MacroString(pieces)


def parse_explanation(text: str) -> MacroString:
    """Read the text that `exp=` points to (RFC 7208 6.2: explain-string)."""
    return MacroString(tuple(_pieces(text, _EXPLANATION_TOKEN, _EXPLANATION_LETTERS)))


def expand_name(spec: MacroString, values: Mapping[str, str]) -> str:
    """Fill in a domain-spec; give a name without the root's dot, cut from the left to 253 characters (RFC 7208 7.3).

    `values` has one text per letter that the spec uses. What DNS can hold is for the caller to judge.
    """
    pieces: list[str] = []
    length = 0
    for piece in reversed(spec.pieces):
        pieces.append(_expand(piece, values))
        length += len(pieces[-1])
        if length > MAX_NAME + 1:  # what is further to the left would be cut off anyway
            break
    name = "".join(reversed(pieces)).removesuffix(".")
    return name if len(name) <= MAX_NAME else name[-MAX_NAME - 1 :].partition(".")[2]


def expand_text(text: MacroString, values: Mapping[str, str]) -> str:
    """Fill in an explanation: at most `MAX_EXPLANATION` characters of printable ASCII, others become "?"."""
    pieces: list[str] = []
    length = 0
    for piece in text.pieces:
        pieces.append(_expand(piece, values))
        length += len(pieces[-1])
        if length >= MAX_EXPLANATION:
            break
    return re.sub(r"[^ -~]", "?", "".join(pieces)[:MAX_EXPLANATION])


def _pieces(text: str, token: re.Pattern[str], letters: str) -> Iterator[str | Macro]:
    position = 0
    while position < len(text):
        match = token.match(text, position)
        if match is None:
            raise SpfSyntaxError(f"character {position + 1} of {_show(text)} is not allowed there")
        position = match.end()
        yield match[6] or _ESCAPES.get(match[5] or "") or _macro(match, letters)


def _macro(match: re.Match[str], letters: str) -> Macro:
    letter, digits = match[1].lower(), match[2].lstrip("0")
    if letter not in letters:
        raise SpfSyntaxError(f"there is no macro {match[1]} here")
    if match[2] and not digits:  # RFC 7208 7.1: nonzero
        raise SpfSyntaxError("a macro cannot keep 0 parts")
    keep = int(digits[:_MANY_DIGITS]) if digits else _ALL_PARTS
    return Macro(letter, keep, bool(match[3]), match[4], match[1].isupper())


def _ends_in_expansion(text: str) -> bool:
    """Say whether the last token is a macro-expand; the text is known to consist of tokens."""
    return next(reversed([match.lastindex for match in _TOKEN.finditer(text)])) != _TOKEN.groups


def _check_top_label(text: str) -> None:
    _, dot, label = text.removesuffix(".").rpartition(".")
    if not dot or not _TOP_LABEL.fullmatch(label) or label.isdigit():
        raise SpfSyntaxError(f"{_show(text)} is not a domain with at least two labels")


def _expand(piece: str | Macro, values: Mapping[str, str]) -> str:
    if isinstance(piece, str):
        return piece
    value = _transform(piece, values[piece.letter])
    # RFC 7208 7.3: upper-case letters mean percent-encoding
    return _RESERVED.sub(_percent, value.encode("utf-8", "replace")).decode() if piece.escape else value


def _transform(macro: Macro, value: str) -> str:
    if not (macro.keep or macro.reverse or macro.delimiters):
        return value
    parts = re.split(f"[{re.escape(macro.delimiters)}]", value) if macro.delimiters else value.split(".")
    if macro.reverse:
        parts.reverse()
    return ".".join(parts[-macro.keep :])


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _show(text: str) -> str:
    return re.sub(r"[^!-~]", "?", text[:80])
