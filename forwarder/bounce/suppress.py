"""When no DSN may be sent, and which ones a sender wants. Never raises; time is linear in the header.

In doubt there is silence: a DSN too few is seen by the owner, who is told instead, a DSN too many can make a loop or
reach somebody who sent nothing.

Every field of RFC 2369 and 2919 marks a list, List-Unsubscribe too, though newsletters have it whose senders do read
bounces: what was sent to thousands at once is not for us to answer one by one, and such senders are told by the
session's refusals, which is where nearly all permanent failures are found.
"""

import re
from collections.abc import Iterable

from forwarder.bounce.report import Action
from forwarder.model.address import Address
from forwarder.model.envelope import RcptOptions
from forwarder.model.headers import MAX_FIELDS, Header

_NOTIFIED = {Action.FAILED: "FAILURE", Action.DELAYED: "DELAY", Action.RELAYED: "SUCCESS"}
_PROGRAMS = re.compile(r"mailer-daemon|owner-.*|.*-request", re.DOTALL)  # RFC 3834 2
_LIST = frozenset(
    # RFC 2919 3; RFC 2369 3; RFC 8058 3.1; the last from before these
    b"list-id list-help list-unsubscribe list-subscribe list-post list-owner list-archive list-unsubscribe-post"
    b" mailing-list".split()
)
_BULK = frozenset((b"bulk", b"list", b"junk", b"auto_reply"))  # RFC 3834 3.1.8, RFC 2076 3.9
_NO_REPORTS = frozenset((b"dr", b"ndr", b"all"))  # MS-OXCMAIL 2.2.3.2.14: delivery reports, non-delivery reports
_REPORTS = frozenset(
    (
        *(b"multipart/report", b"message/delivery-status", b"message/global-delivery-status"),
        *(b"message/disposition-notification", b"message/global-disposition-notification"),
    )
)
_TOKEN = re.compile(rb"\\.|[()]|[^\\()]++|\\", re.DOTALL)


def silence(sender: Address | None, header: Header) -> str:
    """Say why no DSN may answer a message, by its sender and header section; "" if one may."""
    if sender is None:
        return "it has the null sender"  # RFC 5321 4.5.5, 6.1
    if _PROGRAMS.fullmatch(sender.local.lower()):
        return "its sender is a program or a list"
    if not header.complete or len(header.fields) > MAX_FIELDS:
        return "its header is too long to tell"
    if _LIST.intersection(field.name for field in header.fields):
        return "it came from a list"
    return _by_values(header)


def wants(options: RcptOptions, action: Action) -> bool:
    """Say whether a recipient's NOTIFY lets such a DSN go (RFC 3461 4.1).

    Without NOTIFY failures are told, and delays where they are told at all (RFC 3461 5.2.5); success never.
    """
    if not options.notify:
        return action is not Action.RELAYED
    return "NEVER" not in options.notify and _NOTIFIED[action] in options.notify


def _by_values(header: Header) -> str:
    if any(_first(value) != b"no" for value in _values(header, b"auto-submitted")):  # RFC 3834 5
        return "it was sent by a program"
    if _BULK.intersection(map(_first, _values(header, b"precedence"))):
        return "it was sent in bulk"
    if any(
        _NO_REPORTS.intersection(re.split(rb"[,;]", value)) for value in _values(header, b"x-auto-response-suppress")
    ):
        return "it asks for no reports"
    if _REPORTS.intersection(map(_first, _values(header, b"content-type"))):
        return "it is a report itself"  # DSNs about DSNs could go on for ever
    if b"<>" in _values(header, b"return-path"):
        return "it had the null sender before"
    return ""


def _values(header: Header, name: bytes) -> list[bytes]:
    return [_bare(field.value) for field in header.all(name)]


def _first(value: bytes) -> bytes:
    """Give what stands before the parameters."""
    return value.partition(b";")[0]


def _bare(value: bytes) -> bytes:
    """Give a value without comments (RFC 5322 3.2.2) and white space, in lower case.

    What a quoted string may hold does not matter: it can stand among parameters only.
    """
    return b"".join(b"".join(_outside(value)).split()).lower()


def _outside(value: bytes) -> Iterable[bytes]:
    depth = 0
    for token in _TOKEN.findall(value):
        if token == b"(":
            depth += 1
        elif token == b")" and depth:
            depth -= 1
        elif not depth:
            yield token
