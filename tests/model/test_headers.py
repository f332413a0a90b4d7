import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.headers import MAX_FIELDS, Field, Header, split_header

MESSAGE = b"Received: from a\r\n\tby b\r\nSubject: one\r\n two\r\nsubject : three\r\n\r\nbody: no field\r\n"


def test_fields_are_split_and_found_by_name() -> None:
    header = split_header(MESSAGE)
    assert [field.name for field in header.fields] == [b"received", b"subject", b"subject"]
    assert header.size == MESSAGE.index(b"\r\n\r\n") + 2
    assert header.complete
    assert [field.value for field in header.all(b"subject")] == [b"one two", b"three"]
    assert header.all(b"Subject") == ()


def test_the_octets_can_be_joined_again() -> None:
    header = split_header(MESSAGE)
    assert b"".join(field.raw for field in header.fields) == MESSAGE[: header.size]


@pytest.mark.parametrize(
    ("octets", "names", "complete"),
    [
        (b"", [], False),
        (b"\r\n", [], True),
        (b"\r\nbody", [], True),
        (b"\r", [], False),
        (b"body\r\n", [], True),
        (b"From me\r\nA: b\r\n\r\n", [], True),
        (b" A: folded nothing\r\n", [], True),
        (b": no name\r\n", [], True),
        (b"A: b\r\n", [b"a"], False),
        (b"A: b\r\n\r", [b"a"], False),
        (b"A: b\r\n\r\n", [b"a"], True),
        (b"A: b\r\nbody\r\n", [b"a"], True),
        (b"A: b\r\nB", [b"a"], False),
        (b"A: b\r\nB: c\r", [b"a"], False),
        (b"A:\r\n\r\n", [b"a"], True),
        (b"A\xc3: b\r\n\r\n", [], True),
        (b"A b: c\r\n\r\n", [], True),
        (b"A: \xff\0\r\n\r\n", [b"a"], True),
        (b"A: b\r\n \r\n\r\n", [b"a"], True),
    ],
)
def test_the_end_of_the_section_is_found(octets: bytes, names: list[bytes], complete: bool) -> None:
    header = split_header(octets)
    assert [field.name for field in header.fields] == names
    assert header.complete is complete


@pytest.mark.parametrize("place", range(len(MESSAGE) + 1))
def test_a_section_cut_anywhere_is_complete_only_when_its_end_was_seen(place: int) -> None:
    end = MESSAGE.index(b"\r\n\r\n") + 4
    header = split_header(MESSAGE[:place])
    assert header.complete is (place >= end)
    if header.complete:
        assert header == split_header(MESSAGE)


def test_a_value_is_unfolded_by_its_line_ends_alone() -> None:
    assert Field(b"a", b"A:  b\r\n\tc\r\n").value == b"b\tc"
    assert Field(b"a", b"A : b:c\r\n").value == b"b:c"


LINES = st.lists(
    st.sampled_from(
        [b"A: b", b"Long-Name:", b" folded", b"\t", b"", b"no field", b":", b"A\xff: x", b"B : y", b"\0", b"A:\r"]
    )
    | st.binary(max_size=12)
).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@given(LINES | st.binary(max_size=200))
def test_any_octets_are_split_without_loss(octets: bytes) -> None:
    header = split_header(octets)
    assert b"".join(field.raw for field in header.fields) == octets[: header.size]
    for field in header.fields:
        assert field.raw.endswith(b"\n")
        assert field.raw.lower().startswith(field.name)
        assert field.name
        assert b"\r\n" not in field.value


@given(LINES, st.data())
def test_more_octets_never_change_a_complete_section(octets: bytes, data: st.DataObject) -> None:
    cut = split_header(octets[: data.draw(st.integers(0, len(octets)))])
    if cut.complete:
        assert split_header(octets) == cut


@pytest.mark.parametrize(
    ("octets", "fields"),
    [
        (b"a" * 4_000_000, 0),
        (b"a" + b" " * 4_000_000, 0),
        (b"a " * 2_000_000, 0),
        (b"a:" * 2_000_000, 0),
        (b"A: b\r\n" + b" x\r\n" * 1_000_000, 1),
        (b"A: b\r\n" + b" " * 4_000_000, 1),
        (b"A: b\r\n" * 700_000, MAX_FIELDS + 1),
        (b"A:" + b"\t" * 4_000_000 + b"\r\n\r\n", 1),
    ],
)
@pytest.mark.timeout(20)
def test_four_million_octets_are_split_in_linear_time(octets: bytes, fields: int) -> None:
    assert len(split_header(octets).fields) == fields


def test_an_empty_section() -> None:
    assert split_header(b"\r\n") == Header((), 0, complete=True)
