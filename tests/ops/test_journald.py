"""The octets of journald's native protocol."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.ops.journald import encode


def decode(entry: bytes) -> list[tuple[bytes, bytes]]:
    """Read an entry as journald does."""
    fields = []
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", entry)
            value, entry = entry[8 : 8 + size], entry[9 + size :]
        fields.append((name, value))
    return fields


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["MESSAGE", "FORWARDER_TO"]), st.text()), max_size=4))
def test_no_value_becomes_a_field(fields: list[tuple[str, str]]) -> None:
    read = decode(encode(fields))
    assert read == [(name.encode(), value.encode("utf-8", "backslashreplace")) for name, value in fields]


def test_a_newline_makes_the_value_go_by_length() -> None:
    assert encode([("A", "b\nC=d")]) == b"A\n\x05\0\0\0\0\0\0\0b\nC=d\n"
