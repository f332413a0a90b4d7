"""Which recipients of which letters an operator means, read from a control request.

`selection` reads what came as JSON and may be anything; what is wrong raises `Refused`, whose sentences are for the
operator. A `Selection` then picks among the letters that its `query` finds: the store narrows down, this module
decides. What is given must hold of one and the same recipient: `to` and `state` together mean the recipients at that
address that are in that state, not others of the same letter.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from forwarder.model.address import Address, AddressError, parse_domain, parse_mailbox
from forwarder.model.letter import Letter, Query, State
from forwarder.model.message import Delivery

NULL_SENDER = "<>"
MIN_BEGINNING = 4  # characters of an id; fewer would fit a whole year's messages
MAX_NAMED = 20  # messages listed where a beginning fits several
_MAX_TEXT = 1000  # characters of any one value; longer ones are no address and no id

_STATES = {state.value: state for state in (State.QUEUED, State.HELD)}

WRONG_USE = 2
PROBLEM = 1


class Refused(Exception):  # noqa: N818 - it says what became of the request
    """The request is not carried out; `status` is the exit status that it means: 1 a problem, 2 wrong use."""

    def __init__(self, status: int, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.status = status
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for. Nothing given at all selects nothing, unless `everything`. `sender` may be `<>`."""

    ids: tuple[str, ...] = ()
    everything: bool = False
    to: Address | None = None
    domain: str = ""
    sender: str = ""
    states: frozenset[State] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether nothing says which letters are meant."""
        return not (self.ids or self.everything or self.to or self.domain or self.sender or self.states)

    @property
    def query(self) -> Query:
        """What to ask the spool for; it may find more than is meant."""
        if self.ids:
            return Query(ids=self.ids)
        return Query(to=str(self.to or ""), domain=self.domain, sender=self.sender, states=self.states)

    def numbers(self, letter: Letter) -> tuple[int, ...]:
        """Give the numbers of the letter's recipients that are meant."""
        if self.sender and sender_text(letter).casefold() != self.sender.casefold():
            return ()
        pairs = zip(letter.message.deliveries, letter.progress, strict=True)
        return tuple(
            number
            for number, (delivery, progress) in enumerate(pairs)
            if (not self.states or progress.state in self.states) and self._is_to(delivery)
        )

    def _is_to(self, delivery: Delivery) -> bool:
        both = (delivery.destination.address, delivery.recipient)
        if self.to is not None and all(address.key != self.to.key for address in both):
            return False
        return not self.domain or any(address.domain == self.domain for address in both)


def selection(request: Mapping[str, object]) -> Selection:
    """Read the part of a request that says which letters are meant; raise `Refused`."""
    read = Selection(
        ids=tuple(dict.fromkeys(_ids(request))),
        everything=flag(request, "all"),
        to=_to(text(request, "to")),
        domain=_domain(text(request, "domain")),
        sender=_sender(text(request, "from")),
        states=_states(text(request, "state")),
    )
    if read.everything and read.ids:
        raise Refused(WRONG_USE, "ids and --all contradict each other: give one of them")
    if read.everything and (read.to or read.domain or read.sender or read.states):
        raise Refused(WRONG_USE, "--all means every message: leave it out, or leave the filters out")
    return read


def identified(given: Sequence[str], ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """Give the ids that are given whole or by their beginnings, and what names none; raise `Refused` where one of
    these fits several.

    `ids` has at least all those that fit; the order is theirs.
    """
    whole = {id.casefold(): id for id in ids}
    known = sorted(whole)
    meant: set[str] = set()
    unknown: list[str] = []
    problems: list[str] = []
    for one in given:
        fitting = _fitting(known, one.casefold())
        if not fitting:
            unknown.append(one)
        elif len(fitting) == 1:
            meant.add(fitting[0])
        else:
            names = ", ".join(whole[id] for id in fitting[:MAX_NAMED])
            more = ", …" if len(fitting) > MAX_NAMED else ""
            problems.append(f"{one}: several messages begin so: {names}{more}: give more of it")
    if problems:
        raise Refused(WRONG_USE, *problems)
    return [id for folded, id in whole.items() if folded in meant], unknown


def sender_text(letter: Letter) -> str:
    """Give the MAIL FROM as received; `<>` is the null sender."""
    sender = letter.message.original_sender
    return str(sender) if sender is not None else NULL_SENDER


def text(request: Mapping[str, object], key: str) -> str:
    """Give a text of a request, "" where there is none; raise `Refused`, also for one that is empty.

    An empty text is a shell variable that nobody set: it must not widen what is deleted.
    """
    value = request.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise Refused(WRONG_USE, f"{key}: expected a text of 1 to {_MAX_TEXT} characters")
    return value


def flag(request: Mapping[str, object], key: str) -> bool:
    """Give a yes or no of a request, no where there is none; raise `Refused`."""
    value = request.get(key, False)
    if not isinstance(value, bool):
        raise Refused(WRONG_USE, f"{key}: expected true or false")
    return value


def count(request: Mapping[str, object], key: str, default: int = 0) -> int:
    """Give a whole number from 0 of a request; raise `Refused`."""
    value = request.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refused(WRONG_USE, f"{key}: expected a whole number from 0")
    return value


def _fitting(known: Sequence[str], given: str) -> list[str]:
    """Give the one that is `given`, or else those that begin with it: one more than can be named is enough."""
    start = bisect_left(known, given)
    if start < len(known) and known[start] == given:
        return [known[start]]
    found = []
    for id in islice(known, start, start + MAX_NAMED + 1):
        if not id.startswith(given):
            break
        found.append(id)
    return found


def _ids(request: Mapping[str, object]) -> list[str]:
    given = request.get("ids", [])
    if not isinstance(given, list):
        raise Refused(WRONG_USE, "ids: expected a list of texts")
    for id in given:
        if not isinstance(id, str) or len(id) > _MAX_TEXT:
            raise Refused(WRONG_USE, "ids: expected a list of texts")
        if len(id) < MIN_BEGINNING:
            raise Refused(WRONG_USE, f'"{id}" is too short: give at least {MIN_BEGINNING} characters of an id')
    return given


def _to(given: str) -> Address | None:
    if not given:
        return None
    if given.casefold() == "postmaster":
        return Address(given, "")  # RFC 5321 4.5.1: the one recipient without a domain
    return address("to", given)


def address(name: str, given: str) -> Address:
    """Read a mailbox; raise `Refused`."""
    try:
        return parse_mailbox(given)
    except AddressError as error:
        raise Refused(WRONG_USE, f'{name}: "{given}" is not an address: {error}') from None


def _domain(given: str) -> str:
    if not given:
        return ""
    try:
        return parse_domain(given)
    except AddressError as error:
        raise Refused(WRONG_USE, f'domain: "{given}" is not a domain: {error}') from None


def _sender(given: str) -> str:
    return given if given in ("", NULL_SENDER) else str(address("from", given))


def _states(given: str) -> frozenset[State]:
    if not given:
        return frozenset()
    if given not in _STATES:
        raise Refused(WRONG_USE, f'state: "{given}": expected {" or ".join(_STATES)}')
    return frozenset({_STATES[given]})
