"""What the tests of the delivery loop share: letters, outcomes, settings."""

from collections.abc import Sequence
from datetime import UTC, datetime

from forwarder.delivery.settlement import SettlementSettings
from forwarder.model.address import Address, parse_mailbox
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions, RcptOptions
from forwarder.model.letter import Kind, Letter, Progress, State
from forwarder.model.message import Delivery, MemoryContent, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope

RECEIVED = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)
DELIVERED = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "ok"), "mx.a.test[192.0.2.1]:25", remote=True)
REFUSED = Outcome(Verdict.REFUSED, Reply(550, "5.1.1", "nobody here"), "mx.a.test[192.0.2.1]:25", remote=True)
DEFERRED = Outcome(Verdict.DEFERRED, Reply(451, "4.3.0", "later"), "mx.a.test[192.0.2.1]:25", remote=True)
RUNNING = Outcome(Verdict.RUNNING, Reply(451, "4.4.7", "no answer yet"))
UNTRIED = Outcome(Verdict.UNTRIED, Reply(451, "4.4.7", "not tried yet"))
UNREACHABLE = Outcome(Verdict.DEFERRED, Reply(451, "4.4.1", "connection refused"))


def ruled(outcome: Outcome, fate: Fate, scope: Scope = Scope.MESSAGE, wait: float = 0.0) -> Outcome:
    """The same outcome with a ruling."""
    ruling = Ruling("made up", scope, fate)
    return Outcome(outcome.verdict, outcome.reply, outcome.relay, outcome.remote, ruling=ruling, wait=wait)


def letter(
    *to: str | Delivery,
    id: str = "id1",
    sender: str | None = "writer@stranger.test",
    bounceable: bool = True,
    kind: Kind = Kind.MAIL,
    progress: Sequence[Progress] = (),
    trusted: bool = True,
) -> Letter:
    """A letter whose parts are QUEUED after one attempt."""
    deliveries = tuple(one if isinstance(one, Delivery) else delivery(one) for one in to or ("me@a.test",))
    original = parse_mailbox(sender) if sender else None
    content = MemoryContent(b"From: Writer <writer@stranger.test>\r\nSubject: hello\r\n\r\nbody\r\n")
    message = Outgoing(id, parse_mailbox("srs@fwd.test"), original, MailOptions(), content, deliveries, trusted)
    queued = tuple(Progress(State.QUEUED, RECEIVED, 1) for _ in deliveries)
    return Letter(message, RECEIVED, tuple(progress) or queued, kind, bounceable)


def delivery(to: str, *notify: str, alias: str = "", head: bytes = b"Received: x\r\n") -> Delivery:
    """To a destination, by default through an alias of its own."""
    address = parse_mailbox(to)
    recipient = parse_mailbox(alias) if alias else Address(f"{address.local}.{address.domain}", "ours.test")
    return Delivery(recipient, Destination(address), head, RcptOptions(frozenset(notify)))


def settings(**more: object) -> SettlementSettings:
    """Letters of ours go where they are addressed to."""
    values: dict[str, object] = {"hostname": "mx.ours.test", "where": lambda address: (Destination(address),)}
    return SettlementSettings(**{**values, **more})  # type: ignore[arg-type]
