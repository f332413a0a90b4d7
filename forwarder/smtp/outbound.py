"""A message as it goes over the wire after DATA: dots doubled, the terminator at the end (RFC 5321 4.5.2).

Octets are otherwise passed on as they are. A message that does not end in CRLF gets one, since the terminator needs
it. Pieces of any size go in; pieces of at least `_ENOUGH` octets come out, the last one of any size, so that a small
message takes a single write. At most one piece is held. Cannot fail.
"""

from collections.abc import Iterable, Iterator

_ENOUGH = 65_536  # octets that are worth a write of their own


def stuffed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give the content with its dots doubled and its terminator; the last piece holds all of the terminator."""
    held: list[bytes] = []
    size = 0
    for piece in _dots_doubled(pieces):
        if size >= _ENOUGH:  # only now, so that the last piece is never empty
            yield held[0] if len(held) == 1 else b"".join(held)
            held, size = [], 0
        held.append(piece)
        size += len(piece)
    yield b"".join(held)


def _dots_doubled(pieces: Iterable[bytes]) -> Iterator[bytes]:
    last = b"\r\n"  # the last two octets: the beginning of the message is the beginning of a line
    for piece in pieces:
        if last == b"\r\n" and piece.startswith(b"."):
            yield b"."
        elif last.endswith(b"\r") and piece.startswith(b"\n."):
            yield b"\n."
            piece = piece[1:]  # noqa: PLW2901 - the rest of the same piece
            last = b"\r\n"
        if piece:
            yield piece.replace(b"\r\n.", b"\r\n..")  # no copy where there is none
            last = (last + piece[-2:])[-2:]
    yield b".\r\n" if last == b"\r\n" else b"\r\n.\r\n"
