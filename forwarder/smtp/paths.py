"""What follows MAIL, RCPT, EHLO and HELO, read strictly by RFC 5321 4.1.1.1-4.1.1.3 and 4.1.2.

`parse_mail(argument)`, `parse_rcpt(argument)` and `parse_helo(argument)` take the octets after the verb and its space,
without the CRLF, and give a value, or raise `CommandError` with the exact reply to send. No octet of the client is
quoted in a reply but a parameter's keyword, which is letters, digits and hyphens. Time is linear in the argument, and
an address that comes out never holds CR, LF, NUL or another control character.

Decisions where the RFC leaves room, or the world does not keep to it:

- Spaces between the colon and `<` are let through, since many senders put one there; white space at the end too
  (RFC 5321 4.1.1). Nothing else is: no missing brackets, comments, folding or tabs.
- A source route is checked and then ignored, as RFC 5321 3.6.1 and F.2 ask: `@ours:u@other` means `u@other`, which
  the rules refuse like any other address that is not ours. A route never decides where a message goes.
- A local part may be longer than 64 octets (VERP, SRS); a path is at most 256 octets (RFC 5321 4.5.3.1.3).
- Names in EHLO may be any that a `Received` field can carry as one word: real senders use underscores and bare names.

Left out on purpose: comparing SIZE with a limit and looking up recipients (session); AUTH=, BY=, HOLDFOR= and
other parameters that are not offered (555); BINARYMIME, which needs BDAT.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from forwarder.model.address import Address, AddressError, parse_domain, parse_mailbox
from forwarder.model.envelope import Body, MailOptions, RcptOptions
from forwarder.model.reply import Reply

MAX_PATH = 256  # RFC 5321 4.5.3.1.3, with the angle brackets
MAX_HELO = 255  # RFC 5321 4.5.3.1.2
MAX_ENVID = 100  # RFC 3461 4.4
MAX_ORCPT = 500  # RFC 3461 4.2
_SHOWN_KEYWORD = 32

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
# A ">" inside of a quoted string does not end the path. Possessive, so that an open quote costs linear time.
_PATH = re.compile(rb'<((?:[^"<>]|"(?:[^"\\]|\\.)*+")*+)>')
_ROUTE = re.compile(r"((?:@(?:\[[^\]@,]*\]|[^@,:\[\]]+),)*@(?:\[[^\]@,]*\]|[^@,:\[\]]+)):")  # RFC 5321 4.1.2 A-d-l
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")  # RFC 5321 4.1.2 esmtp-keyword
_VALUE = re.compile(r"[^\x00-\x20=\x7f-\x9f]+")  # esmtp-value, with RFC 6531 3.3's UTF8-non-ascii but C1 controls
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 3
# RFC 3461 4 xtext. What it stands for must be printable (4.2, 4.4), so an encoded control character is refused.
_ENCODED = r"\+(?:[2-6][0-9A-Fa-f]|7[0-9A-Ea-e])"
_ENVID = re.compile(rf"(?:[!-*,-<>-~]|{_ENCODED})+")
# RFC 3461 4.2; RFC 6533 3 lets the type utf-8 carry letters beyond ASCII as they are.
_ORCPT = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]+;(?:[^\x00-\x20+=\x7f-\x9f]|" + _ENCODED + ")+")
_NOTICES = frozenset({"SUCCESS", "FAILURE", "DELAY"})  # RFC 3461 4.1
# One RFC 5322 atom with dots and colons, or such a one in brackets: it cannot end or open anything in Received.
_HELO = re.compile(rb"\[[A-Za-z0-9!#$%&'*+/=?^_`{|}~.:-]+\]|[A-Za-z0-9!#$%&'*+/=?^_`{|}~.:-]+")


class CommandError(Exception):
    """The command cannot be carried out as it was written; `reply` is what to answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class MailCommand:
    """MAIL as understood; `sender` None is the null reverse-path `<>`."""

    sender: Address | None
    options: MailOptions


