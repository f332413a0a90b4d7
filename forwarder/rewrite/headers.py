"""The header lines that we put in front of a message, as octets.

Everything here is ASCII and built from values that were parsed before, so no peer can add a line of its own. One block
per recipient: a copy never shows who else was written to.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from forwarder.model.address import Address
from forwarder.model.envelope import Peer, Tls

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9.:_\[\]-]")


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


def head(trace: Trace, recipient: Address, results: bytes = b"") -> bytes:
    """Give our lines for one recipient, the topmost first, each ended by CRLF; `results` says what was checked."""
    return delivered_to(recipient) + results + received(trace, recipient)


def delivered_to(recipient: Address) -> bytes:
    """Give the loop mark."""
    return b"Delivered-To: " + mark(recipient) + b"\r\n"


def mark(recipient: Address) -> bytes:
    """Give an address as the loop mark shows it, case folded; beyond ASCII in RFC 6533 3's xtext form."""
    local, domain = recipient.key
    text = str(Address(local, domain))
    return re.sub(r"[^ -~]", lambda match: f"\\x{{{ord(match[0]):X}}}", text).lower().encode("ascii")


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
