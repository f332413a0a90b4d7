"""Cases: what a set of rules is expected to do (`*.cases`), and whether it does.

One case a line: `address [from sender] [on YYYY-MM-DD] => expected`. Expected is one of

    me@gmail.com, you@corp.example via [192.0.2.7]:25     exactly these destinations, in any order
    reject [550 [5.1.1 [text]]]     or only the code      refused for good; only what is written is compared
    defer [450 [4.2.1 [text]]]      or only the code      refused for now
    discard
    not served                                            the domain is none of the rules'

`from <>` is the null sender; without `from` it is a stranger, whom no rule names. Comments begin with # at the
beginning or after white space. `parse_cases` raises `RulesError` with every fault.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from forwarder.model.address import Address, AddressError, parse_mailbox
from forwarder.model.destination import Destination, parse_hop
from forwarder.rules.decision import Decision, Defer, Discard, Forward, NotServed, Refuse
from forwarder.rules.lexer import tokens_of
from forwarder.rules.rule import Place, Problem, RulesError
from forwarder.rules.ruleset import RuleSet
from forwarder.rules.senders import NULL

STRANGER = Address("stranger", "sender.invalid")  # RFC 2606 2: nobody's

_MAX_LINE = 100_000  # characters
_COMMENT = re.compile(r"(?<![^ \t])#[^\n]*")
_REPLY = re.compile(r"(?:(reject|defer) *)?((?:[45][0-9]{2})?(?: +[45]\.[0-9]{1,3}\.[0-9]{1,3}(?: +[^ ].*)?)?)")
_WORDS = {"4": "defer", "5": "reject"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An expected refusal: `word` is "reject" or "defer", `start` what the reply begins with."""

    word: str
    start: str


Expected = frozenset[Destination] | Answer | type[Discard] | type[NotServed]


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation. `day` None is the day on which the cases are run."""

    place: Place
    recipient: Address
    sender: Address | None
    day: date | None
    expected: Expected
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that came out otherwise; both in words."""

    case: Case
    got: str


def parse_cases(name: str, text: str) -> tuple[Case, ...]:
    """Read cases; raise `RulesError`."""
    cases: list[Case] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), 1):
        stripped = line if len(line) > _MAX_LINE else _COMMENT.sub("", line, count=1).strip()
        if not stripped:
            continue
        try:
            cases.append(_case(Place(name, number), stripped))
        except ValueError as error:
            problems.append(Problem(name, number, 1, str(error)))
    if problems:
        raise RulesError(problems)
    return tuple(cases)


def run_cases(rules: RuleSet, cases: Iterable[Case], today: date) -> tuple[Failure, ...]:
    """Give the cases that fail."""
    failures = []
    for case in cases:
        decision = rules.resolve(case.recipient, case.sender, case.day or today)
        if not _meets(decision, case.expected):
            failures.append(Failure(case, in_words(decision)))
    return tuple(failures)


def in_words(decision: Decision) -> str:
    """Write a decision as a case would expect it."""
    match decision:
        case Forward():
            return ", ".join(destination_in_words(destination) for destination in decision.destinations)
        case Refuse():
            return f"reject {decision.reply}"
        case Defer():
            return f"defer {decision.reply}"
        case Discard():
            return "discard"
        case NotServed():
            return "not served"


def destination_in_words(destination: Destination) -> str:
    """Write a destination with its hop, if it has one."""
    via = f" via {destination.via}" if destination.via is not None else ""
    return f"{destination.address}{via}"


def sender_of(text: str) -> Address | None:
    """Read a sender, `<>` being the null sender; raise `AddressError`."""
    return None if text == NULL else parse_mailbox(text)


def _case(place: Place, line: str) -> Case:
    """Read one case; raise `ValueError`."""
    if len(line) > _MAX_LINE:
        raise ValueError(f"the line is longer than {_MAX_LINE} characters")
    left, arrow, right = line.partition("=>")
    if not arrow:
        raise ValueError("a case is written: address [from sender] => expected")
    words = [token.text for token in tokens_of(left)[:-1]]
    if len(words) % 2 == 0:
        raise ValueError("before => stands an address, possibly with `from sender` and `on YYYY-MM-DD`")
    options = dict(zip(words[1::2], words[2::2], strict=True))
    unknown = [word for word in words[1::2] if word not in ("from", "on")]
    if unknown or len(options) * 2 + 1 != len(words):
        raise ValueError(f"{unknown[0]!r} is neither from nor on" if unknown else "from or on is given twice")
    sender = options.get("from")
    return Case(
        place,
        parse_mailbox(words[0]),
        STRANGER if sender is None else sender_of(sender),
        date.fromisoformat(options["on"]) if "on" in options else None,
        _expected(right.strip()),
        line,
    )


def _expected(text: str) -> Expected:
    if text == "discard":
        return Discard
    if text == "not served":
        return NotServed
    match = _REPLY.fullmatch(text)
    if match is not None and text:
        word = match[1] or _WORDS[text[0]]
        if match[2] and _WORDS[match[2].strip()[0]] != word:
            raise ValueError(f"the codes of {word} begin with {'5' if word == 'reject' else '4'}")
        return Answer(word, " ".join(match[2].split()))
    return frozenset(_destination(part.split()) for part in text.split(","))


def _destination(words: list[str]) -> Destination:
    match words:
        case [address]:
            return Destination(parse_mailbox(address))
        case [address, "via", hop]:
            return Destination(parse_mailbox(address), parse_hop(hop))
        case _:
            raise AddressError("after => stand addresses, reject, defer, a code, discard or not served")


def _meets(decision: Decision, expected: Expected) -> bool:
    match expected:
        case frozenset():
            return isinstance(decision, Forward) and frozenset(decision.destinations) == expected
        case Answer(word, start):
            wanted = Refuse if word == "reject" else Defer
            return isinstance(decision, wanted) and str(decision.reply).startswith(start)
        case _:
            return isinstance(decision, expected)
