"""The octets that a signature is over (RFC 6376 3.4, 3.7), for verifying, signing and sealing alike.

Headers: `header_simple` and `header_relaxed` turn one field, `signed_octets` puts the fields that h= names and the
signature itself into the input of the header hash. Bodies: `BodyHasher` takes the body in pieces of any size as it
arrives, and `BodyHashes` does so for several signatures at once: one pass for each of simple and relaxed, however many
l= there are. Nothing of the body is kept but a few octets of white space and the count of empty lines.

Nothing here fails, whatever the octets. Time is linear in the input: white space is squeezed and lines are ended by
whole-piece operations of `bytes`, never by a loop over lines.

Only CRLF ends a line. A CR or an LF alone is an octet like any other; the gateway accepts no such message anyway.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from forwarder.model.headers import Header

_CRLF = b"\r\n"
_PIECE = 1 << 16  # what is worked on at once: it fits into the processor's cache
_RUN = b" " * 16


def header_simple(raw: bytes) -> bytes:
    """Give a field as it is (RFC 6376 3.4.1)."""
    return raw


def header_relaxed(raw: bytes) -> bytes:
    """Give a field with its name in lower case and its white space squeezed (RFC 6376 3.4.2); it ends with CRLF."""
    name, _, value = raw.partition(b":")
    return name.rstrip(b" \t").lower() + b":" + _squeeze(value.replace(_CRLF, b"")).strip(b" ") + _CRLF


def _squeeze(octets: bytes) -> bytes:
    """Turn each run of spaces and tabs into one space."""
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    if b"  " in octets:
        # Each round divides the length of the runs, so there are few.
        while _RUN in octets:
            octets = octets.replace(_RUN, b" ")
        while b"  " in octets:
            octets = octets.replace(b"  ", b" ")
    return octets


def without_signature(raw: bytes) -> bytes:
    """Give a signature's field with the value of b= deleted, with the white space around it (RFC 6376 3.5, 3.7)."""
    name, colon, value = raw.partition(b":")
    tags = value.split(b";")
    for n, tag in enumerate(tags):
        label, equals, _ = tag.partition(b"=")
        if equals and label.strip(b" \t\r\n") == b"b":
            tags[n] = label + equals
            break
    return name + colon + b";".join(tags)


def select(header: Header, names: Sequence[bytes], own: bytes = b"") -> list[bytes]:
    """Give the fields that h= names (lower-case), in the order of the names (RFC 6376 5.4.2).

    A name met again means the next field of that name from the bottom up; with none left it is a null string.
    `own`, the very object of one of the fields, is left out: a signature never covers itself through h=.
    """
    chosen = []
    above: dict[bytes, int] = {}  # how many fields of a name are left
    for name in names:
        fields = header.all(name)
        n = above.get(name, len(fields)) - 1
        if n >= 0 and fields[n].raw is own:
            n -= 1
        if n >= 0:
            chosen.append(fields[n].raw)
        above[name] = max(n, 0)
    return chosen


def signed_octets(header: Header, names: Sequence[bytes], signature: bytes, *, relaxed: bool) -> bytes:
    """Give the input of the header hash (RFC 6376 3.7).

    `signature` is the DKIM-Signature or ARC-Message-Signature field: its b= counts as empty, its last CRLF not at all.
    """
    canonical = header_relaxed if relaxed else header_simple
    fields = [canonical(raw) for raw in select(header, names, signature)]
    return b"".join(fields) + canonical(without_signature(signature)).removesuffix(_CRLF)


@dataclass(frozen=True, slots=True)
class BodyKey:
    """What a body hash depends on. `length` is l=, in canonical octets; None for the whole body."""

    relaxed: bool
    algorithm: str = "sha256"
    length: int | None = None


@dataclass(frozen=True, slots=True)
class BodyDigest:
    """The hash of a body. `size` is that of the whole canonical body in octets: less than l= makes the signature bad.

    `cut` says that l= left out a part of the body: whoever wrote that part, it was not the signer.
    """

    digest: bytes
    size: int
    cut: bool


