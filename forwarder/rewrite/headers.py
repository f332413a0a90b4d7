"""The header lines that we put in front of a message, as octets.

Everything here is ASCII and built from values that were parsed before, so no peer can add a line of its own. One block
per recipient and destination: a copy never shows who else was written to, nor where else it goes. X-Forwarded-To and
X-Forwarded-For are what Google asks forwarders for.

A signature that came with the message may name a field of ours in h= and hold only as long as there is none more of
that name (RFC 6376 5.4.2): such a field can be left out. `Received` cannot, as RFC 5321 4.4 demands it.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from forwarder.model.address import Address
from forwarder.model.envelope import Peer, Tls

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
_NOT_ASCII = re.compile(r"[^ -~]")
_WIDTH = 78  # RFC 5322 2.1.1


@dataclass(frozen=True, slots=True)
class Hand:
    """How a message came in. `name` is the verified reverse name or ""; `extended` says that it greeted with EHLO."""

    peer: Peer
    helo: str
    name: str
    extended: bool
    smtputf8: bool
    tls: Tls | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What our own lines say of one message."""

    hostname: str
    message_id: str
    received: datetime
    hand: Hand


@dataclass(frozen=True, slots=True)
class Way:
    """One way through us: the address of ours that was written to, and where its mail goes."""

    recipient: Address
    destination: Address


def head(trace: Trace, way: Way, results: bytes = b"", leave_out: frozenset[bytes] = frozenset()) -> bytes:
    """Give our lines for one copy, the topmost first, each ended by CRLF.

    `results` is the Authentication-Results field, or nothing. Of the names (lower-case) in `leave_out` nothing is
    added, but for Received.
    """
    fields = (
        (b"x-forwarded-to", forwarded_to(way)),
        (b"x-forwarded-for", forwarded_for(way)),
        (b"delivered-to", delivered_to(way.recipient)),
        (b"authentication-results", results),
    )
    return b"".join(field for name, field in fields if name not in leave_out) + received(trace, way.recipient)


def forwarded_to(way: Way) -> bytes:
    """Say where this copy goes."""
    return b"X-Forwarded-To: " + _written(way.destination) + b"\r\n"


def forwarded_for(way: Way) -> bytes:
    """Say for whom it was, and where it goes."""
    line = b"X-Forwarded-For: " + _written(way.recipient)
    destination = _written(way.destination)
    fold = b"\r\n" if len(line) + len(destination) >= _WIDTH else b""
    return line + fold + b" " + destination + b"\r\n"


def delivered_to(recipient: Address) -> bytes:
    """Give the loop mark."""
    return b"Delivered-To: " + mark(recipient) + b"\r\n"


def mark(recipient: Address) -> bytes:
    """Give an address as the loop mark shows it, with its case folded."""
    return _written(Address(*recipient.key)).lower()


def _written(address: Address) -> bytes:
    """Write an address, beyond ASCII in RFC 6533 3's xtext form."""
    return _NOT_ASCII.sub(lambda match: f"\\x{{{ord(match[0]):X}}}", str(address)).encode("ascii")


def received(trace: Trace, recipient: Address) -> bytes:
    """Give the trace line of RFC 5321 4.4."""
    hand = trace.hand
    cipher = f" ({hand.tls.version} {hand.tls.cipher})" if hand.tls else ""
    target = f"\r\n\tfor <{recipient}>" if recipient.is_ascii and recipient.domain else ""
    return (
        f"Received: from {_name(hand.helo)} ({_name(hand.name) or 'unknown'} {_literal(hand.peer.address)})"
        f"\r\n\tby {trace.hostname} with {_protocol(hand)}{cipher} id {trace.message_id}{target};"
        f"\r\n\t{format_datetime(trace.received)}\r\n"
    ).encode("ascii")


def _protocol(hand: Hand) -> str:
    """Name the protocol as RFC 3848 and RFC 6531 4.3 register it."""
    if not hand.extended:
        return "SMTP"
    secured = "S" if hand.tls else ""
    return f"UTF8SMTP{secured}" if hand.smtputf8 else f"ESMTP{secured}"


def _literal(address: str) -> str:
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"  # RFC 5321 4.1.3


def _name(text: str) -> str:
    """Keep a name from being read as a comment or as the end of the clause."""
    return _NOT_IN_NAME.sub("?", text)
