import pytest

from forwarder.rules.lexer import LineError, Sort, tokens_of, unquoted


def words(line: str) -> list[str]:
    return [token.text for token in tokens_of(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", [""]),
        ("  # all comment", [""]),
        ("a->b@c.d", ["a", "->", "b@c.d", ""]),
        ("a-b - > c", ["a-b", "-", ">", "c", ""]),
        ("a#b -> x@y.z#tag # comment", ["a#b", "->", "x@y.z#tag", ""]),
        ("a,#b,\tc", ["a", ",", "#b", ",", "c", ""]),
        ('"a # b" -> x', ['"a # b"', "->", "x", ""]),
        (r'"a\" b"@c', [r'"a\" b"@c', ""]),
        (r"/a, #b -> \/c/ -> x", [r"a, #b -> \/c", "->", "x", ""]),
        ("/a/,/b/ from /c/d@e -> /f/g@h", ["a", ",", "b", "from", "/c/d@e", "->", "/f/g@h", ""]),
        ("from, /x/ -> a", ["from", ",", "x", "->", "a", ""]),
    ],
)
def test_tokens(line: str, expected: list[str]) -> None:
    assert words(line) == expected


@pytest.mark.parametrize(
    ("line", "column"), [('a -> "b', 6), ('a"b -> c', 2), ("/a", 1), ("x, /a/b -> c", 4), ("//x", 1)]
)
def test_what_is_not_closed(line: str, column: int) -> None:
    with pytest.raises(LineError) as caught:
        tokens_of(line)
    assert caught.value.column == column
    assert "not closed" in caught.value.reason


def test_columns_and_sorts() -> None:
    tokens = tokens_of('\t"a b" , /c/->d')
    assert [(token.sort, token.column) for token in tokens] == [
        (Sort.QUOTED, 2),
        (Sort.COMMA, 8),
        (Sort.REGEX, 10),
        (Sort.ARROW, 13),
        (Sort.WORD, 15),
        (Sort.END, 16),
    ]
    assert unquoted(tokens[0].text) == "a b"


@pytest.mark.parametrize("line", ['"' * 99_999, 'a"' * 50_000, "/" + "\\" * 99_999, "-" * 100_000, "," * 100_000])
def test_time_is_linear_in_hostile_lines(line: str) -> None:
    """Quadratic work on these would not end within the timeout of the tests."""
    try:
        assert tokens_of(line)
    except LineError as error:
        assert error.reason