class BodyHashes:
    """Hashes one body for all the keys. Feed, finish, then ask for digests."""

    __slots__ = ("_hashes", "_streams")

    def __init__(self, keys: Iterable[BodyKey]) -> None:
        lengths: dict[tuple[bool, str], set[int | None]] = {}
        for key in keys:
            lengths.setdefault((key.relaxed, key.algorithm), set()).add(key.length)
        self._hashes = {way: _Hash(way[1], wanted) for way, wanted in lengths.items()}
        self._streams = [_Body(relaxed=way[0], sink=made.update) for way, made in self._hashes.items()]

    def feed(self, octets: bytes) -> None:
        """Take the next octets of the body."""
        for stream in self._streams:
            for start in range(0, len(octets), _PIECE):
                stream.feed(octets[start : start + _PIECE])

    def finish(self) -> None:
        """Note that the body is complete."""
        for stream in self._streams:
            stream.finish()

    def digest(self, key: BodyKey) -> BodyDigest | None:
        """Give the hash for a key, after `finish`; None if the key was not among those asked for."""
        made = self._hashes.get((key.relaxed, key.algorithm))
        return made.digest(key.length) if made and key.length in made.lengths else None


class BodyHasher:
    """Hashes one body for one key: feed it with what follows the blank line, in pieces of any size."""

    __slots__ = ("_hashes", "_key")

    def __init__(self, key: BodyKey) -> None:
        self._key = key
        self._hashes = BodyHashes((key,))

    def feed(self, octets: bytes) -> None:
        """Take the next octets of the body."""
        self._hashes.feed(octets)

    def digest(self) -> BodyDigest:
        """Give the hash; the body is complete."""
        self._hashes.finish()
        digest = self._hashes.digest(self._key)
        assert digest is not None
        return digest


class _Hash:
    """A hash of canonical octets that is told at each of several lengths: it is copied on its way past them."""

    __slots__ = ("_at", "_hash", "_size", "_waiting", "lengths")

    def __init__(self, algorithm: str, lengths: set[int | None]) -> None:
        self.lengths = lengths
        self._hash = hashlib.new(algorithm)
        self._size = 0
        self._at: dict[int, bytes] = {}
        self._waiting = sorted((length for length in lengths if length is not None), reverse=True)
        self.update(b"")  # l=0 is reached before the first octet

    def update(self, octets: bytes) -> None:
        while self._waiting and self._waiting[-1] <= self._size + len(octets):
            length = self._waiting.pop()
            cut = length - self._size
            self._hash.update(octets[:cut])
            self._at[length] = self._hash.digest()
            self._size, octets = length, octets[cut:]
        if self._waiting or None in self.lengths:
            self._hash.update(octets)
        self._size += len(octets)

    def digest(self, length: int | None) -> BodyDigest:
        if length is None or length not in self._at:
            return BodyDigest(self._hash.digest(), self._size, cut=False)
        return BodyDigest(self._at[length], self._size, cut=self._size > length)


class _Body:
    """Makes a body canonical in pieces (RFC 6376 3.4.3, 3.4.4).

    Theory: the octets given on never end with an empty line, since it may turn out to be one of the last, nor with
    white space or a CR, since what they mean depends on the octet to come. The former are counted, the latter kept.
    """

    __slots__ = ("_begun", "_empty_lines", "_kept", "_relaxed", "_sink")

    def __init__(self, *, relaxed: bool, sink: Callable[[bytes], None]) -> None:
        self._relaxed = relaxed
        self._sink = sink
        self._kept = b""  # at most a space and a CR
        self._empty_lines = 0  # CRLFs that have come since the last other octet
        self._begun = False

    def feed(self, octets: bytes) -> None:
        if self._kept:
            octets = self._kept + octets
        if self._relaxed:
            octets = _squeeze(octets).replace(b" \r\n", _CRLF)
        known = len(octets) - octets.endswith(b"\r")
        if self._relaxed:
            known -= octets.endswith(b" ", 0, known)
        self._kept = octets[known:]
        self._give(octets[:known])

    def finish(self) -> None:
        if self._kept not in (b"", b" "):
            self._give(self._kept)
        # The last line always ends with one CRLF, be it made up; only an empty body stays empty when relaxed.
        if self._begun or not self._relaxed:
            self._sink(_CRLF)

    def _give(self, octets: bytes) -> None:
        end = _before_last_crlfs(octets)
        if end:
            while self._empty_lines:
                lines = min(self._empty_lines, _PIECE)
                self._sink(_CRLF * lines)
                self._empty_lines -= lines
            self._sink(octets[:end])
            self._begun = True
        self._empty_lines += (len(octets) - end) // 2


def _before_last_crlfs(octets: bytes) -> int:
    """Give where the CRLFs begin that `octets` ends with."""
    if not octets.endswith(_CRLF):
        return len(octets)
    start = len(octets.rstrip(_CRLF))
    # Among CRs and LFs only, the pairs reach back to the last octet that equals its neighbour.
    start = max(octets.rfind(b"\r\r", start), octets.rfind(b"\n\n", start), start - 1) + 1
    return start + octets.startswith(b"\n", start)
