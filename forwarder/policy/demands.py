"""What the operator demands of a header section: the checks that the big receivers make as well.

`unmet` says in what a message falls short, or nothing; it takes linear time and never fails. A refusal here spares us
handing an inbox what counts against us. The defaults of `Demands` demand nothing; those of the configuration were
weighed by two questions: does Gmail refuse it for certain, and would lawful mail to another inbox be lost by it? What
is let through here is not lost sight of: with cut-through the sender gets the inbox's own answer.

| demand | default | why |
|---|---|---|
| `author`: not several From fields | on | Gmail refuses it, RFC 5322 3.6 forbids it, and who does it deceives |
| `author`: one From field with an address in it | off | Gmail refuses the rest; other inboxes take it |
| `author`: exactly one address in it | off | Gmail refuses several, RFC 5322 3.6.2 allows them |
| `singletons`: nothing twice that may be there once | off | Gmail refuses it; real mail has it, other inboxes take it |
| `date` | any | Gmail takes mail without one; machines send it |
| `message_id` | any | Gmail refuses some mail without one and adds one to the rest |

The sizes are with `content.ContentLimits`: 500 kB and 5,000 fields in all are on, as Gmail refuses more and no lawful
mail comes near; 32 kB of one field is off, as Gmail refuses more but a To or References of that length is lawful.

Left out on purpose: MIME fields, and whether an address can exist.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from forwarder.model.headers import Field, Header

# RFC 5322 3.6: what may be there once at most. From is judged by itself.
_SINGLETONS = frozenset(
    (
        *(b"date", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"message-id", b"in-reply-to", b"references"),
        b"subject",
    )
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# RFC 5322 3.3, with the years and zones of 4.3.
_DATE = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun) ?, ?)?([0-9]{1,2}) (" + "|".join(_MONTHS) + r") ([0-9]{2,4}) "
    r"([0-9]{1,2}) ?: ?([0-9]{2})(?: ?: ?([0-9]{2}))? (?:[+-][0-9]{4}|[a-z]{1,5})",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"\([^()]*\)")
_MAX_DATE = 200  # octets
_LEAP_SECOND = 60
# RFC 5322 3.6.4. Real ones have more than atoms, and quoted strings.
_MESSAGE_ID = re.compile(rb'<(?:[^<>@"\s]+|"(?:[^"\\\r\n]|\\.)*+")@[^<>@\s]+>')
# Of an address field, what holds no address (quotes, literals, comments, routes, up to the end if nothing closes them),
# and the mark of one.
_PART = re.compile(
    rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|\[[^\]]*(?:\]|\Z)|\((?:[^()\\]|\\.)*+(?:\)|\\?\Z)?|<@[^<>:]*+:?|(@)', re.DOTALL
)


class Author(Enum):
    """What is demanded of From (`message.from`)."""

    ANY = "any"
    UNAMBIGUOUS = "not-several"  # no second field
    FIELD = "one-field"  # one field, with an address in it
    ADDRESS = "one-address"  # one field, with one address in it


class Demand(Enum):
    """What is demanded of another field (`message.date`, `message.message_id`)."""

    ANY = "any"
    PRESENT = "present"
    VALID = "valid"


@dataclass(frozen=True, slots=True)
class Demands:
    """What a header section must be like. `singletons`: no field may be there twice that RFC 5322 has once."""

    author: Author = Author.ANY
    date: Demand = Demand.ANY
    message_id: Demand = Demand.ANY
    singletons: bool = False


def unmet(header: Header, demands: Demands) -> str:
    """Say in what a header section does not meet the demands, "" if it does; printable ASCII."""
    return (
        _author(header, demands.author)
        or (_repeated(header) if demands.singletons else "")
        or _field(header, "Date", demands.date, _is_date)
        or _field(header, "Message-ID", demands.message_id, lambda value: _MESSAGE_ID.fullmatch(value) is not None)
    )


def _author(header: Header, demand: Author) -> str:
    if demand is Author.ANY:
        return ""
    fields = [*header.all(b"from"), *(field for _, field in header.beyond if field.name == b"from")]
    if len(fields) > 1:
        return "there are several From fields"
    if demand is Author.UNAMBIGUOUS:
        return ""
    return _one_field(fields[0], demand) if fields else "there is no From field"


def _one_field(field: Field, demand: Author) -> str:
    addresses = sum(match[1] is not None for match in _PART.finditer(field.value))
    if not addresses:
        return "there is no address in its From field"
    if addresses > 1 and demand is Author.ADDRESS:
        return "there are several addresses in its From field"
    return ""


def _repeated(header: Header) -> str:
    seen: set[bytes] = set()
    for field in header.fields:
        if field.name in seen:
            return f"there are several {field.name.decode('ascii').title()} fields"
        if field.name in _SINGLETONS:
            seen.add(field.name)
    return ""


def _field(header: Header, name: str, demand: Demand, is_valid: Callable[[bytes], bool]) -> str:
    if demand is Demand.ANY:
        return ""
    fields = header.all(name.lower().encode("ascii"))
    if not fields:
        return f"there is no {name} field"
    if demand is Demand.VALID and not is_valid(fields[0].value):
        return f"its {name} field is malformed"
    return ""


def _is_date(value: bytes) -> bool:
    """Say whether it is a date and a time that exist."""
    if len(value) > _MAX_DATE:
        return False
    text = " ".join(_COMMENT.sub(" ", value.decode("ascii", "replace")).split())
    match = _DATE.fullmatch(text)
    if match is None:
        return False
    day, month, year, hour, minute, second = match.groups()
    try:
        seconds = int(second or 0)
        datetime(
            _year(year),
            _MONTHS.index(month.lower()) + 1,
            int(day),
            int(hour),
            int(minute),
            seconds - (seconds == _LEAP_SECOND),
        )
    except ValueError:
        return False
    return True


def _year(digits: str) -> int:
    """Give the year (RFC 5322 4.3)."""
    year = int(digits)
    return year + (2000 if year < 50 else 1900) if len(digits) == 2 else year + 1900 * (len(digits) == 3)
