import pytest

from forwarder.model.address import Address
from tests.rules.made import made, problems, said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a -> x@y.com\nA -> z@y.com", "3:1: a has a rule already, at t.rules:2"),
        ("a -> x@y.com\na -> x@y.com until 2027-01-01", "3:1: a has a rule already, at t.rules:2"),
        ("b, a -> x@y.com\nc, a -> z@y.com", "3:4: a has a rule already, at t.rules:2"),
        ("a, a -> x@y.com", "2:4: a has a rule already, at t.rules:2"),
        ("a* -> x@y.com\nb -> x@y.com\nA* -> z@y.com", "4:1: a* has a rule already, at t.rules:2"),
        ("/a/ -> x@y.com\n/a/ -> z@y.com", "3:1: /a/ has a rule already, at t.rules:2"),
        ("* -> x@y.com\n* -> z@y.com", "3:1: * has a rule already, at t.rules:2"),
        (
            "a from q@r.com, s@t.com -> x@y.com\na from S@T.com -> z@y.com",
            "3:1: a from s@t.com has a rule already, at t.rules:2",
        ),
        ("a from q@r.com, q@r.com -> x@y.com", "2:1: a from q@r.com has a rule already, at t.rules:2"),
    ],
)
def test_duplicates_name_both_places(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_duplicates_over_sections_and_files() -> None:
    assert problems("[example.net]\na -> x@y.com\n[example.org, example.net]\na -> x@y.com") == [
        "5:1: a has a rule already, at t.rules:3"
    ]


def test_rules_for_different_senders_are_no_duplicates() -> None:
    assert made("a -> x@y.com\na from q@r.com -> x@y.com\na from *@r.com -> x@y.com").total == 3


@pytest.mark.parametrize(
    ("text", "line", "way"),
    [
        ("a -> a@example.org", 2, "a@example.org -> a@example.org"),
        ("a -> b@example.org\nb -> a@example.org", 3, "a@example.org -> b@example.org -> a@example.org"),
        ("a -> A+x@example.org", 2, "a+x@example.org -> a+x@example.org"),
        ("* -> *@example.org", 2, "any-name@example.org -> any-name@example.org"),
        ("a* -> a${local}@example.org\na** -> me@m.com", 2, "more than 10"),
        ("n* -> x@example.org\nx -> n1@example.org", 2, "x@example.org -> n1@example.org -> x@example.org"),
        (
            "* -> x@example.org\nx -> y@example.org\ny from a@b.com -> m@m.com",
            2,
            "x@example.org -> y@example.org -> x@",
        ),
        ("a from q@r.com -> a@example.org\na -> me@m.com", 2, "a@example.org -> a@example.org"),
        (
            "a -> b@example.org\nb from q@r.com -> a@example.org\nb -> m@m.com",
            2,
            "b@example.org -> a@example.org -> b@",
        ),
        (
            "a from q@r.com -> b@example.org\na -> m@m.com\nb from q@r.com -> a@example.org\nb -> n@m.com",
            4,
            "a@example.org -> b@example.org -> a@example.org",
        ),
        ("a -> me@m.com, b@example.org\nb -> a@${domain}", 3, "a@example.org -> b@example.org -> a@example.org"),
        ("/x+/ -> xx@example.org", 2, "xx@example.org -> xx@example.org"),
    ],
)
def test_circles_are_found_when_the_rules_are_read(text: str, line: int, way: str) -> None:
    found = problems(text)
    assert any(problem.startswith(f"{line}:1: ") and way in problem for problem in found), found


def test_a_circle_between_catch_alls_of_two_domains() -> None:
    (problem,) = problems("* -> *@example.net\n[example.net]\n* -> *@example.org")
    assert "any-name@example.org -> any-name@example.net -> any-name@example.org" in problem


def test_each_circle_is_told_once() -> None:
    assert len(problems("a -> b@example.org\nb -> c@example.org\nc -> a@example.org\nx -> a@example.org")) == 1


def test_no_circle_where_the_senders_exclude_each_other() -> None:
    rules = made("a from x@x.com -> b@example.org\na -> m@m.com\nb from y@y.com -> a@example.org\nb -> n@m.com")
    assert said(rules, "a", "x@x.com") == "n@m.com"


@pytest.mark.parametrize(
    "text", ["a -> nobody@example.org", "a -> me@m.com, nobody@example.org", "a* -> nobody@example.org"]
)
def test_dead_ends_are_found(text: str) -> None:
    (problem,) = problems(text)
    assert "nobody@example.org is an address of ours for which there is no rule" in problem


@pytest.mark.parametrize(
    "text",
    ["a -> b@example.org\nb from x@y.com -> m@m.com", "a -> abuse@example.org", "a -> b@example.org\n?* -> m@m.com"],
)
def test_what_leads_somewhere_is_no_dead_end(text: str) -> None:
    made(text)


@pytest.mark.parametrize(
    ("postmaster", "text", "reason"),
    [
        ("admin", "x -> m@m.com", "postmaster of the configuration: admin@example.org is an address of ours for which"),
        ("postmaster", "", "postmaster of the configuration: the rules lead in a circle: postmaster@example.org"),
        (
            "abuse",
            "postmaster -> m@m.com",
            "postmaster of the configuration: the rules lead in a circle: abuse@example.org",
        ),
    ],
)
def test_a_configured_postmaster_that_leads_nowhere(postmaster: str, text: str, reason: str) -> None:
    found = problems(text, postmaster=Address(postmaster, "example.org"))
    assert any(problem.startswith("1:2: ") and reason in problem for problem in found), found


def test_a_postmaster_of_ours_with_a_rule_is_fine() -> None:
    from forwarder.rules import parse

    rules = parse([("f", "[example.org]\npostmaster -> m@m.com")], Address("postmaster", "example.org"))
    assert said(rules, "abuse") == "m@m.com"


def test_the_search_is_bounded() -> None:
    """Without a bound this would walk 1,000 ways from each of 1,000 names, ten deep."""
    targets = ", ".join(f"${{local}}{n}@example.org" for n in range(1_000))
    assert problems(f"x* -> {targets}\n" + "\n".join(f"x{n}y* -> {targets}" for n in range(20)))


def test_long_chains_take_linear_time() -> None:
    text = "\n".join(f"a{n} -> a{n + 1}@example.org" for n in range(3_000)) + "\na3000 -> me@m.com"
    assert all("more than 10 rules" in problem for problem in problems(text))


def test_a_template_that_fits_some_names_only_is_left_to_the_resolution() -> None:
    rules = made("a -> ${tag}@${domain}\nb -> me@m.com")
    assert said(rules, "a+b") == "me@m.com"
    assert said(rules, "a").startswith("reject 550 5.1.1")
