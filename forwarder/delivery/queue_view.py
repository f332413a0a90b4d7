"""How a letter in the queue looks to the operator: as JSON has it, and the octets of it.

The keys of `fields` are what `forwarder queue list --json` prints (section 8 of the design); times are RFC 3339 in UTC.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain

from forwarder.delivery.queue_selection import NULL_SENDER, sender_text
from forwarder.model.letter import Letter, State
from forwarder.model.message import Outgoing

MAX_SLICE = 8 << 20  # octets of content in one answer
MAX_HEADER = 1 << 20  # octets of header lines that are shown


def header(octets: bytes) -> bytes:
    """Give what stands before the first empty line (RFC 5322 2.1)."""
    if octets.startswith(b"\r\n"):
        return b""
    end = octets.find(b"\r\n\r\n")
    return octets if end < 0 else octets[: end + 2]


def octets_from(message: Outgoing, number: int, offset: int) -> bytes:
    """Give the octets from `offset` of what a recipient would get, at most `MAX_SLICE` of them."""
    found: list[bytes] = []
    begin, end = offset, offset + MAX_SLICE
    position = 0
    for piece in chain((message.deliveries[number].head,), message.content.chunks()):
        found.append(piece[max(begin - position, 0) : max(end - position, 0)])
        position += len(piece)
        if position >= end:
            break
    return b"".join(found)


def fields(letter: Letter, selected: Sequence[int]) -> dict[str, object]:
    """Give a letter as JSON has it; `selected` on a recipient says that it is one of those that were asked for."""
    message = letter.message
    dues = [one.due for one in letter.progress if one.state is State.QUEUED and one.due is not None]
    return {
        "id": message.id,
        "from": sender_text(letter),
        "to": [_recipient(letter, number, number in selected) for number in range(len(letter.progress))],
        "size": message.content.size,
        "received": _time(letter.received),
        "next_attempt": _time(min(dues)) if dues else None,
        "kind": letter.kind.value,
        "sent_as": str(message.sender) if message.sender is not None else NULL_SENDER,
        "author": letter.author,
        "message_id": letter.message_id,
        "bounceable": letter.bounceable,
    }


def _recipient(letter: Letter, number: int, selected: bool) -> dict[str, object]:
    delivery, progress = letter.message.deliveries[number], letter.progress[number]
    destination = delivery.destination
    return {
        "address": str(delivery.recipient),
        "state": progress.state.value,
        "reason": progress.reply,
        "destination": str(destination.address),
        "via": str(destination.via) if destination.via is not None else None,
        "number": number,
        "attempts": progress.attempts,
        "relay": progress.relay,
        "next_attempt": _time(progress.due) if progress.state is State.QUEUED and progress.due is not None else None,
        "waited": round(progress.waited),
        "owner_told": not progress.untold,
        "delay_notices": progress.noticed,
        "selected": selected,
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # RFC 3339 5.6