@dataclass(frozen=True, slots=True)
class RcptCommand:
    """RCPT as understood; the domain of `address` is "" for the bare `<Postmaster>`."""

    address: Address
    options: RcptOptions


@dataclass(frozen=True, slots=True)
class _Verb:
    """What differs between the two commands: the words to begin with, the code of a bad address, the parameters."""

    prefix: bytes
    syntax: str
    bad_address: str  # RFC 3463 3.2
    parameters: frozenset[str]


_MAIL = _Verb(b"from:", "MAIL FROM:<address>", "5.1.7", frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID"}))
_RCPT = _Verb(b"to:", "RCPT TO:<address>", "5.1.3", frozenset({"NOTIFY", "ORCPT"}))


def parse_mail(argument: bytes, *, smtputf8_allowed: bool = True) -> MailCommand:
    """Read `FROM:<address> [parameters]`; raise `CommandError`. `smtputf8_allowed` says whether it was offered."""
    path, rest = _split(argument, _MAIL)
    given = _parameters(rest, _MAIL)
    if "SMTPUTF8" in given and not smtputf8_allowed:
        raise _unknown("SMTPUTF8")
    options = MailOptions(
        size=int(_take(given, "SIZE", _SIZE.fullmatch, "a number of octets") or 0),
        body=Body(_take(given, "BODY", _is_body, "7BIT or 8BITMIME").upper() or Body.SEVEN_BIT.value),
        smtputf8=_smtputf8(given),
        ret=_take(given, "RET", lambda value: value.upper() in {"FULL", "HDRS"}, "FULL or HDRS").upper(),
        envid=_take(given, "ENVID", _is_envid, f"xtext of at most {MAX_ENVID} characters"),
    )
    if not path:
        return MailCommand(None, options)
    return MailCommand(_mailbox(path, _MAIL, smtputf8=options.smtputf8), options)


def parse_rcpt(argument: bytes, *, smtputf8: bool) -> RcptCommand:
    """Read `TO:<address> [parameters]`; raise `CommandError`. `smtputf8` says whether MAIL had asked for it."""
    path, rest = _split(argument, _RCPT)
    given = _parameters(rest, _RCPT)
    notify = _take(given, "NOTIFY", _is_notify, "NEVER, or a list of SUCCESS, FAILURE, DELAY").upper()
    orcpt = _take(given, "ORCPT", lambda value: _is_orcpt(value, smtputf8), "an address type, a semicolon and xtext")
    options = RcptOptions(frozenset(notify.split(",")) if notify else frozenset(), orcpt)
    if path.lower() == b"postmaster":  # RFC 5321 4.1.1.3, 4.5.1
        return RcptCommand(Address("postmaster", ""), options)
    return RcptCommand(_mailbox(path, _RCPT, smtputf8=smtputf8), options)


def parse_helo(argument: bytes, *, extended: bool) -> str:
    """Read the name that a client gives of itself: one word that is safe in `Received`; raise `CommandError`."""
    name = argument.lstrip(b" ").rstrip(b" \t")
    if not name:
        raise _refuse(501, "5.5.4", f"Syntax: {'EHLO' if extended else 'HELO'} hostname")
    if len(name) > MAX_HELO or not _HELO.fullmatch(name):
        raise _refuse(501, "5.5.2", "This is not a host name or address literal")
    return name.decode("ascii")


def _refuse(code: int, enhanced: str, text: str) -> CommandError:
    return CommandError(Reply(code, enhanced, text))


def _unknown(keyword: str) -> CommandError:
    return _refuse(555, "5.5.4", f"Parameter {keyword[:_SHOWN_KEYWORD]} is not supported here")  # RFC 5321 4.1.1.11


def _split(argument: bytes, verb: _Verb) -> tuple[bytes, bytes]:
    """Give what stands between the angle brackets, and what follows them."""
    argument = argument.rstrip(b" \t")
    if _CONTROLS.search(argument):
        raise _refuse(501, "5.5.2", "Control characters are not allowed in commands")
    if argument[: len(verb.prefix)].lower() != verb.prefix:
        raise _refuse(501, "5.5.4", f"Syntax: {verb.syntax}")
    match = _PATH.match(argument[len(verb.prefix) :].lstrip(b" "))
    if match is None:
        raise _refuse(501, verb.bad_address, f"An address in angle brackets is needed: {verb.syntax}")
    if len(match[0]) > MAX_PATH:
        raise _refuse(501, verb.bad_address, f"A path is at most {MAX_PATH} octets long")
    rest = match.string[match.end() :]
    if rest and not rest.startswith(b" "):
        raise _refuse(501, "5.5.2", "A space is needed after the angle brackets")
    return match[1], rest


def _parameters(rest: bytes, verb: _Verb) -> dict[str, str | None]:
    """Give the ESMTP parameters by upper-case keyword; None is a keyword without a value."""
    try:
        words = rest.decode("utf-8").split(" ")
    except UnicodeDecodeError:
        raise _refuse(501, "5.5.4", "The parameters are not valid UTF-8") from None
    given: dict[str, str | None] = {}
    for word in filter(None, words):
        keyword, value = _parameter(word)
        if keyword not in verb.parameters:
            raise _unknown(keyword)
        if keyword in given:
            raise _refuse(501, "5.5.4", f"Parameter {keyword} is given twice")
        given[keyword] = value
    return given


def _parameter(word: str) -> tuple[str, str | None]:
    keyword, equals, value = word.partition("=")
    allowed = value.isascii() or keyword.upper() == "ORCPT"  # RFC 6533 4; elsewhere "\u017f".upper() would be "S"
    if not _KEYWORD.fullmatch(keyword) or (equals and not (allowed and _VALUE.fullmatch(value))):
        raise _refuse(501, "5.5.4", "A parameter is malformed")
    return keyword.upper(), value if equals else None


def _take(given: Mapping[str, str | None], keyword: str, valid: Callable[[str], object], expected: str) -> str:
    """Give the value of a parameter, "" when it is absent."""
    if keyword not in given:
        return ""
    value = given[keyword]
    if value is None or not valid(value):
        raise _refuse(501, "5.5.4", f"{keyword} must be {expected}")
    return value


def _smtputf8(given: Mapping[str, str | None]) -> bool:
    if given.get("SMTPUTF8") is not None:
        raise _refuse(501, "5.5.4", "SMTPUTF8 takes no value")  # RFC 6531 3.4
    return "SMTPUTF8" in given


def _is_body(value: str) -> bool:
    return value.upper() in {body.value for body in Body}


def _is_envid(value: str) -> bool:
    return len(value) <= MAX_ENVID and _ENVID.fullmatch(value) is not None


def _is_notify(value: str) -> bool:
    return value.upper() == "NEVER" or _NOTICES.issuperset(value.upper().split(","))


def _is_orcpt(value: str, smtputf8: bool) -> bool:
    if not value.isascii() and not (smtputf8 and value.lower().startswith("utf-8;")):
        return False
    return len(value.encode()) <= MAX_ORCPT and value.isprintable() and _ORCPT.fullmatch(value) is not None


def _mailbox(path: bytes, verb: _Verb, *, smtputf8: bool) -> Address:
    if not path.isascii() and not smtputf8:
        raise _refuse(553, "5.6.7", "An address beyond ASCII needs SMTPUTF8")  # RFC 6531 3.5
    try:
        return parse_mailbox(_without_route(path.decode("utf-8")))
    except UnicodeDecodeError:
        raise _refuse(553, "5.6.7", "The address is not valid UTF-8") from None
    except AddressError as error:
        raise _refuse(501, verb.bad_address, _sentence(str(error))) from None


def _without_route(path: str) -> str:
    if not path.startswith("@"):
        return path
    match = _ROUTE.match(path)
    if match is None:
        raise AddressError("the source route is malformed")
    for hop in match[1].split(","):
        parse_domain(hop.removeprefix("@"))
    return path[match.end() :]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
