"""What `forwarder queue` prints: letters as lines and in full, and what came of an action.

Everything that a stranger may have written (addresses, replies, header lines) is escaped: no octet of it can move the
cursor, end a line, or reorder what is shown. `Message` reads an answer of the desk; other keys are for `--json` only.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from forwarder.ops.log import escape

_LONGEST = 200  # characters of a reason in a list
_WIDEST = 48  # characters that a column is widened to

_NEXT = {
    "delivered": "handed on; nothing more to do",
    "bounced": "returned to its sender; nothing more to do",
    "deleted": "deleted by the administrator",
    "replaced": "refused by DMARC; offered again with a From of ours, as a message of its own",
}
_DONE = {
    "retry": "due now",
    "hold": "held: nothing is tried until it is released",
    "release": "released: due now, and its time in the queue begins anew",
    "bounce": "returned to the sender",
    "delete": "deleted",
    "resend": "sent to the other address in its place",
}


class Recipient(msgspec.Struct, frozen=True):
    """One recipient of a message."""

    address: str
    state: str
    reason: str
    destination: str
    attempts: int
    relay: str
    waited: float
    owner_told: bool
    delay_notices: int
    selected: bool
    number: int
    next_attempt: datetime | None = None
    via: str | None = None

    @property
    def open(self) -> bool:
        """Whether something is yet to be done."""
        return self.state in ("queued", "held")


class Message(msgspec.Struct, frozen=True):
    """One message in the queue."""

    id: str
    sender: str = msgspec.field(name="from")
    to: tuple[Recipient, ...]
    size: int
    received: datetime
    kind: str
    sent_as: str
    author: str
    message_id: str
    bounceable: bool
    headers: str = ""


@dataclass
class Report:
    """What an action came to, all portions together."""

    verb: str
    changed: int = 0
    skipped: list[dict[str, object]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing was done or left yet."""
        return not (self.changed or self.skipped)

    @property
    def fine(self) -> bool:
        """Whether all that was meant was done."""
        return not (self.skipped or self.unknown or self.problems)


class Table:
    """Lines for a list, one for each recipient. Columns only widen, so that portions can be printed as they come."""

    def __init__(self) -> None:
        self._widths = [0, 0, 0, 0, 0, 0]
        self.messages = 0
        self.states: dict[str, int] = {}

    def lines(self, messages: Sequence[Message], now: datetime) -> Iterator[str]:
        """Give the lines of some messages: recipients that were asked for and for whom something is yet to be done."""
        rows = [_row(message, one, now) for message in messages for one in message.to if one.selected and one.open]
        self.messages += len(messages)
        for message in messages:
            for one in message.to:
                if one.selected and one.open:
                    self.states[one.state] = self.states.get(one.state, 0) + 1
        if not self._widths[0] and rows:
            rows.insert(0, ("ID", "RECEIVED", "NEXT ATTEMPT", "SIZE", "FROM", "TO", "REASON"))
        for column in range(len(self._widths)):
            widest = max((min(len(row[column]), _WIDEST) for row in rows), default=0)
            self._widths[column] = max(self._widths[column], widest)
        for row in rows:
            cells = [f"{cell:<{width}}" for cell, width in zip(row, self._widths, strict=False)]
            yield "  ".join([*cells, row[-1]]).rstrip()

    def summary(self) -> str:
        """Count what was listed."""
        counts = ", ".join(f"{self.states[state]:,} {state}" for state in ("queued", "held") if state in self.states)
        return f"{counted(self.messages, 'message')}, {counted(sum(self.states.values()), 'recipient')}: {counts}"


def story(message: Message, now: datetime, expire: float) -> Iterator[str]:
    """Tell everything about one message; `expire` is how many seconds mail may wait."""
    id = escape(message.id)
    kind = {"mail": "mail", "bounce": "a bounce of ours", "notice": "a notice of ours"}.get(message.kind, "mail")
    yield f"{id}: {kind}, {counted(message.size, 'octet')}, in the queue since {_moment(message.received, now)}"
    yield f"  from        {escape(message.sender)}, sent on as {escape(message.sent_as)}"
    if message.author:
        yield f"  author      {escape(message.author)}"
    if message.message_id:
        yield f"  Message-ID  {escape(message.message_id)}"
    for one in message.to:
        yield ""
        yield from (line for line in _recipient_story(message, one, now, expire))
    yield ""
    yield from _choices(id, message)


