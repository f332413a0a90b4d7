"""A message as verification sees it while it arrives: the header is kept, the body is hashed and let go.

`feed` takes the content octet by octet or in any pieces, with CRLF line ends and without SMTP's extra dots. As soon as
the header section is there, the body hashes that its signatures need are known: those of the DKIM signatures that
`dkim.choice` picks and of ARC's newest message signature; older ARC sets only where they cost no further pass; and
those that `also` asks for in any case, as for signing. So the body is passed over at most twice, once for each
canonicalisation.

Nothing fails. A header section longer than `header_limit` octets or `MAX_FIELDS` fields is given up: `overlong` is
true, `header` stays None and nothing is hashed. Such a message must not be taken for an unsigned one: refuse it.

What is no field ends the header section, as in `model.headers`; it is then the first line of the body.
"""

from collections.abc import Iterator, Sequence

from forwarder.auth.dkim.canonical import BodyDigest, BodyHashes, BodyKey
from forwarder.auth.dkim.choice import Candidate, choose
from forwarder.auth.dkim.record import ALGORITHMS, Signature, SignatureError, parse_signature
from forwarder.model.headers import MAX_FIELDS, Header, split_header

HEADER_LIMIT = 1_000_000
MAX_KEYS = 12
_ARC_SETS = 50  # RFC 8617 4.2.1
_BLANK_LINE = b"\r\n\r\n"


class Incoming:
    """Feed the message, finish, then ask."""

    __slots__ = ("_also", "_buffer", "_hashes", "_limit", "header", "overlong", "signatures")

    def __init__(self, header_limit: int = HEADER_LIMIT, also: Sequence[BodyKey] = ()) -> None:
        self.header: Header | None = None
        self.overlong = False
        self.signatures: tuple[Candidate, ...] = ()  # the DKIM signatures to check
        self._limit = header_limit
        self._also = tuple(also)
        self._buffer = bytearray()
        self._hashes = BodyHashes(())

    def feed(self, octets: bytes) -> None:
        """Take the next octets of the message."""
        if self.header is not None:
            self._hashes.feed(octets)
        elif not self.overlong:
            self._gather(octets)

    def finish(self) -> None:
        """Note that the message is complete."""
        if self.header is None and not self.overlong:
            self._begin_body()
        self._hashes.finish()

    def body_digest(self, key: BodyKey) -> BodyDigest | None:
        """Give the hash of the body, after `finish`; None if nobody asked for it, or `overlong`."""
        return self._hashes.digest(key)

    def _gather(self, octets: bytes) -> None:
        searched = max(0, len(self._buffer) - len(_BLANK_LINE) + 1)
        self._buffer += octets
        end = self._buffer.find(_BLANK_LINE, searched)
        too_much = len(self._buffer) >= self._limit + 2 if end < 0 else end + 2 > self._limit
        if end >= 0 and not too_much:
            self._begin_body()
        elif too_much:
            self._begin_body_early()

    def _begin_body_early(self) -> None:
        """Begin the body if something that is no field has ended the header already; else give up."""
        header = split_header(bytes(self._buffer[: self._limit + 2]))
        if header.complete and header.size <= self._limit:
            self._begin_body()
        else:
            self._give_up()

    def _begin_body(self) -> None:
        octets = bytes(self._buffer)
        end = octets.find(_BLANK_LINE)
        header = split_header(octets if end < 0 else octets[: end + len(_BLANK_LINE)])
        if len(header.fields) > MAX_FIELDS:  # then `header` is not all of it
            self._give_up()
            return
        self._buffer.clear()
        self.header = header
        self.signatures = choose(header)
        self._hashes = BodyHashes((*body_keys(self.signatures, header), *self._also))
        body = header.size + 2 * octets.startswith(b"\r\n", header.size)
        self._hashes.feed(octets[body:])

    def _give_up(self) -> None:
        self.overlong = True
        self._buffer.clear()


def body_keys(signatures: Sequence[Candidate], header: Header) -> tuple[BodyKey, ...]:
    """Give the body hashes that are needed, at most `MAX_KEYS`."""
    read = (candidate.signature for candidate in signatures)
    keys = {each.body: None for each in read if isinstance(each, Signature) and each.algorithm in ALGORITHMS}
    newest_first = sorted(_message_signatures(header), key=lambda signature: -signature.instance)
    for n, signature in enumerate(newest_first):
        cheap = any(key.relaxed == signature.body.relaxed for key in keys)
        if len(keys) < MAX_KEYS and (n == 0 or cheap):
            keys[signature.body] = None
    return tuple(keys)


def _message_signatures(header: Header) -> Iterator[Signature]:
    """Read ARC's message signatures (RFC 8617 4.1.2), as far as they can be read: `arc` judges them."""
    for field in header.all(b"arc-message-signature")[: _ARC_SETS + 1]:
        try:
            yield parse_signature(field.value, arc=True)
        except SignatureError:
            continue
