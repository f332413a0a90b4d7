"""Reports that several tests of this package compose."""

from datetime import UTC, datetime

from forwarder.bounce.report import Action, Report, Told
from forwarder.model.address import Address
from forwarder.model.envelope import RcptOptions
from forwarder.model.message import MemoryContent

ARRIVED = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
TRIED = datetime(2026, 11, 22, 9, 31, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 9, 32, tzinfo=UTC)
EXPIRES = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
SENDER = Address("anna", "there.example")
INFO = Address("info", "ours.example")
RELAY = "mx.inbox.example[192.0.2.25]:25"
UNKNOWN = "550 5.1.1 The email account that you tried to reach does not exist"

HEADER = (
    b"Received: from there.example by mx.ours.example; Sun, 22 Nov 2026 09:30:00 +0000\r\n"
    b"Message-ID: <m1@there.example>\r\n"
    b"From: Anna <anna@there.example>\r\n"
    b"Subject: Hello\r\n"
)
ORIGINAL = MemoryContent(HEADER + b"\r\nDear all,\r\n.\r\nAnna\r\n")


def told(**changed: object) -> Told:
    values: dict[str, object] = {"alias": INFO, "reply": UNKNOWN, "relay": RELAY, "when": TRIED, **changed}
    return Told(**values)  # type: ignore[arg-type]


def report(**changed: object) -> Report:
    values: dict[str, object] = {
        "action": Action.FAILED,
        "hostname": "mx.ours.example",
        "id": "4f3a01",
        "to": SENDER,
        "now": NOW,
        "arrived": ARRIVED,
        "recipients": (told(),),
        **changed,
    }
    return Report(**values)  # type: ignore[arg-type]


FULL = report(
    recipients=(
        told(options=RcptOptions(frozenset({"FAILURE"}), "rfc822;Info+2Bsales@ours.example")),
        told(
            alias=Address("büro", "ours.example"),
            reply="552 5.2.2 Mailbox full",
            options=RcptOptions(orcpt="utf-8;b\\x{FC}ro@ours.example"),
            relay="2001:db8::25[2001:db8::25]:25",
        ),
    ),
    envid="QQ+2B314159",
    ret="FULL",
)
DELAYED = report(
    action=Action.DELAYED,
    recipients=(told(reply="421 4.4.1 No host can be reached", relay=""),),
    ret="FULL",
    expires=EXPIRES,
)
RELAYED = report(
    action=Action.RELAYED,
    recipients=(told(reply="250 2.0.0 OK", options=RcptOptions(frozenset({"SUCCESS"}))),),
)
