"""One command line: the verb and its argument, or why it is none.

Pure. `read_command` takes a line with its ending and gives a `Command`, or the `Reply` that refuses it (with `close`
where going on would be unsafe). Arguments are not interpreted, but they never hold control characters.
"""

import re
from dataclasses import dataclass

from forwarder.model.reply import Reply

BARE_LF = Reply(500, "5.5.2", "End lines with CR and LF, not with LF alone", close=True)
CONTROLS = Reply(500, "5.5.2", "The command has control characters")
CONTROLS_IN_ARGUMENT = Reply(501, "5.5.2", "The argument has control characters")
EMPTY = Reply(500, "5.5.2", "An empty line is not a command")
TOO_LONG = Reply(500, "5.5.2", "The command line is too long")
UNKNOWN = Reply(500, "5.5.1", "The command is not known here")
NOT_HTTP = Reply(421, "4.7.0", "This is a mail server: HTTP is not spoken here", close=True)
# What follows is of no known length to us, so nothing after it can be taken for a command (RFC 3030 2).
NO_BDAT = Reply(502, "5.5.1", "BDAT is not offered here: use DATA", close=True)

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_HTTP = {b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"PATCH", b"TRACE"}
_UNIMPLEMENTED = {
    b"EXPN": "EXPN is not done here: lists are nobody's business",
    b"TURN": "TURN is not done here: it proves nothing about who asks (RFC 5321 F.1)",
    b"ETRN": "ETRN is not done here: mail is handed on at once",
    b"ATRN": "ATRN is not done here: mail is handed on at once",
    b"SEND": "SEND is not done here (RFC 5321 F.6): use MAIL",
    b"SOML": "SOML is not done here (RFC 5321 F.6): use MAIL",
    b"SAML": "SAML is not done here (RFC 5321 F.6): use MAIL",
}


@dataclass(frozen=True, slots=True)
class Command:
    """`verb` in upper case, `argument` without spaces before it and white space after it."""

    verb: bytes
    argument: bytes


def read_command(line: bytes) -> Command | Reply:
    """Read one line, which ends in LF."""
    if not line.endswith(b"\r\n"):
        return BARE_LF  # RFC 5321 2.3.8
    verb, _, argument = line[:-2].rstrip(b" \t").partition(b" ")  # RFC 5321 4.1.1: tolerate trailing white space
    verb = verb.upper()  # RFC 5321 2.4: without regard to case
    if verb in _HTTP:
        return NOT_HTTP
    if _CONTROLS.search(verb):
        return CONTROLS
    if _CONTROLS.search(argument):
        return CONTROLS_IN_ARGUMENT
    return Command(verb, argument.lstrip(b" ")) if verb else EMPTY


def refusal(verb: bytes) -> Reply:
    """Give the reply to a verb that is not carried out."""
    if verb == b"BDAT":
        return NO_BDAT
    if verb in _UNIMPLEMENTED:
        return Reply(502, "5.5.1", _UNIMPLEMENTED[verb])
    return UNKNOWN
