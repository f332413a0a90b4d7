import hashlib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.message import Content, MemoryContent, StrippedContent


@given(st.binary(max_size=300), st.integers(0, 400))
def test_content_in_memory_gives_its_octets_any_number_of_times(octets: bytes, limit: int) -> None:
    content: Content = MemoryContent(octets)
    assert b"".join(content.chunks()) == b"".join(content.chunks()) == octets
    assert content.head(limit) == octets[:limit]
    assert content.size == len(octets)
    assert content.digest == hashlib.sha256(octets).digest()
    assert content.eight_bit is any(octet > 127 for octet in octets)


def test_pieces_are_of_a_bounded_size() -> None:
    octets = bytes(range(256)) * 10_000
    pieces = list(MemoryContent(octets).chunks())
    assert b"".join(pieces) == octets
    assert max(map(len, pieces)) <= 1_048_576


def test_empty_content_has_no_pieces() -> None:
    assert list(MemoryContent(b"").chunks()) == []


class Chopped(MemoryContent):
    """Gives its octets in small pieces."""

    def chunks(self) -> Iterator[bytes]:
        whole = b"".join(super().chunks())
        return (whole[start : start + 7] for start in range(0, len(whole), 7))


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8, unique=True), st.integers(0, 70))
def test_stripped_content_is_the_whole_without_its_ranges(octets: bytes, edges: list[int], limit: int) -> None:
    edges = sorted(edge for edge in edges if edge <= len(octets))
    ranges = list(zip(edges[::2], edges[1::2], strict=False))
    wanted = bytes(octet for n, octet in enumerate(octets) if not any(start <= n < end for start, end in ranges))
    content: Content = StrippedContent(Chopped(octets), ranges)
    assert b"".join(content.chunks()) == wanted
    assert content.head(limit) == wanted[:limit]
    assert content.size == len(wanted)
    assert content.digest == hashlib.sha256(octets).digest()
