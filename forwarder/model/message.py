"""A message on its way: the octets that came, and the header lines that we put in front of them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions, RcptOptions

_PIECE = 1 << 16


class Content(Protocol):
    """The original octets, dot-unstuffed, every line ended by CRLF. Never altered after it was made.

    `head(limit)` and `chunks()` may be called any number of times, by several deliveries at once. What holds it
    (memory, a file without a name) is freed when the last reference goes.
    """

    @property
    def size(self) -> int:
        """Octets in all."""
        ...

    @property
    def digest(self) -> bytes:
        """SHA-256 over all octets."""
        ...

    @property
    def eight_bit(self) -> bool:
        """Whether any octet is above 127."""
        ...

    def head(self, limit: int) -> bytes:
        """Give the first `limit` octets, or all there are."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Give the octets in order, in pieces of a bounded size (at most 1 MiB)."""
        ...


class MemoryContent:
    """A `Content` that is held in memory. `digest`, where it is known already, need not be computed again."""

    __slots__ = ("_digest", "_octets", "eight_bit", "size")

    def __init__(self, octets: bytes, digest: bytes | None = None) -> None:
        self._octets = octets
        self._digest = digest
        self.size = len(octets)
        self.eight_bit = not octets.isascii()

    @property
    def digest(self) -> bytes:
        """SHA-256 over all octets."""
        if self._digest is None:
            self._digest = hashlib.sha256(self._octets).digest()
        return self._digest

    def head(self, limit: int) -> bytes:
        """Give the first `limit` octets, or all there are."""
        return self._octets[:limit]

    def chunks(self) -> Iterator[bytes]:
        """Give the octets in pieces of 64 KiB."""
        return (self._octets[start : start + _PIECE] for start in range(0, self.size, _PIECE))


class SpentContent:
    """What is kept of another `Content` when its octets are not needed any more: its digest recognises it."""

    def __init__(self, whole: Content) -> None:
        self.size = 0
        self.digest = whole.digest
        self.eight_bit = False

    def head(self, limit: int) -> bytes:
        """Give nothing."""
        return b""

    def chunks(self) -> Iterator[bytes]:
        """Give nothing."""
        return iter(())


class StrippedContent:
    """Another `Content` without some octet ranges (start, end), which are in order and do not overlap.

    The digest stays that of the whole: it recognises what came in.
    """

    def __init__(self, whole: Content, ranges: Sequence[tuple[int, int]]) -> None:
        self._whole = whole
        self._ranges = tuple(ranges)
        self.size = whole.size - sum(end - start for start, end in ranges)
        self.digest = whole.digest
        self.eight_bit = whole.eight_bit

    def head(self, limit: int) -> bytes:
        """Give the first `limit` octets, or all there are."""
        removed = sum(end - start for start, end in self._ranges)
        return b"".join(self._kept(iter((self._whole.head(limit + removed),))))[:limit]

    def chunks(self) -> Iterator[bytes]:
        """Give the octets in order, in pieces of a bounded size."""
        return self._kept(self._whole.chunks())

    def _kept(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        origin = 0
        for chunk in chunks:
            begin, end = origin, origin + len(chunk)
            for start, stop in self._ranges:
                if start < end and stop > begin:
                    if start > begin:
                        yield chunk[begin - origin : start - origin]
                    begin = min(stop, end)
            if begin < end:
                yield chunk[begin - origin :]
            origin = end


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one destination is to get: `head` (complete header lines of ours, CRLF) and then the content.

    `recipient` is the address of ours that led there (an alias, or an SRS address).
    """

    recipient: Address
    destination: Destination
    head: bytes
    options: RcptOptions = field(default_factory=RcptOptions)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One accepted message, ready to be handed on. `sender` is the rewritten MAIL FROM, None the null sender.

    `original_sender` is the MAIL FROM as received: what recognises a sender's retry. `authenticated` says that a DSN to
    it would reach who really sent the message (section 3 of the design); such mail goes first where room is scarce.
    """

    id: str
    sender: Address | None
    original_sender: Address | None
    options: MailOptions
    content: Content
    deliveries: tuple[Delivery, ...]
    authenticated: bool = False
