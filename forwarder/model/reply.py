"""An SMTP reply as a value: ours to a client, or a next hop's to us."""

from dataclasses import dataclass
from enum import Enum


class Class(Enum):
    """What the first digit of a reply code says (RFC 5321 4.2.1)."""

    SUCCESS = 2
    CONTINUE = 3
    TEMPORARY = 4
    PERMANENT = 5


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `text` has no code in it; its lines are separated by "\\n" and hold no control characters.

    `enhanced` is RFC 3463's code such as "5.1.1", "" where there is none (greetings, 354, foreign replies without).
    `close` says that the server ends the connection after it.
    """

    code: int
    enhanced: str
    text: str
    close: bool = False

    def __str__(self) -> str:
        """Give the reply on one line, for logs and for quoting."""
        return " ".join(part for part in (str(self.code), self.enhanced, self.text.replace("\n", " ")) if part)

    @property
    def kind(self) -> Class:
        """The class by the first digit; a code out of range counts as temporary, so that nothing is lost by it."""
        digit = self.code // 100
        return Class(digit) if digit in (2, 3, 5) else Class.TEMPORARY

    @property
    def positive(self) -> bool:
        """Whether the command was carried out (2xx)."""
        return self.kind is Class.SUCCESS
