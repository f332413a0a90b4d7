"""Regular expressions of users: RE2, so that matching is linear in the text whatever the expression is.

An expression must match the whole text, without case. `compile_expression` raises `ExpressionError` in plain words.
`ExpressionSet` finds all matching expressions of many in one pass. Left out on purpose: what RE2 leaves out
(look-around, back-references inside the expression), and the octet class, which could cut a character in two.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import re2

MAX_LENGTH = 1_000  # characters of one expression
_MAX_MEMORY = 1 << 20  # octets for one expression: bounds the time to compile a hostile one
_SET_MEMORY = 64 << 20  # octets for one set, its cache of states included
_SET_SIZE = 500  # expressions in one set: compiling one holds the interpreter for some milliseconds

_OCTET = re.compile(r"(?<!\\)(?:\\\\)*\\C")
_LOOK_AROUND = re.compile(r"invalid perl operator: \(\?(?:[=!]|<[=!]?)")


class ExpressionError(ValueError):
    """The expression cannot be used; the text says why."""


class Match(Protocol):
    """The part of `re.Match` that is used."""

    def groups(self) -> tuple[str | None, ...]:
        """Give the captured texts, None where a group took no part."""
        ...


class Expression(Protocol):
    """The part of `re.Pattern` that is used."""

    @property
    def groups(self) -> int:
        """How many captures there are."""
        ...

    def fullmatch(self, text: str) -> Match | None:
        """Match the whole text."""
        ...


@lru_cache(maxsize=1_024)
def compile_expression(text: str) -> Expression:
    """Compile one expression; raise `ExpressionError`."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression is longer than {MAX_LENGTH} characters")
    if _OCTET.search(text):
        raise ExpressionError(r"\C is not supported: it could match half a character")
    try:
        compiled: Expression = re2.compile(text, _options(_MAX_MEMORY))
    except re2.error as error:
        raise ExpressionError(_plain(error)) from None
    return compiled


def _options(memory: int) -> "re2.Options":
    options = re2.Options()
    options.log_errors = False  # RE2 would write to stderr
    options.case_sensitive = False
    options.max_mem = memory
    return options


def _plain(error: Exception) -> str:
    """Put RE2's message into plain words."""
    reason = error.args[0] if error.args else ""
    said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    if _LOOK_AROUND.match(said):
        return "look-ahead and look-behind are not supported (the expressions are RE2's)"
    if "pattern too large" in said:
        return "the expression is too large once its repetitions are written out"
    if said.startswith("invalid escape sequence"):
        return f"{said} (back-references inside the expression are not supported)"
    return said or "RE2 does not accept it"


class ExpressionSet:
    """Many expressions, matched at once."""

    __slots__ = ("_parts",)

    def __init__(self, expressions: Sequence[str]) -> None:
        """Compile; all of them must be valid."""
        starts = range(0, len(expressions), _SET_SIZE)
        self._parts = [(start, _Part(expressions[start : start + _SET_SIZE])) for start in starts]

    def matches(self, text: str) -> list[int]:
        """Give the indices of all that match the whole text, ascending."""
        return [start + index for start, part in self._parts for index in part.matches(text)]


class _Part:
    """At most `_SET_SIZE` expressions in one automaton, or tried one by one where RE2 has not the memory for that."""

    __slots__ = ("_expressions", "_set")

    def __init__(self, expressions: Sequence[str]) -> None:
        self._expressions = tuple(expressions)
        self._set = _compile_set(self._expressions)

    def matches(self, text: str) -> list[int]:
        if self._set is not None:
            found = self._set.Match(text) or []
            sentinel = len(self._expressions)
            # RE2 reports an automaton that ran out of memory as "nothing matches": the sentinel always does.
            if sentinel in found:
                return sorted(index for index in found if index != sentinel)
        every = enumerate(self._expressions)
        return [index for index, expression in every if compile_expression(expression).fullmatch(text)]


def _compile_set(expressions: tuple[str, ...]) -> "re2.Set | None":
    whole = re2.Set.FullMatchSet(_options(_SET_MEMORY))
    try:
        for expression in (*expressions, r"(?s).*"):
            whole.Add(expression)
        whole.Compile()
    except re2.error:
        return None
    return whole
