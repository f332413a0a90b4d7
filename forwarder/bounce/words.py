"""The part of a DSN that people read: what happened, why, and what to do, in plain words.

Only the address that the sender wrote to is named. Where its mail goes from there is not for the sender to know, so
it is told only where the next hop's own words do.
"""

from collections.abc import Sequence
from email.utils import format_datetime
from enum import Enum

from forwarder.bounce.mime import one_line, paragraph, shown
from forwarder.bounce.report import Action, Report, Told
from forwarder.bounce.status import MAX_REPLY, by_alias


class Returned(Enum):
    """What of the original message is attached, and how that is said."""

    NOTHING = ""
    HEADER = "The header of your message is attached."
    MESSAGE = "Your message is attached."


SUBJECTS = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message has not been delivered yet",
    Action.RELAYED: "Your message was handed on",
}
_HAPPENED = {
    Action.FAILED: "Your message of {arrived} could not be delivered to {whom}:",
    Action.DELAYED: "Your message of {arrived} has not been delivered yet to {whom}:",
    Action.RELAYED: "Your message of {arrived} was handed on for {whom}, to a mail system that does not report:",
}
_ADVICE = {
    Action.FAILED: (
        "It will not be tried again. Please check that the address is right. If it is, the reason given may say what"
        " to change before you send the message again; otherwise try to reach the person in another way."
    ),
    Action.DELAYED: (
        "Nothing is lost, and there is nothing that you need to do: please do not send it again. It will be tried"
        " again{until}. If it cannot be delivered by then, you will be told."
    ),
    Action.RELAYED: (
        "You asked to be told. The next mail system has accepted your message, but does not report deliveries: you"
        " will not be told when it is delivered. Nothing is wrong, and there is nothing that you need to do."
    ),
}


def explain(report: Report, returned: Returned) -> list[str]:
    """Give the lines of the text."""
    whom = "this address" if len(by_alias(report.recipients)) == 1 else "these addresses"
    until = f" until {format_datetime(report.expires)}" if report.expires else " for some time"
    happened = _HAPPENED[report.action].format(arrived=format_datetime(report.arrived), whom=whom)
    return [
        *paragraph(f"This is the mail system at {report.hostname}."),
        "",
        *paragraph(happened),
        "",
        *_recipients(report),
        *paragraph(_ADVICE[report.action].replace("{until}", until)),
        *(("", *paragraph(returned.value)) if returned.value else ()),
        "",
        *paragraph("This message was written by a program. Replies to it reach the people who run the mail system."),
    ]


def _recipients(report: Report) -> list[str]:
    lines: list[str] = []
    for told in by_alias(report.recipients):
        lines += [f"    {shown(told[0].alias, report.hostname)}", ""]
        if report.action is not Action.RELAYED:
            lines += _reasons(told)
    return lines


def _reasons(recipients: Sequence[Told]) -> list[str]:
    """Quote each thing that was said of one address, once."""
    reasons = dict.fromkeys(filter(None, (one_line(told.reply, MAX_REPLY) for told in recipients)))
    if not reasons:
        return []
    return ["    The reason given:", *(line for reason in reasons for line in paragraph(reason, "        ")), ""]
