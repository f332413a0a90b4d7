r"""One line of rules: `patterns [from senders] -> targets [options]`.

`read_line` gives the rules of the line, and reports every fault it can tell apart. Patterns are names, `name+tag`,
`"quoted names"`, globs, `/expressions/` and `*`; targets are addresses, `reject "…"`, `defer "…"` and `discard`;
options are `until DATE`, `limit N/minute|hour|day` and `via HOP`. Section headers are not read here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches

from forwarder.model.address import AddressError, parse_mailbox
from forwarder.model.destination import Hop, parse_hop
from forwarder.model.reply import Reply
from forwarder.rules.expression import ExpressionError, compile_expression
from forwarder.rules.lexer import LineError, Sort, Token, tokens_of, unquoted
from forwarder.rules.names import fold, is_glob
from forwarder.rules.rule import Action, Drop, Kind, Place, Rate, Rule
from forwarder.rules.senders import SenderPattern, Senders, parse_sender
from forwarder.rules.targets import Send, Target, Template, parse_target

MAX_LINE = 100_000  # characters
MAX_TARGETS = 1_000  # of one line
MAX_TEXT = 400  # characters of a reject or defer text: RFC 5321 4.5.3.1.5 allows 512 octets in a reply line
MAX_RATE = 1_000_000

_REPLY = re.compile(r"([45][0-5][0-9]) ([45]\.[0-9]{1,3}\.[0-9]{1,3}) (.+)")  # RFC 5321 4.2, RFC 3463 2
_SIMPLE = re.compile(r"[A-Za-z0-9_=~-]+(?:[.+][A-Za-z0-9_=~-]+)*")  # names in which nothing can be wrong
_SIMPLE_MAX = 100
_RATE = re.compile(r"([0-9]{1,9})/(minute|hour|day)")
_SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400}
_OPTIONS = ("until", "limit", "via")
_KEYWORDS = ("reject", "defer", "discard")
_WRONG_ARROWS = ("=>", "→", ">", "-", "=", ":")

Report = Callable[[int, str], None]


@dataclass(slots=True)
class _Options:
    until: date | None = None
    rate: Rate | None = None
    via: Hop | None = None
    columns: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pattern:
    kind: Kind
    name: str
    column: int
    captures: int = 0


def read_line(file: str, number: int, line: str, report: Report) -> list[Rule]:
    """Read one line that is not a section header; `report` takes the column and reason of each fault.

    Gives no rules for blank lines and comments. What a faulty line gives is not to be used.
    """
    if len(line) > MAX_LINE:
        report(1, f"the line is longer than {MAX_LINE} characters")
        return []
    try:
        tokens = tokens_of(line)
        return _Line(tokens, report).rules(file, number, line.strip()) if len(tokens) > 1 else []
    except LineError as error:
        report(error.column, error.reason)
        return []


class _Line:
    """A cursor over the tokens of one line."""

    def __init__(self, tokens: list[Token], report: Report) -> None:
        self._tokens = tokens
        self._at = 0
        self._report = report

    def rules(self, file: str, number: int, text: str) -> list[Rule]:
        """Read the whole line."""
        patterns = self._patterns()
        senders = self._senders() if self._peek().text == "from" else None
        self._arrow()
        action, options = self._action()
        for pattern in patterns:
            self._check_captures(pattern, action)
        return [
            Rule(p.kind, p.name, senders, action, options.until, options.rate, Place(file, number, p.column), text)
            for p in patterns
        ]

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        if token.sort is not Sort.END:
            self._at += 1
        return token

    def _comma(self) -> bool:
        """Take a comma, if there is one."""
        if self._peek().sort is not Sort.COMMA:
            return False
        self._next()
        return True

    # patterns

    def _patterns(self) -> list[_Pattern]:
        patterns = [self._pattern()]
        while self._comma():
            patterns.append(self._pattern())
        return [pattern for pattern in patterns if pattern is not None]

    def _pattern(self) -> _Pattern | None:
        token = self._next()
        if token.sort in (Sort.ARROW, Sort.COMMA, Sort.END):
            raise LineError(token.column, f"expected a name before {token}")
        try:
            return _pattern_of(token)
        except (AddressError, ExpressionError) as error:
            self._report(token.column, str(error))
            return None

    def _senders(self) -> Senders:
        self._next()
        patterns: list[SenderPattern] = []
        while True:
            token = self._next()
            if token.sort not in (Sort.WORD, Sort.QUOTED):
                raise LineError(token.column, f"expected a sender after from, such as *@shop.com, not {token}")
            try:
                patterns.append(parse_sender(token.text))
            except (AddressError, ExpressionError) as error:
                self._report(token.column, f"{token.text[:80]!r} is no sender: {error}")
            if not self._comma():
                return Senders(tuple(patterns))

    def _arrow(self) -> None:
        token = self._next()
        if token.sort is Sort.ARROW:
            return
        if token.text in _WRONG_ARROWS:
            raise LineError(token.column, f"write -> instead of {token.text}")
        if token.sort is Sort.END:
            raise LineError(token.column, "expected -> and where the mail goes")
        raise LineError(token.column, f"expected a comma, from or -> before {token}")

    def _check_captures(self, pattern: _Pattern, action: Action) -> None:
        wanted = max((max(t.captures, default=0) for t in _templates(action)), default=0)
        if wanted > pattern.captures:
            has = f"has {pattern.captures} captures" if pattern.kind is Kind.REGEX else "is no /expression/"
            self._report(pattern.column, f"\\{wanted} is used, but the pattern {has}")

    # targets

    def _action(self) -> tuple[Action, _Options]:
        first = self._peek()
        if first.sort is Sort.END:
            raise LineError(first.column, 'expected an address, reject "…", defer "…" or discard after ->')
        if first.text in _KEYWORDS:
            self._next()
            action = Drop() if first.text == "discard" else self._reply(first.text)
            if self._peek().sort is Sort.COMMA:
                raise LineError(self._peek().column, f"{first.text} stands alone: it cannot be one of several targets")
            return action, self._options_for(first)
        words = self._target_words()
        options = self._options()
        return Send(self._targets(words, options.via)), options

    def _options_for(self, keyword: Token) -> _Options:
        """Read options of a rule that forwards nothing."""
        options = self._options()
        for name in ("limit", "via"):
            if name in options.columns:
                self._report(options.columns[name], f"{name} is for rules that forward, not for {keyword.text}")
        return options

    def _target_words(self) -> list[Token]:
        words = [self._target_word()]
        while self._comma():
            words.append(self._target_word())
        if len(words) > MAX_TARGETS:
            raise LineError(words[0].column, f"a rule has at most {MAX_TARGETS} targets")
        return words

    def _target_word(self) -> Token:
        token = self._next()
        if token.sort not in (Sort.WORD, Sort.QUOTED):
            raise LineError(token.column, f"expected an address before {token}")
        if token.text in _KEYWORDS:
            raise LineError(token.column, f"{token.text} stands alone: it cannot be one of several targets")
        return token

    def _targets(self, words: list[Token], via: Hop | None) -> tuple[Target, ...]:
        targets: dict[Target, int] = {}
        for word in words:
            try:
                target = parse_target(word.text, via)
            except AddressError as error:
                near = get_close_matches(word.text[:20].lower(), _KEYWORDS, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                self._report(word.column, f"{error}{hint}")
                continue
            first = targets.setdefault(target, word.column)
            if first != word.column:
                self._report(word.column, f"{word.text} is a target twice; the first is in column {first}")
        return tuple(targets)

    def _reply(self, keyword: str) -> Reply:
        token = self._next()
        code = "550 5.7.1 Not accepted here" if keyword == "reject" else "450 4.2.1 Try again later"
        if token.sort is not Sort.QUOTED:
            raise LineError(token.column, f'expected a reply in quotation marks after {keyword}: "{code}"')
        try:
            return _parse_reply(keyword, unquoted(token.text))
        except ValueError as error:
            self._report(token.column, f'{error}; write for example "{code}"')
            return Reply(550, "5.7.1", "Not accepted here")

    # options

    def _options(self) -> _Options:
        options = _Options()
        while (token := self._next()).sort is not Sort.END:
            if token.text not in _OPTIONS:
                raise LineError(token.column, _unknown_option(token))
            if token.text in options.columns:
                self._report(token.column, f"{token.text} is given twice")
            options.columns[token.text] = token.column
            value = self._next()
            if value.sort is not Sort.WORD:
                raise LineError(value.column, f"expected a value after {token.text}, not {value}")
            try:
                _set_option(options, token.text, value.text)
            except ValueError as error:
                self._report(value.column, str(error))
        return options


def _pattern_of(token: Token) -> _Pattern:
    text = token.text
    if token.sort is Sort.REGEX:
        return _Pattern(Kind.REGEX, text, token.column, compile_expression(text).groups)
    if text == "*":
        return _Pattern(Kind.CATCH_ALL, "*", token.column)
    if len(text) <= _SIMPLE_MAX and _SIMPLE.fullmatch(text):
        return _Pattern(Kind.EXACT, text.lower(), token.column)
    if token.sort is Sort.QUOTED:
        return _Pattern(Kind.EXACT, fold(parse_mailbox(f"{text}@x.example").local), token.column)
    if text.startswith("["):
        raise AddressError("a section is a line of its own: [example.org]")
    if text.endswith(":"):
        raise AddressError(f"write {text[:-1]} -> and the address")
    if "@" in text:
        raise AddressError("write only the part before the @: the domain is the section's")
    # A name with wildcards is sound if it is sound with letters in their places.
    local = parse_mailbox(f"{text.replace('*', 'x').replace('?', 'x')}@x.example").local if is_glob(text) else text
    if local is text:
        parse_mailbox(f"{text}@x.example")
        return _Pattern(Kind.EXACT, fold(text), token.column)
    return _Pattern(Kind.GLOB, fold(text), token.column)


def _templates(action: Action) -> list[Template]:
    if not isinstance(action, Send):
        return []
    return [target for target in action.targets if isinstance(target, Template)]


def _parse_reply(keyword: str, text: str) -> Reply:
    """Read `code enhanced text`; raise `ValueError`."""
    if len(text) > MAX_TEXT or not (text.isascii() and text.isprintable()):
        raise ValueError(f"the text is printable ASCII, at most {MAX_TEXT} characters")
    match = _REPLY.fullmatch(text)
    if match is None:
        raise ValueError("a reply is a code, an enhanced code and a text")
    digit = "5" if keyword == "reject" else "4"
    if not match[1].startswith(digit) or not match[2].startswith(digit):
        raise ValueError(f"the codes of {keyword} begin with {digit}")
    if match[1] == "421":
        raise ValueError("421 would end the connection for the other recipients too")  # RFC 5321 3.8
    return Reply(int(match[1]), match[2], match[3].strip())


def _unknown_option(token: Token) -> str:
    near = get_close_matches(token.text[:20].lower(), _OPTIONS, 1)
    if near:
        return f"unknown option {token}: did you mean {near[0]}?"
    if "@" in token.text:
        return f"expected a comma before {token}"
    if token.text == "from":
        return "from stands before the ->"
    return f"unknown option {token}: there are until, limit and via"


def _set_option(options: _Options, name: str, value: str) -> None:
    """Set one option; raise `ValueError`, of which `AddressError` is one."""
    match name:
        case "until":
            options.until = _parse_day(value)
        case "limit":
            options.rate = _parse_rate(value)
        case _:
            options.via = parse_hop(value)


def _parse_day(text: str) -> date:
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no date: write YYYY-MM-DD, such as 2027-01-31") from None


def _parse_rate(text: str) -> Rate:
    match = _RATE.fullmatch(text)
    if match is None or not 0 < int(match[1]) <= MAX_RATE:
        raise ValueError(f"a limit is written 20/minute, 20/hour or 20/day, with a number from 1 to {MAX_RATE:,}")
    return Rate(int(match[1]), _SECONDS[match[2]])
