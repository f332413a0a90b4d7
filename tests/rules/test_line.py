from datetime import date

import pytest

from forwarder.model.reply import Reply
from forwarder.rules.line import read_line
from forwarder.rules.rule import Drop, Kind, Rate, Rule
from forwarder.rules.targets import Send


def read(line: str) -> list[Rule]:
    faults: list[tuple[int, str]] = []
    rules = read_line("f", 7, line, lambda column, reason: faults.append((column, reason)))
    assert faults == []
    return rules


def faults_of(line: str) -> list[tuple[int, str]]:
    faults: list[tuple[int, str]] = []
    read_line("f", 7, line, lambda column, reason: faults.append((column, reason)))
    return faults


@pytest.mark.parametrize(
    ("pattern", "kind", "name"),
    [
        ("Sales", Kind.EXACT, "sales"),
        ("sales+X", Kind.EXACT, "sales+x"),
        ('"A b"', Kind.EXACT, "a b"),
        ('"what?"', Kind.EXACT, "what?"),
        ("Jürgen", Kind.EXACT, "jürgen"),
        ("o'neil", Kind.EXACT, "o'neil"),
        ("news-*", Kind.GLOB, "news-*"),
        ("a?", Kind.GLOB, "a?"),
        ("*", Kind.CATCH_ALL, "*"),
        (r"/a\/B/", Kind.REGEX, r"a\/B"),
        ("from", Kind.EXACT, "from"),
        ("reject", Kind.EXACT, "reject"),
    ],
)
def test_patterns(pattern: str, kind: Kind, name: str) -> None:
    (rule,) = read(f"{pattern} -> me@gmail.com")
    assert (rule.kind, rule.name) == (kind, name)


def test_several_patterns_make_several_rules_each_in_its_column() -> None:
    rules = read("  sales, info ,/x/ -> me@gmail.com")
    assert [(rule.name, rule.place.line, rule.place.column) for rule in rules] == [
        ("sales", 7, 3),
        ("info", 7, 10),
        ("x", 7, 16),
    ]


def test_all_parts_of_a_line() -> None:
    (rule,) = read("a from *@b.com, <> -> me@c.com, you@d.com via [192.0.2.7]:25 limit 3/day until 2027-01-31 # why")
    assert str(rule.senders) == "*@b.com, <>"
    assert isinstance(rule.action, Send)
    assert [str(target.via) for target in rule.action.targets] == ["[192.0.2.7]:25"] * 2
    assert (rule.rate, rule.until) == (Rate(3, 86_400), date(2027, 1, 31))


def test_actions() -> None:
    assert read('a -> reject "550 5.7.1 No"')[0].action == Reply(550, "5.7.1", "No")
    assert read('a -> defer "450 4.2.1 Later"')[0].action == Reply(450, "4.2.1", "Later")
    assert read(r'a -> reject "550 5.7.1 say \"please\""')[0].action == Reply(550, "5.7.1", 'say "please"')
    assert read("a -> discard until 2027-01-01")[0].action == Drop()


@pytest.mark.parametrize("rate", ["1/minute", "20/hour", "1000000/day"])
def test_rates(rate: str) -> None:
    assert read(f"a -> b@c.com limit {rate}")[0].rate


def test_blank_lines_and_comments_are_no_rules() -> None:
    assert read("") == read(" \t ") == read("# a -> b") == read("  # x") == []


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ("sales info -> a@b.com", 7, "expected a comma, from or -> before 'info'"),
        ("sales", 6, "expected -> and where"),
        ("sales ->", 9, "expected an address"),
        ("-> a@b.com", 1, "expected a name"),
        ("a, -> a@b.com", 4, "expected a name"),
        ("a => a@b.com", 3, "write -> instead of =>"),
        ("a → a@b.com", 3, "write -> instead of →"),
        ("a: a@b.com", 1, "write a ->"),
        ("a@example.org -> a@b.com", 1, "only the part before the @"),
        ("a..b -> a@b.com", 1, "malformed"),
        (".* -> a@b.com", 1, "malformed"),
        ('"" -> a@b.com', 1, "empty"),
        ("/(/ -> a@b.com", 1, "missing"),
        ("/a(b)/ -> \\2@c.com", 1, "the pattern has 1 captures"),
        ("a -> \\1@c.com", 1, "no /expression/"),
        ("a*, /(x)/ -> \\1@c.com", 1, "no /expression/"),
        ("a from -> b@c.com", 8, "expected a sender"),
        ("a from shop.com -> b@c.com", 8, "no sender"),
        ("a from x@y.com, -> b@c.com", 17, "expected a sender"),
        ("a -> b@c.com from x@y.com", 14, "from stands before"),
        ("a -> b@c.com d@e.com", 14, "expected a comma"),
        ("a -> b@c.com,", 14, "expected an address before the end of the line"),
        ("a -> b@c.com, b@c.com", 15, "twice"),
        ("a -> b@c.com, discard", 15, "stands alone"),
        ("a -> discard, b@c.com", 13, "stands alone"),
        ("a -> rejct@", 6, "empty"),
        ("a -> discrd", 6, "did you mean discard?"),
        ("a -> reject", 12, '"550 5.7.1'),
        ('a -> reject "450 4.1.1 x"', 13, "begin with 5"),
        ('a -> reject "550 4.1.1 x"', 13, "begin with 5"),
        ('a -> defer "550 5.1.1 x"', 12, "begin with 4"),
        ('a -> defer "421 4.1.1 x"', 12, "421"),
        ('a -> reject "550 5.1.1"', 13, "an enhanced code and a text"),
        ('a -> reject "250 2.0.0 x"', 13, "a code"),
        ('a -> reject "550 5.1.1 ü"', 13, "printable ASCII"),
        (f'a -> reject "550 5.1.1 {"x" * 400}"', 13, "at most 400"),
        ('a -> reject "550 5.1.1 x" limit 3/day', 27, "rules that forward"),
        ("a -> discard via [192.0.2.1]", 14, "rules that forward"),
        ("a -> b@c.com untill 2027-01-01", 14, "did you mean until?"),
        ("a -> b@c.com colour red", 14, "there are until, limit and via"),
        ("a -> b@c.com until", 19, "expected a value"),
        ("a -> b@c.com until 2027-02-30", 20, "YYYY-MM-DD"),
        ("a -> b@c.com until 20270201", 20, "YYYY-MM-DD"),
        ("a -> b@c.com until 2027-01-01 until 2027-01-02", 31, "given twice"),
        ("a -> b@c.com limit 0/day", 20, "a limit is written"),
        ("a -> b@c.com limit 3/week", 20, "a limit is written"),
        ("a -> b@c.com limit 9999999/day", 20, "a limit is written"),
        ("a -> b@c.com via [1.2.3.4", 18, "next hop"),
        ("a -> b@c.com via [1.2.3.4]:99999", 18, "port"),
        ('a -> "b', 6, "not closed"),
        ("x" * 100_001, 1, "longer than"),
        ("a -> " + ", ".join(f"a{n}@b.com" for n in range(1_001)), 6, "at most 1000 targets"),
    ],
)
def test_faults_have_column_and_reason(line: str, column: int, reason: str) -> None:
    faults = faults_of(line)
    assert faults
    assert any(at == column and reason in why for at, why in faults), faults


def test_all_faults_of_a_line_are_told() -> None:
    faults = faults_of("a@b, c..d from x -> foo, bar until never limit often")
    assert [column for column, _ in faults] == [1, 6, 16, 21, 26, 36, 48] or len(faults) == 7, faults
