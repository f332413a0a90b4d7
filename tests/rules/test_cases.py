from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.rules import RulesError
from forwarder.rules.cases import parse_cases, run_cases
from tests.rules.made import TODAY, made

RULES = made(
    'a -> x@m.com, y@m.com\nv -> x@m.com via [192.0.2.7]:25\nr -> reject "550 5.7.1 Go away"\n'
    'd -> defer "450 4.2.1 Wait"\nx -> discard\np -> x@m.com until 2027-01-31\n'
    'f from q@r.com, <> -> x@m.com\n"a b" -> x@m.com'
)


def outcome(line: str) -> str:
    """What came instead, "" if the case is met."""
    (case,) = parse_cases("c", line)
    return "".join(failure.got for failure in run_cases(RULES, [case], TODAY))


@pytest.mark.parametrize(
    "line",
    [
        "a@example.org => y@m.com, x@M.com  # order is free",
        "v@example.org => x@m.com via [192.0.2.7]:25",
        "r@example.org => reject",
        "r@example.org => 550",
        "r@example.org => reject 550",
        "r@example.org => 550 5.7.1",
        "r@example.org => reject 550 5.7.1 Go away",
        "d@example.org => defer",
        "d@example.org => 450",
        "d@example.org => defer 450 4.2.1",
        "x@example.org => discard",
        "p@example.org on 2027-01-31 => x@m.com",
        "p@example.org from a@b.com on 2027-02-01 => 550",
        "f@example.org from Q@r.com => x@m.com",
        "f@example.org from <> => x@m.com",
        "f@example.org => 550 5.1.1",
        '"A b"@example.org => x@m.com',
        "a@example.com => not served",
    ],
)
def test_cases_that_are_met(line: str) -> None:
    assert outcome(line) == ""


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("a@example.org => x@m.com", "x@m.com, y@m.com"),
        ("a@example.org => x@m.com, y@m.com, z@m.com", "x@m.com, y@m.com"),
        ("v@example.org => x@m.com", "x@m.com via [192.0.2.7]:25"),
        ("r@example.org => 554", "reject 550 5.7.1 Go away"),
        ("r@example.org => defer", "reject 550 5.7.1 Go away"),
        ("r@example.org => 550 5.7.1 Go home", "reject 550 5.7.1 Go away"),
        ("d@example.org => reject", "defer 450 4.2.1 Wait"),
        ("x@example.org => 550", "discard"),
        ("a@example.org => discard", "x@m.com, y@m.com"),
        ("a@example.org => not served", "x@m.com, y@m.com"),
        ("a@example.com => discard", "not served"),
    ],
)
def test_cases_that_are_not(line: str, got: str) -> None:
    assert outcome(line) == got


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a@example.org -> x@m.com", "a case is written"),
        ("=> x@m.com", "before => stands"),
        ("a@example.org x => y@m.com", "before => stands"),
        ("a@example.org form x@y.com => y@m.com", "'form' is neither"),
        ("a@example.org from x@y.com from x@y.com => y@m.com", "twice"),
        ("a@example.org on tomorrow => y@m.com", "tomorrow"),
        ("a => x@m.com", "needs an @"),
        ("a@example.org =>", "after =>"),
        ("a@example.org => x@m.com,", "after =>"),
        ("a@example.org => x@m.com by [1.2.3.4]", "after =>"),
        ("a@example.org => reject 450", "begin with 5"),
        ("a@example.org => defer 550", "begin with 4"),
        ("a" * 100_001, "longer"),
    ],
)
def test_faults_of_cases(line: str, reason: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_cases("c", f"# one\n\n{line}")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("c", 3)
    assert reason in problem.reason


def test_failures_name_their_place() -> None:
    cases = parse_cases("c", "\ufeffa@example.org => 550\r\nr@example.org => 550\r\n\r\nx@example.org => 550")
    assert [str(failure.case.place) for failure in run_cases(RULES, cases, date(2026, 1, 1))] == ["c:1", "c:4"]


@given(
    st.text(max_size=100)
    | st.lists(st.sampled_from(["a@b.c", " ", "=>", "from", "on", "<>", "550", "5.1.1", "via", ","])).map("".join)
)
def test_any_text_gives_cases_or_their_faults(text: str) -> None:
    try:
        cases = parse_cases("c", text)
    except RulesError as error:
        assert error.problems
    else:
        assert all(failure.got for failure in run_cases(RULES, cases, TODAY))
