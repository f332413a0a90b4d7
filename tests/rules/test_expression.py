import pytest

from forwarder.rules import expression
from forwarder.rules.expression import ExpressionError, ExpressionSet, compile_expression


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(?=a)", "look-ahead"),
        ("(?<!a)b", "look-ahead"),
        (r"(a)\1", "back-references"),
        ("(", "missing"),
        (r"\C", "half a character"),
        (r"\\\C", "half a character"),
        ("((a{100}){100})", "repetition"),
        ("x" * 1_001, "longer than"),
        ("(?:" + "[a-zäöü]{900}" * 60 + ")", "too large"),
    ],
)
def test_what_cannot_be_used_is_said_in_plain_words(text: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExpressionError, match=reason):
        compile_expression(text)
    assert capfd.readouterr() == ("", "")  # RE2 keeps quiet


def test_an_escaped_backslash_before_c_is_no_octet() -> None:
    assert compile_expression(r"\\C").fullmatch("\\C")


def test_matching_is_whole_and_without_case() -> None:
    assert compile_expression(r"inv-(\d+)").fullmatch("INV-12")
    assert compile_expression("inv").fullmatch("invoice") is None


@pytest.mark.parametrize(("text", "subject"), [(r"^(\w+\s?)*$", "a" * 25 + "!"), (r"(a+)+", "a" * 60_000 + "!")])
def test_row_40_no_expression_takes_long(text: str, subject: str) -> None:
    """A backtracking matcher would need longer than the age of the universe: that it returns at all is the test."""
    assert compile_expression(text).fullmatch(subject) is None
    assert ExpressionSet([text]).matches(subject) == []


def test_row_40_spaces_at_the_end() -> None:
    assert compile_expression(r".*\s+").fullmatch(" " * 60_000 + "x") is None


def test_a_set_gives_all_matches_in_order_over_its_parts() -> None:
    many = [f"a{index}" for index in range(1_200)]
    many[700] = many[3] = many[1_199] = ".*"
    assert ExpressionSet(many).matches("A1100") == [3, 700, 1_100, 1_199]
    assert ExpressionSet([]).matches("x") == []


class _OutOfMemory:
    """RE2's sets say "nothing matches" when their automaton does not fit while it runs."""

    def Match(self, text: str) -> None:  # noqa: N802 - RE2's name
        """Find nothing."""


@pytest.mark.parametrize("broken", [_OutOfMemory(), None])
def test_a_set_without_memory_still_tells_the_truth(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    monkeypatch.setattr(expression, "_compile_set", lambda expressions: broken)
    assert ExpressionSet(["a.*", "b.*", ".*c"]).matches("abc") == [0, 2]


def test_a_set_that_cannot_be_compiled_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "_SET_MEMORY", 1 << 10)
    many = [f".*a{index}.*b{index}.*c[0-9]{{1,20}}.*" for index in range(100)]
    assert ExpressionSet(many).matches("xxa99b99c1x") == [9, 99]


def test_compiling_is_bounded() -> None:
    """However hostile, 100 expressions are refused or compiled in a time that the timeout of the tests allows."""
    hostile = [f"(?:[^\\x00-\\x{index + 10:x}]{{1,{900 + index}}}){{1,2}}" for index in range(100)]
    for text in hostile:
        try:
            compile_expression(text)
        except ExpressionError as error:
            assert str(error)
