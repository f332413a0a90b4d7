"""The part of a DSN that programs read: message/delivery-status (RFC 3464 2).

Every field is on lines of ASCII, whatever peers have sent: an address beyond ASCII is written in RFC 6533 3's 7-bit
form, which readers that do not know it take for an unknown type, and not as message/global-delivery-status, which
they cannot read at all. A parameter that cannot be what the session let through leaves its field out.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from email.utils import format_datetime
from textwrap import wrap

from forwarder.bounce.mime import WIDTH, one_line, shown
from forwarder.bounce.report import Action, Report, Told
from forwarder.smtp.replies import printable

MAX_REPLY = 800  # characters quoted: with no space in it, it must fit into a line
_MAX_VALUE = 900  # characters of an address or ENVID, so that it fits into a line: what a stranger chose may end there

_ENHANCED = r"[245](?:\.(?:0|[1-9][0-9]{0,2})){2}"  # RFC 3463 2
_STATUS = re.compile(_ENHANCED)
_REPLY = re.compile(rf"([2-5])[0-9]{{2}}(?: ({_ENHANCED}))?(?: |\Z)")
# RFC 3463 2: a failure is permanent, or temporary and given up; the first one is taken where a code is of neither.
_CLASSES = {Action.FAILED: "54", Action.DELAYED: "4", Action.RELAYED: "2"}
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})+")  # RFC 3461 4
_ORCPT = re.compile(r"([A-Za-z0-9!#$%&'*/?^_`{|}~-]{1,60});(.+)", re.DOTALL)  # RFC 3461 4.2
_QCHAR = re.compile(r"[!-*,-<>-\[\]-~]")  # RFC 6533 3
_UNIT = re.compile(r"\\x\{[0-9A-F]{2,6}\}|.", re.DOTALL)  # RFC 6533 3 EmbeddedUnicodeChar, or one to be looked at
_RELAY = re.compile(r"([A-Za-z0-9_.:-]*)\[([0-9A-Fa-f.:]+)\](?::[0-9]+)?")


def delivery_status(report: Report) -> bytes:
    """Give the body of the part: a group of fields for the message and one for each address (RFC 3464 2.1)."""
    groups = (_of_message(report), *(_of_recipient(report, told[0]) for told in by_alias(report.recipients)))
    return "\r\n".join("".join(f"{line}\r\n" for line in group) for group in groups).encode("ascii")


def by_alias(recipients: Iterable[Told]) -> Sequence[Sequence[Told]]:
    """Group by alias: an alias with several destinations is still one recipient for the sender, told by the first."""
    groups: dict[tuple[str, str], list[Told]] = {}
    for told in recipients:
        groups.setdefault(told.alias.key, []).append(told)
    return tuple(groups.values())


def status(action: Action, told: Told) -> str:
    """Give the enhanced code of what happened, of a class that agrees with the action (RFC 3464 2.3.4)."""
    match = _REPLY.match(told.reply)
    code = told.status or (match and match[2]) or ""
    classes = _CLASSES[action]
    if not _STATUS.fullmatch(code):
        expired = action is Action.FAILED and match is not None and match[1] == "4"
        return "4.4.7" if expired else f"{classes[0]}.0.0"  # RFC 3463 3.5: nothing more exact is known
    if code[0] in classes:
        return code
    if "2" in (code[0], classes[0]):
        return f"{classes[0]}.0.0"  # what a success says in detail makes no sense of a failure, nor the reverse
    return classes[0] + code[1:]


def _of_message(report: Report) -> Iterable[str]:
    if _XTEXT.fullmatch(report.envid):
        yield f"Original-Envelope-Id: {_decoded(report.envid)}"  # RFC 3464 2.2.1, RFC 3461 6.3 (a)
    yield f"Reporting-MTA: dns; {report.hostname}"  # RFC 3464 2.2.2
    yield f"Arrival-Date: {format_datetime(report.arrived)}"  # RFC 3464 2.2.5
    if report.about:
        yield f"X-Forwarder-ID: {report.about}"  # RFC 3464 2.4: what the sender was told with our 250


def _of_recipient(report: Report, told: Told) -> Iterable[str]:
    if original := _original(told.options.orcpt):
        yield f"Original-Recipient: {original}"  # RFC 3464 2.3.1
    # RFC 3464 2.3.2, 4.2: the address as the sender knows it, since where it leads is not the sender's business
    yield f"Final-Recipient: {_typed(shown(told.alias, report.hostname))}"
    yield f"Action: {report.action.value}"  # RFC 3464 2.3.3
    yield f"Status: {status(report.action, told)}"  # RFC 3464 2.3.4
    if host := _remote(told.relay):
        yield f"Remote-MTA: dns; {host}"  # RFC 3464 2.3.5
    yield from _diagnostic(told)
    if told.when is not None:
        yield f"Last-Attempt-Date: {format_datetime(told.when)}"  # RFC 3464 2.3.7
    yield from _retried(report.action, report.expires)


def _retried(action: Action, expires: datetime | None) -> Iterable[str]:
    if action is Action.DELAYED and expires is not None:  # RFC 3464 2.3.9: of no other action
        yield f"Will-Retry-Until: {format_datetime(expires)}"


def _diagnostic(told: Told) -> list[str]:
    """Quote the reply; what nobody answered is not a reply of SMTP (RFC 3464 2.3.6)."""
    kind = "smtp" if told.relay and _REPLY.match(told.reply) else "X-Forwarder"
    text = printable(one_line(told.reply, MAX_REPLY))
    if not text:
        return []
    return wrap(
        f"Diagnostic-Code: {kind}; {text}", WIDTH, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False
    )


def _typed(address: str) -> str:
    """Give an address with its type (RFC 3464 2.3.2, RFC 6533 3)."""
    return f"rfc822; {address}" if address.isascii() else f"utf-8; {_embedded(address)}"


def _original(orcpt: str) -> str:
    """Give what the sender had said in ORCPT, decoded (RFC 3461 5.2.1, 6.3 (b)); "" where there is none."""
    match = _ORCPT.fullmatch(orcpt)
    if match is None:
        return ""
    if match[1].lower() == "utf-8":  # RFC 6533 3: has an encoding of its own
        return f"{match[1]}; {_embedded(_UNIT.findall(match[2]))}"
    return f"{match[1]}; {_decoded(match[2])}" if _XTEXT.fullmatch(match[2]) else ""


def _decoded(xtext: str) -> str:
    """Give what xtext stands for (RFC 3461 4), of what fits into a line."""
    return printable(re.sub(r"\+([0-9A-Fa-f]{2})", lambda match: chr(int(match[1], 16)), xtext))[:_MAX_VALUE]


def _embedded(units: Iterable[str]) -> str:
    """Give RFC 6533 3's utf-8-addr-xtext of characters and of what is embedded already, as far as it fits a line."""
    address = ""
    for unit in units:
        text = unit if len(unit) > 1 or _QCHAR.fullmatch(unit) else f"\\x{{{ord(unit):02X}}}"
        if len(address) + len(text) > _MAX_VALUE:
            break
        address += text
    return address


def _remote(relay: str) -> str:
    """Give the host's name, or its address as RFC 5321 4.1.3 writes it."""
    match = _RELAY.fullmatch(relay)
    if match is None:
        return ""
    host, ip = match.groups()
    if host.strip("0123456789.") and ":" not in host and len(host) <= 255:
        return host
    return f"[IPv6:{ip}]" if ":" in ip else f"[{ip}]"
