"""Giving a message into the spool's custody, whatever happens to the client meanwhile.

Once begun, it goes through: a sender that goes away does not know of it and will come again, and then the courier knows
what has been taken. What becomes of the message in the spool is decided there (`ports.Keeper`).
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from forwarder.bounce.suppress import silence
from forwarder.model.headers import Header
from forwarder.model.letter import Letter, Part, Progress, State
from forwarder.model.message import Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ports import EventLog, NotKept
from forwarder.session.gateway import Gateway
from forwarder.smtp.replies import printable

_SHOWN = 250  # characters of a header field that the log and the owner are shown
_UNDER_WAY: set["asyncio.Future[None]"] = set()  # the loop holds tasks weakly


async def keep(gateway: Gateway, letter: Letter, outcomes: Sequence[Outcome], log: EventLog) -> Reply | None:
    """Give a message into custody; give the reply that says why that failed, or None."""
    keeping = asyncio.ensure_future(gateway.keeper.keep(letter, outcomes))
    _UNDER_WAY.add(keeping)
    keeping.add_done_callback(_UNDER_WAY.discard)
    try:
        await asyncio.shield(keeping)
    except NotKept as error:
        log.event("alert", component="spool", text=str(error))
        return error.reply
    except asyncio.CancelledError:  # the sender has gone, or we stop; it does not know, and will come again
        keeping.add_done_callback(lambda done: _kept_unheard(gateway, letter.message, outcomes, done))
        raise
    _entrust(gateway, letter.message)
    return None


def _entrust(gateway: Gateway, message: Outgoing) -> None:
    def settled(index: int, outcome: Outcome) -> None:
        gateway.keeper.settled(Part(message.id, index), outcome)

    gateway.courier.entrust(message, settled)


def _kept_unheard(
    gateway: Gateway, message: Outgoing, outcomes: Sequence[Outcome], keeping: "asyncio.Future[None]"
) -> None:
    if keeping.cancelled():
        return
    if keeping.exception() is None:
        _entrust(gateway, message)
        note_unheard(gateway, message)
    elif has_gone_out(outcomes):
        note_unheard(gateway, message)


def has_gone_out(outcomes: Sequence[Outcome]) -> bool:
    """Whether a next hop has some of a message, or may have it yet: a sender that comes again must not make copies."""
    return any(outcome.verdict in (Verdict.DELIVERED, Verdict.RUNNING) for outcome in outcomes)


def note_unheard(gateway: Gateway, message: Outgoing) -> None:
    """Note that the sender does not know of its success."""
    noting = asyncio.ensure_future(gateway.courier.unheard(message))
    _UNDER_WAY.add(noting)
    noting.add_done_callback(_UNDER_WAY.discard)


async def finish() -> None:
    """Wait for what was begun for senders that have gone."""
    while _UNDER_WAY:
        await asyncio.wait(set(_UNDER_WAY))


def letter_of(message: Outgoing, received: datetime, header: Header) -> Letter:
    """Give what the spool needs to know of a message."""
    return Letter(
        message,
        received,
        tuple(Progress(State.QUEUED) for _ in message.deliveries),
        bounceable=message.authenticated and not silence(message.original_sender, header),
        author=_line(header, b"from"),
        message_id=_line(header, b"message-id"),
    )


def is_owed_report(message: Outgoing, outcomes: Sequence[Outcome]) -> bool:
    """Whether the sender asked for a DSN of success that a next hop will not send (RFC 3461 5.2.2)."""
    delivered = (
        one.options
        for one, outcome in zip(message.deliveries, outcomes, strict=True)
        if outcome.verdict is Verdict.DELIVERED and not outcome.notifies
    )
    return message.authenticated and any("SUCCESS" in options.notify for options in delivered)


def _line(header: Header, name: bytes) -> str:
    """Give the first field of a name as one printable line of a bounded length."""
    field = next(iter(header.all(name)), None)
    return printable(" ".join(field.value.decode("utf-8", "replace").split())[:_SHOWN]) if field else ""
