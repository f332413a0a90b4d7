"""A delivery status notification as one message: multipart/report of RFC 6522, RFC 3464, as RFC 3461 6 asks for it.

`compose` gives all of it: CRLF at every line, 7-bit throughout, no line over 998 octets, at most 300 kB unless the
recipients alone make more (each some 4 kB at the most). It is sent with the null sender (RFC 3461 6.1) and never
fails. Whatever a peer sent in it is decoded, encoded or made printable, so that it adds no field and no part.

Decisions where the RFCs leave room:

- From is postmaster@ our host: RFC 3464 2 wants a person there who is responsible for the system, and the other name
  that is in use, MAILER-DAEMON, is read by nobody. What keeps machines from answering is the null sender and
  Auto-Submitted, not the name.
- The whole message is returned only where the sender asked for it (RET=FULL) and delivery failed (RFC 3461 4.3, 6.2);
  otherwise the header is enough to recognise it by, and a forged sender is sent nobody's text.
- A message/rfc822 part may have no encoding but 7bit, 8bit and binary (RFC 2046 5.2.1), and declared as 8bit the DSN
  could not pass a next hop without 8BITMIME. So of what is not 7bit data the header alone is returned, in
  quoted-printable, which text/rfc822-headers may have (RFC 6522 4).
"""

import re
from collections.abc import Sequence
from email.utils import format_datetime

from forwarder.bounce import mime
from forwarder.bounce.report import Action, Report
from forwarder.bounce.status import delivery_status
from forwarder.bounce.words import SUBJECTS, Returned, explain
from forwarder.model.headers import Field, Header, split_header
from forwarder.model.message import Content

MAX_SIZE = 300_000  # octets of the whole, if the recipients leave room for it
MAX_MESSAGE = 262_144  # of an original that is returned whole
MAX_HEADER = 65_536  # of its header, before it is encoded

_FRAME = 4_000  # more than our own header fields, boundaries and the sentence about the attachment take
_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_ATOM = rb"%b(?:\.%b)*" % (_ATEXT, _ATEXT)
_MESSAGE_ID = re.compile(rb"<%b@(?:%b|\[[!-Z^-~]*\])>" % (_DOT_ATOM, _DOT_ATOM))  # RFC 5322 3.6.4
_MAX_MESSAGE_ID = 250


def compose(report: Report, original: Content) -> bytes:
    """Give the DSN of a report on the message `original`."""
    header = split_header(original.head(MAX_HEADER))
    status = mime.Part("message/delivery-status", delivery_status(report), description="Delivery report")
    explained = len(mime.plain_text(explain(report, Returned.HEADER)).body)
    returned, third = _returned(report, original, header, MAX_SIZE - _FRAME - explained - len(status.body))
    text = mime.plain_text(explain(report, returned), "Notification")
    boundary, body = mime.multipart([text, status, *third], report.id)  # RFC 6522 3: in this order
    return _header(report, header, boundary) + body


def _header(report: Report, header: Header, boundary: str) -> bytes:
    lines = [
        f"From: Mail Delivery System <postmaster@{report.hostname}>",
        f"To: {mime.mailbox(report.to, report.hostname)}",
        f"Subject: {SUBJECTS[report.action]}",
        f"Date: {format_datetime(report.now)}",
        f"Message-ID: <{report.id}@{report.hostname}>",
        *_thread(header),
        "Auto-Submitted: auto-replied",  # RFC 3834 5
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",  # RFC 6522 3
        f'\tboundary="{boundary}"',
        "",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _thread(header: Header) -> list[str]:
    """Name the original (RFC 3834 3.1.6, RFC 5322 3.6.4), where it has just one Message-ID that can be believed."""
    fields = header.all(b"message-id")
    if len(fields) != 1 or len(fields[0].value) > _MAX_MESSAGE_ID or not _MESSAGE_ID.fullmatch(fields[0].value):
        return []
    message_id = fields[0].value.decode("ascii")
    return [f"In-Reply-To: {message_id}", f"References: {message_id}"]


def _returned(report: Report, original: Content, header: Header, room: int) -> tuple[Returned, list[mime.Part]]:
    """Give the third part, or none where there is nothing or no room for it (RFC 6522 3: it is optional)."""
    if report.ret == "FULL" and report.action is Action.FAILED and 0 < original.size <= min(MAX_MESSAGE, room):
        octets = b"".join(original.chunks())
        if mime.is_seven_bit(octets):
            return Returned.MESSAGE, [mime.Part("message/rfc822", octets, description="Your message")]
    # What is cut off in the middle of a field goes: the last field may lack lines.
    complete = header.complete or original.size <= MAX_HEADER
    part = _headers_part(header.fields if complete else header.fields[:-1], room)
    return (Returned.HEADER, [part]) if part else (Returned.NOTHING, [])


def _headers_part(fields: Sequence[Field], room: int) -> mime.Part | None:
    octets = b"".join(field.raw for field in fields)
    encoding = "7bit"
    if not mime.is_seven_bit(octets):
        octets, encoding = mime.quoted_printable(octets), "quoted-printable"
    if not octets or len(octets) > room:
        return None
    return mime.Part("text/rfc822-headers", octets, encoding, "The header of your message")
