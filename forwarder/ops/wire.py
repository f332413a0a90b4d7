"""What workers and their parent say to each other: the methods, by name, with the types of question and answer.

Values travel as msgspec writes them and come out equal; a test holds every type to that. A message's content does not
travel: a letter goes as a `Sheet`, and its content lies in a file that both sides can open.
"""

from dataclasses import dataclass
from datetime import datetime

from forwarder.model.address import Address
from forwarder.model.envelope import MailOptions
from forwarder.model.letter import Kind, Letter, Part, Progress
from forwarder.model.message import Content, Delivery, Outgoing
from forwarder.model.outcome import Outcome
from forwarder.model.reply import Reply
from forwarder.ops.rpc import Method
from forwarder.ports import Doorkeeper, Keeper, Ledger, Limiter, Load, Pacer, Turn


@dataclass(frozen=True, slots=True)
class Ports:
    """What all processes of a machine count and keep together."""

    limiter: Limiter
    doorkeeper: Doorkeeper
    ledger: Ledger
    pacer: Pacer
    keeper: Keeper


@dataclass(frozen=True, slots=True)
class Sheet:
    """A letter without its content, of which it has what finds and checks it: `size`, `digest`, `eight_bit`."""

    id: str
    sender: Address | None
    original_sender: Address | None
    options: MailOptions
    deliveries: tuple[Delivery, ...]
    authenticated: bool
    received: datetime
    progress: tuple[Progress, ...]
    kind: Kind
    bounceable: bool
    author: str
    message_id: str
    size: int
    digest: bytes
    eight_bit: bool


def sheet_of(letter: Letter, content: Content) -> Sheet:
    """Write down a letter whose content is now `content`."""
    message = letter.message
    return Sheet(
        id=message.id,
        sender=message.sender,
        original_sender=message.original_sender,
        options=message.options,
        deliveries=message.deliveries,
        authenticated=message.authenticated,
        received=letter.received,
        progress=letter.progress,
        kind=letter.kind,
        bounceable=letter.bounceable,
        author=letter.author,
        message_id=letter.message_id,
        size=content.size,
        digest=content.digest,
        eight_bit=content.eight_bit,
    )


def letter_of(sheet: Sheet, content: Content) -> Letter:
    """Give the letter again."""
    message = Outgoing(
        id=sheet.id,
        sender=sheet.sender,
        original_sender=sheet.original_sender,
        options=sheet.options,
        content=content,
        deliveries=sheet.deliveries,
        authenticated=sheet.authenticated,
    )
    return Letter(
        message=message,
        received=sheet.received,
        progress=sheet.progress,
        kind=sheet.kind,
        bounceable=sheet.bounceable,
        author=sheet.author,
        message_id=sheet.message_id,
    )


Counted = tuple[str, int, int]  # key, limit, seconds
Keys = tuple[bytes, ...]
Outcomes = tuple[Outcome, ...]
Refused = tuple[Reply, str]  # a `NotKept`

# A worker asks its parent.
ENTER: Method[str, Reply | None] = Method(1, str, Reply | None)
LEAVE: Method[str, None] = Method(2, str)
ROOM: Method[Counted, bool] = Method(3, Counted, bool)
TAKE: Method[Counted, bool] = Method(4, Counted, bool)
GIVE_BACK: Method[str, None] = Method(5, str)
RECALL: Method[Keys, tuple[Outcome | None, ...]] = Method(6, Keys, tuple[Outcome | None, ...])
REMEMBER: Method[dict[bytes, Outcome], None] = Method(7, dict[bytes, Outcome])
FORGET: Method[Keys, None] = Method(8, Keys)
RUNNING: Method[Keys, None] = Method(9, Keys)
ENDED: Method[Keys, None] = Method(10, Keys)
STRIKE: Method[bytes, int] = Method(11, bytes, int)
TURN: Method[tuple[Load, float], Turn] = Method(12, tuple[Load, float], Turn)
DONE: Method[tuple[int, Outcomes], None] = Method(13, tuple[int, Outcomes])
KEEP: Method[tuple[Sheet, Outcomes], Refused | None] = Method(14, tuple[Sheet, Outcomes], Refused | None)
SETTLED: Method[tuple[Part, Outcome], None] = Method(15, tuple[Part, Outcome])
BROKEN: Method[str, None] = Method(16, str)  # a file could not be made durable: no more mail may be taken

# A parent asks its workers. States travel as octets that only `forwarder.app` understands; what is answered are the
# problems, none if all is well.
REFUSAL: Method[Reply | None, None] = Method(32, Reply | None)
START: Method[tuple[int, bytes], tuple[str, ...]] = Method(33, tuple[int, bytes], tuple[str, ...])
PREPARE: Method[tuple[int, bytes], tuple[str, ...]] = Method(34, tuple[int, bytes], tuple[str, ...])
COMMIT: Method[int, tuple[str, ...]] = Method(35, int, tuple[str, ...])
ABORT: Method[int, None] = Method(36, int)
DRAIN: Method[float, int] = Method(37, float, int)