def result(report: Report) -> Iterator[str]:
    """Say what came of an action, and what was left as it was and why."""
    if report.changed or report.fine:
        yield f"{counted(report.changed, 'recipient')} {_DONE[report.verb]}"
    if report.new:
        yield f"new in the queue: {', '.join(escape(id) for id in report.new)}"
    for skipped in report.skipped:
        names = [escape(str(skipped[key])) for key in ("id", "address") if skipped.get(key)]
        yield f"left as it was: {' '.join(names)}: {escape(str(skipped.get('reason', '')))}"
    for id in report.unknown:
        yield f"{escape(id)}: no such message in the queue"
    for problem in report.problems:
        yield escape(problem)


def as_json(tree: object, *, indent: int | None = None) -> str:
    """Write JSON that a terminal shows as it is: all but printable ASCII is escaped."""
    return json.dumps(tree, indent=indent)


def header_lines(text: str) -> Iterator[str]:
    """Give the header lines of a message, escaped."""
    for line in text.removesuffix("\r\n").split("\r\n"):
        yield "\t".join(escape(piece) for piece in line.split("\t"))


def counted(count: int, noun: str) -> str:
    """Write `1 message`, `2,000 messages`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _row(message: Message, one: Recipient, now: datetime) -> tuple[str, ...]:
    due = "held" if one.state == "held" else _due(one, now)
    to = escape(one.address)
    if one.destination != one.address:
        to += f" -> {escape(one.destination)}"
    reason = escape(one.reason) or ("not tried yet" if not one.attempts else "")
    if len(reason) > _LONGEST:
        reason = reason[:_LONGEST] + "..."
    received = _stamp(message.received)
    return escape(message.id), received, due, str(message.size), escape(message.sender), to, reason


def _recipient_story(message: Message, one: Recipient, now: datetime, expire: float) -> Iterator[str]:
    via = f" via {escape(one.via)}" if one.via else ""
    yield f"  to {escape(one.address)}, that is {escape(one.destination)}{via}: {escape(one.state)}"
    yield f"    so far: {_history(one)}"
    if one.reason:
        by = f" of {escape(one.relay)}" if one.relay else ""
        yield f"    last answer{by}: {escape(one.reason)}"
    if one.delay_notices:
        yield f"    the sender was told of the delay {counted(one.delay_notices, 'time')}"
    yield f"    next: {_future(message, one, now, expire)}"


def _history(one: Recipient) -> str:
    if not one.attempts:
        return f"not tried yet, in the queue for {_span(one.waited)}"
    return f"{counted(one.attempts, 'attempt')}, in the queue for {_span(one.waited)}"


def _future(message: Message, one: Recipient, now: datetime, expire: float) -> str:
    if one.state == "held":
        told = "the owner was told" if one.owner_told else "the owner will be told"
        return f"nothing, until you decide; {told}"
    if not one.open:
        return _NEXT.get(one.state, escape(one.state))
    rest = expire - one.waited
    then = "returned to its sender" if message.bounceable else "held, and the owner told"
    end = f"after {_span(rest)} more without success" if rest > 0 else "if that fails"
    return f"tried {_due(one, now)}; {end} it is {then}"


def _choices(id: str, message: Message) -> Iterator[str]:
    states = {one.state for one in message.to if one.open}
    if not states:
        return
    yield "What you can do:"
    if "queued" in states:
        yield f"  forwarder queue retry {id}              try it now"
        yield f"  forwarder queue hold {id}               keep it, and try nothing until it is released"
    if "held" in states:
        yield f"  forwarder queue release {id}            try it again from now on"
    yield f"  forwarder queue resend {id} --to ADDRESS  send it to another address instead"
    yield f"  forwarder queue bounce {id}             give up and tell its sender, where the sender may be told"
    yield f"  forwarder queue delete {id}             give up and tell nobody"


def _due(one: Recipient, now: datetime) -> str:
    if one.next_attempt is None or one.next_attempt <= now:
        return "now"
    return _moment(one.next_attempt, now)


def _moment(moment: datetime, now: datetime) -> str:
    seconds = (moment - now).total_seconds()
    around = f"in {_span(seconds)}" if seconds >= 0 else f"{_span(-seconds)} ago"
    return f"{_stamp(moment)} ({around})"


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(seconds: float) -> str:
    """Write a length of time with its two largest units."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    rest = int(seconds)
    parts: list[str] = []
    for name, length in units:
        if rest >= length or (name == "s" and not parts):
            parts.append(f"{rest // length} {name}")
            rest %= length
    return " ".join(parts[:2])
