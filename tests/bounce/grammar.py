"""A strict reader of DSNs, for tests: RFC 3464's grammar as far as we write it; everything else is an error."""

import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.utils import parsedate_to_datetime

STATUS = re.compile(r"[245]\.(?:0|[1-9][0-9]{0,2})\.(?:0|[1-9][0-9]{0,2})")
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
MTA = re.compile(rf"dns; (?:{NAME}|\[[0-9.]+\]|\[IPv6:[0-9a-f:.]+\])")
XTEXT_ADDRESS = r"(?:[!-*,-<>-\[\]-~]|\\x\{[0-9A-F]{2,6}\})+"  # RFC 6533 3 utf-8-addr-xtext
ADDRESS = re.compile(rf"[Uu][Tt][Ff]-8; {XTEXT_ADDRESS}|(?![Uu][Tt][Ff]-8;)[!-:<-~]+; ?[ -~]+")
DIAGNOSTIC = re.compile(r"smtp; [2-5][0-9]{2}(?: [ -~]*)?|X-Forwarder; [ -~]+")
PER_MESSAGE = ("Original-Envelope-Id", "Reporting-MTA", "Arrival-Date", "X-Forwarder-ID")
PER_RECIPIENT = (
    *("Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"),
    *("Last-Attempt-Date", "Will-Retry-Until"),
)
CLASSES = {"failed": "45", "delayed": "4", "relayed": "2"}
TOP = (
    *("From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted"),
    *("MIME-Version", "Content-Type"),
)

Fields = dict[str, str]


@dataclass(frozen=True)
class Dsn:
    header: Fields
    text: str
    message: Fields
    recipients: list[Fields]
    third: tuple[Fields, bytes] | None


def lines_of(octets: bytes) -> list[bytes]:
    """Lines of 7bit data."""
    assert octets.endswith(b"\r\n")
    lines = octets.removesuffix(b"\r\n").split(b"\r\n")
    assert octets.isascii()
    assert b"\0" not in octets
    for line in lines:
        assert b"\r" not in line
        assert b"\n" not in line
        assert len(line) <= 998
    return lines


def fields_of(lines: list[bytes], known: tuple[str, ...]) -> Fields:
    """Known fields, each at most once, in their order; folded ones joined."""
    found: Fields = {}
    last = ""
    for line in lines:
        text = line.decode("ascii")
        assert text.replace("\t", " ").isprintable()
        if text[0] in " \t":
            assert last
            assert text.strip()
            found[last] += text
        else:
            last, colon, value = text.partition(":")
            assert colon
            assert last in known
            assert last not in found
            found[last] = value
    assert list(found) == [name for name in known if name in found]
    return {name: value.strip() for name, value in found.items()}


def split(lines: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    blank = lines.index(b"")
    return lines[:blank], lines[blank + 1 :]


def parts_of(lines: list[bytes], boundary: bytes) -> list[list[bytes]]:
    """What stands between the delimiters; the boundary is nowhere else, nothing is before or after (RFC 2046 5.1.1)."""
    assert lines[0] == b"--" + boundary
    assert lines[-1] == b"--" + boundary + b"--"
    parts: list[list[bytes]] = []
    for line in lines[:-1]:
        if line == b"--" + boundary:
            parts.append([])
        else:
            assert boundary not in line
            parts[-1].append(line)
    return parts


def groups_of(lines: list[bytes]) -> list[list[bytes]]:
    """delivery-status-content = per-message-fields 1*(CRLF per-recipient-fields), RFC 3464 2.1."""
    assert lines[-1] == b""  # the CRLF that ends the last field; the one after it belongs to the delimiter
    groups: list[list[bytes]] = [[]]
    for line in lines[:-1]:
        if line:
            groups[-1].append(line)
        else:
            groups.append([])
    assert all(groups)
    assert len(groups) > 1
    return groups


def check_message(fields: Fields) -> None:
    assert MTA.fullmatch(fields["Reporting-MTA"])
    parsedate_to_datetime(fields["Arrival-Date"])


def check_recipient(fields: Fields) -> None:
    assert ADDRESS.fullmatch(fields["Final-Recipient"])
    assert ADDRESS.fullmatch(fields.get("Original-Recipient", "rfc822; x"))
    assert fields["Status"][0] in CLASSES[fields["Action"]]
    assert STATUS.fullmatch(fields["Status"])
    assert MTA.fullmatch(fields.get("Remote-MTA", "dns; x"))
    assert DIAGNOSTIC.fullmatch(fields.get("Diagnostic-Code", "smtp; 250"))
    for name in ("Last-Attempt-Date", "Will-Retry-Until"):
        if name in fields:
            parsedate_to_datetime(fields[name])
    assert "Will-Retry-Until" not in fields or fields["Action"] == "delayed"


def read(octets: bytes) -> Dsn:
    """Read a DSN; AssertionError where it is not exactly what it must be."""
    top, body = split(lines_of(octets))
    header = fields_of(top, TOP)
    kind = re.fullmatch(
        r'multipart/report; report-type=delivery-status;\tboundary="([ -~]{1,70})"', header["Content-Type"]
    )
    assert kind
    first, second, *rest = [split(part) for part in parts_of(body, kind[1].encode())]
    entity = ("Content-Type", "Content-Transfer-Encoding", "Content-Description")
    assert fields_of(first[0], entity)["Content-Type"].startswith("text/plain; charset=")
    assert fields_of(second[0], entity)["Content-Type"] == "message/delivery-status"
    assert fields_of(second[0], entity)["Content-Transfer-Encoding"] == "7bit"
    groups = groups_of(second[1])
    message = fields_of(groups[0], PER_MESSAGE)
    recipients = [fields_of(group, PER_RECIPIENT) for group in groups[1:]]
    check_message(message)
    for fields in recipients:
        check_recipient(fields)
    assert len(rest) <= 1
    third = (fields_of(rest[0][0], entity), b"\r\n".join(rest[0][1])) if rest else None
    return Dsn(header, by_stdlib(octets)[0], message, recipients, third)


def inner(message: Message) -> list[Message]:
    """The messages or parts that one holds."""
    held = message.get_payload()
    assert isinstance(held, list)
    parts = [part for part in held if isinstance(part, Message)]
    assert len(parts) == len(held)
    return parts


def by_stdlib(octets: bytes) -> tuple[str, list[Message], Message | None]:
    """The text, the groups of fields, and the third part, as another parser sees them."""
    parsed = message_from_bytes(octets)
    assert parsed.get_content_type() == "multipart/report"
    assert not parsed.defects
    text, status, *rest = inner(parsed)
    decoded = text.get_payload(decode=True)
    assert isinstance(decoded, bytes)
    assert len(rest) <= 1
    return decoded.decode(text.get_content_charset() or ""), inner(status), rest[0] if rest else None
