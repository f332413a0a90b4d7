"""What a sender is to be told, as values; `forwarder.bounce.compose` puts it into words."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from forwarder.model.address import Address
from forwarder.model.envelope import RcptOptions


class Action(Enum):
    """What became of a message, in the words of RFC 3464 2.3.3."""

    FAILED = "failed"  # given up
    DELAYED = "delayed"  # not delivered yet, and still tried
    RELAYED = "relayed"  # handed on to a system that sends no DSNs


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one recipient. `alias` is the address of ours that the sender wrote to.

    `reply` are the last words heard, on one line, as `str(Reply)` and `Progress.reply` have them: "550 5.1.1 Unknown".
    `status` is an enhanced code (RFC 3463) that counts instead of the one in `reply`, or "". `relay` names who said it
    as `host[ip]:port`; "" when it was us. `when` is the time of the last attempt, aware; None where there was none.
    """

    alias: Address
    reply: str
    options: RcptOptions = field(default_factory=RcptOptions)
    status: str = ""
    relay: str = ""
    when: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One DSN: the same `action` for all `recipients`, of which there is at least one. Every time is aware.

    `id` is the DSN's own, letters and digits; `to` the sender of the original message, which came at `arrived` and was
    given the id `about` then, "" where that is not known; `envid` and `ret` are as in `MailOptions`; `expires` says
    until when a DELAYED message is tried.
    """

    action: Action
    hostname: str
    id: str
    to: Address
    now: datetime
    arrived: datetime
    recipients: tuple[Told, ...]
    envid: str = ""
    ret: str = ""
    expires: datetime | None = None
    about: str = ""
