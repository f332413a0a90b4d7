import hashlib

from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.message import Content, MemoryContent


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
