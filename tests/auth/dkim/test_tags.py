"""Tag lists, right and wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim.tags import TagError, decode_base64, parse_tags, unspaced


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (b"v=1", {"v": "1"}),
        (b"v=1;", {"v": "1"}),
        (b" v = 1 ;\r\n\td\t=\r\n a b \t; x_9=\r\n ; ", {"v": "1", "d": "a b", "x_9": ""}),
        (b"b=a\r\n =;B=c==\r\n", {"b": "a =", "B": "c=="}),
        ("i=jörg@bücher.example".encode(), {"i": "jörg@bücher.example"}),  # RFC 8616 4
    ],
)
def test_lists(text: bytes, tags: dict[str, str]) -> None:
    assert parse_tags(text) == tags
    assert parse_tags(text.decode()) == tags
    assert list(parse_tags(text)) == list(tags)


def test_which_characters_a_value_has() -> None:
    for point in (*range(0x180), 0xFFFD, 0x1F600, 0x10FFFF):
        allowed = point == 0x09 or (0x20 <= point <= 0x7E and chr(point) != ";") or point >= 0xA0
        try:
            taken = parse_tags(f"a=x{chr(point)}x") == {"a": f"x{chr(point)}x"}
        except TagError:
            taken = False
        assert taken == allowed, hex(point)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b";",
        b"v",
        b"v=1;;d=2",
        b"=1",
        b"v=1; =2",
        b"1v=1",
        b"v-1=1",
        b"v 1=1",
        b"v=1; v=1",
        b"v=1;d=2;v=2",
        b"v=\x00",
        b"v=\x7f",
        b"v=a\rb",
        b"v=a\nb",
        b"v=a\r\nb",
        b"v=\xff",
        b"v=\xc2\x85",
        b"\xc3\xa9=1",
        b"v=1\r\n\r\n",
    ],
)
def test_what_is_no_list(text: bytes) -> None:
    with pytest.raises(TagError, match=r"\w"):
        parse_tags(text)


tag_text = st.lists(st.sampled_from(["v", "=", ";", " ", "\r\n", "\t", "1", "é", "\x00", "_"]), max_size=30).map(
    "".join
)


@given(st.one_of(st.binary(max_size=60), tag_text.map(str.encode)))
def test_a_list_or_the_defined_error(text: bytes) -> None:
    try:
        tags = parse_tags(text)
    except TagError as error:
        assert str(error)
    else:
        assert all(name and value == value.strip(" \t") and ";" not in value for name, value in tags.items())


names = st.text("abYZ09_", min_size=1, max_size=5).filter(lambda name: name[0].isalpha())


@given(st.dictionaries(names, st.text("ab!:<~=19", max_size=8)))
def test_what_is_written_is_read_again(tags: dict[str, str]) -> None:
    if tags:
        assert parse_tags(" ;\r\n ".join(f"{name} = {value}" for name, value in tags.items())) == tags


def test_white_space_that_means_nothing() -> None:
    assert unspaced(" a \t b=") == "ab="


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", [b" ", b"\r\n ", b";", b"v", b"=", b"v=1;"])
def test_hostile_lists(piece: bytes) -> None:
    with pytest.raises(TagError):
        parse_tags(b"v=1;" + piece * 1_000_000 + b"\x00")


@pytest.mark.parametrize(
    ("text", "octets"), [("", b""), ("YQ==", b"a"), (" Y\tW I=", b"ab"), ("YWJj", b"abc"), ("+/+/", b"\xfb\xff\xbf")]
)
def test_base64(text: str, octets: bytes) -> None:
    assert decode_base64(text) == octets


@pytest.mark.parametrize("text", ["Y", "YQ", "YQ=", "YWI", "YWJj=", "YWJj====", "=", "YQ==YQ==", "YQ-_", "é", "Y\nQ=="])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(TagError, match="base64"):
        decode_base64(text)


@pytest.mark.parametrize("count", [100, 101, 100_000])
def test_the_number_of_tags_is_bounded(count: int) -> None:
    text = ";".join(f"a{number}=x" for number in range(count))
    if count > 100:
        with pytest.raises(TagError, match="more than 100 tags"):
            parse_tags(text)
    else:
        assert len(parse_tags(text)) == count
