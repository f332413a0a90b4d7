from hypothesis import given
from hypothesis import strategies as st

from forwarder.rules.line import read_line
from forwarder.rules.plain import Lines

_NAMES = st.from_regex(r"[A-Za-z0-9_=~.+'-]{1,20}", fullmatch=True)
_SPACES = st.sampled_from([" ", "  ", "\t"])
_DOMAINS = st.from_regex(r"[A-Za-z0-9_.-]{1,30}", fullmatch=True) | st.sampled_from(["Gmail.COM", "mx.example.com"])
_ENDS = st.sampled_from(["", " ", " # note", "# x", ".", " until 2027-01-01"])


@given(_NAMES, _SPACES, _NAMES, _DOMAINS, _ENDS)
def test_a_plain_line_is_read_as_any_line_is(name: str, space: str, local: str, domain: str, end: str) -> None:
    line = f"{space}{name}{space}->{space}{local}@{domain}{end}"
    lines = Lines()
    number = lines.add("f", ["", line]) + 1
    plain = lines.plain(number)
    faults: list[str] = []
    rules = read_line("f", 2, line, lambda column, reason: faults.append(reason))
    if plain is not None:
        rule = lines.rule(number)
        assert faults == []
        assert [rule] == rules
        assert (rule.place, rule.text) == (rules[0].place, rules[0].text)
        assert plain == (rule.name, rule.action.targets[0].address.domain)  # type: ignore[union-attr]


def test_common_lines_are_plain() -> None:
    lines = Lines()
    lines.add("f", ["first.last+tag -> Me@mail.example.com   # note", "  a\t->\tb@c.de"])
    assert lines.plain(0) == ("first.last+tag", "mail.example.com")
    assert lines.plain(1) == ("a", "c.de")


def test_where_lines_are() -> None:
    lines = Lines()
    lines.add("one", ["a -> b@c.de", ""])
    start = lines.add("two", ["", "d -> e@f.gh"])
    assert str(lines.rule(0).place) == "one:1"
    assert str(lines.rule(start + 1).place) == "two:2"


def test_what_may_be_wrong_is_not_plain() -> None:
    lines = Lines()
    odd = [
        "a -> b@-x.com",
        "a -> b@c",
        "a..b -> c@d.ef",
        "a -> .b@c.de",
        "a -> b@c.de until",
        "a -> b@c.de#x",
        "a* -> b@c.de",
    ]
    lines.add("f", [*odd, f"a -> {'b' * 250}@c.de"])
    assert [lines.plain(number) for number in range(len(odd) + 1)] == [None] * (len(odd) + 1)
