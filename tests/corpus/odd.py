"""What an odd message is, and the list of them all."""

from collections.abc import Callable
from dataclasses import dataclass, field

RECIPIENT = "odd@forward.test"  # the address of ours that they are sent to

# The documented refusals (code and enhanced code).
NOT_RELAYABLE = "550 5.6.0"  # bare CR, bare LF, NUL
NO_HEADER = "554 5.6.0"  # begins with white space: would continue the last line of ours
LOOP = "554 5.4.6"  # RFC 5321 6.3
TOO_LARGE = "552 5.3.4"
NOT_AS_DEMANDED = "550 5.7.1"  # several From fields

HEADER = (
    b"From: Odd <odd@sender.test>\r\nTo: someone@elsewhere.test\r\nSubject: odd\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <odd@sender.test>\r\n"
)


@dataclass(frozen=True, slots=True)
class Odd:
    """One message. `refusal` is "" when it has to arrive as it is; `utf8` asks for SMTPUTF8 in MAIL.

    `by_default` is the refusal where the defaults of `[message]` and `[limits]` stand, of what else has to arrive.
    """

    name: str
    make: Callable[[], bytes] = field(repr=False)
    refusal: str = ""
    utf8: bool = False
    by_default: str = ""

    @property
    def octets(self) -> bytes:
        """The octets that the client has."""
        return self.make()


def arriving(octets: bytes) -> bytes:
    """Give what must arrive: DATA can only carry whole lines (RFC 5321 4.1.1.4)."""
    return octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"


def odd(name: str, octets: bytes, refusal: str = "", *, utf8: bool = False) -> Odd:
    """Make one from octets at hand."""
    return Odd(name, lambda: octets, refusal, utf8)


def body(name: str, octets: bytes, refusal: str = "") -> Odd:
    """Make one with an ordinary header section and this body."""
    return odd(name, HEADER + b"\r\n" + octets, refusal)


def header(name: str, lines: bytes, refusal: str = "", *, utf8: bool = False, by_default: str = "") -> Odd:
    """Make one with these lines behind an ordinary header section, and a body."""
    octets = HEADER + lines + b"\r\nbody\r\n"
    return Odd(name, lambda: octets, refusal, utf8, by_default)
