"""One message to the postmaster about many letters that are held: why, and what to do about it.

`compose_notice` gives all of it: CRLF at every line, 7-bit throughout, at most `MAX_SIZE` octets. It never fails, and
nothing that a peer sent adds a line to it. It is sent with the null sender, so that it is never answered by a DSN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from forwarder.bounce import mime
from forwarder.model.address import Address

MAX_ITEMS = 50  # listed; the rest is counted
MAX_SIZE = 65_536  # octets

_MAX_REASON = 400  # characters
_MAX_MESSAGE_ID = 250
_MAX_FIELDS = 4_000  # octets, more than the header takes


@dataclass(frozen=True, slots=True)
class Item:
    """One recipient of one letter. `alias` is the address of ours, `destination` where its mail goes.

    `sender` is the MAIL FROM as received, None the null sender; `author` is the From header's address or "",
    `message_id` the header's or "". `reason` is one line. `until` says how long it is kept; None: until somebody
    decides. Times are aware.
    """

    letter: str
    received: datetime
    sender: Address | None
    alias: Address
    destination: Address
    reason: str
    author: str = ""
    message_id: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What the postmaster is to be told. `id` is the notice's own; `more` counts what is not among `items`."""

    hostname: str
    id: str
    to: Address
    now: datetime
    items: tuple[Item, ...]
    more: int = 0


def compose_notice(notice: Notice) -> bytes:
    """Give the message, with as many of the first items as fit."""
    listed = min(len(notice.items), MAX_ITEMS)
    part = mime.plain_text(_text(notice, listed))
    while len(part.body) > MAX_SIZE - _MAX_FIELDS:  # ends: without any item the text is short
        listed = listed * 3 // 4
        part = mime.plain_text(_text(notice, listed))
    lines = [
        f"From: Mail gateway <postmaster@{notice.hostname}>",
        f"To: {mime.mailbox(notice.to, notice.hostname)}",
        f"Subject: {_held(_total(notice))} held on {notice.hostname}",
        f"Date: {format_datetime(notice.now)}",
        f"Message-ID: <{notice.id}@{notice.hostname}>",
        "Auto-Submitted: auto-generated",  # RFC 3834 5
        "MIME-Version: 1.0",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii") + bytes(part)


def _total(notice: Notice) -> int:
    return len(notice.items) + notice.more


def _held(count: int) -> str:
    return "1 delivery is" if count == 1 else f"{count} deliveries are"


def _text(notice: Notice, listed: int) -> list[str]:
    rest = _total(notice) - listed
    return [
        *mime.paragraph(
            f"{_held(_total(notice))} held on {notice.hostname}: what is listed here could not be delivered, and its"
            " sender may not be told. Nothing is lost; you decide what becomes of it."
        ),
        "",
        "    forwarder queue show ID                    look at it",
        "    forwarder queue release ID                 try it again",
        "    forwarder queue resend ID --to ADDRESS     send it to another address",
        "    forwarder queue delete ID                  delete it",
        "",
        *_by_reason(notice.items[:listed], notice.hostname),
        *([f"and {rest} more: `forwarder queue list --state held`"] if rest else []),
    ]


def _by_reason(items: Sequence[Item], hostname: str) -> list[str]:
    """List items, those with one reason together, so that it is read once."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(mime.one_line(item.reason, _MAX_REASON), []).append(item)
    lines: list[str] = []
    for reason, group in groups.items():
        lines += [*mime.paragraph(reason or "(no reason is known)"), ""]
        for item in group:
            lines += [f"    {line}" for line in _item(item, hostname)] + [""]
    return lines


def _item(item: Item, hostname: str) -> list[str]:
    alias, destination = mime.shown(item.alias, hostname), mime.shown(item.destination, hostname)
    sender = mime.shown(item.sender, hostname) if item.sender else "<>"
    author = mime.one_line(item.author, mime.MAX_LINE // 2)
    message_id = mime.one_line(item.message_id, _MAX_MESSAGE_ID)
    until = format_datetime(item.until) if item.until else "you decide"
    return [
        item.letter,
        f"  for {alias}, which leads to {destination}",
        f"  from {sender}" + (f", written by {author}" if author and author != sender else ""),
        *([f"  Message-ID {message_id}"] if message_id else []),
        f"  received {format_datetime(item.received)}",
        f"  kept until {until}",
    ]
