"""Messages around the sizes at which a receiver changes what it does."""

from collections.abc import Iterator
from functools import partial

from tests.corpus.odd import HEADER, Odd


def sizes() -> Iterator[Odd]:
    """Give them; they are made when they are asked for, the largest has 25 MB."""
    for size in (65_535, 65_536, 65_537, 262_144, 999_999, 1_000_000, 1_000_001, 1_048_575, 1_048_576, 1_048_577):
        yield Odd(f"size-of-{size}", partial(of_size, size))
    yield Odd("size-of-25000000", partial(of_size, 25_000_000))
    yield Odd("a-megabyte-of-line-ends", lambda: HEADER + b"\r\n" * 500_000)


def of_size(size: int) -> bytes:
    """Give a message of that many octets; each line tells its number, so that none can be lost or exchanged."""
    start = HEADER + b"\r\n"
    count, rest = divmod(size - len(start), 40)
    lines = b"".join(b"%-37d.\r\n" % number for number in range(count - 1))
    return start + lines + b"x" * (rest + 38) + b"\r\n"
