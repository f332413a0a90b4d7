import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.address import Address
from forwarder.rules import Forward, RulesError, parse
from forwarder.rules.parse import MAX_MERGED
from tests.rules.made import POSTMASTER, TODAY, decided, made, problems, said


def test_sections_are_merged_over_files_in_their_order() -> None:
    rules = parse(
        [
            ("1.rules", "[a.org, b.org]\nx -> one@m.com\ng* -> glob@m.com\n[b.org]\ny -> two@m.com\n"),
            ("2.rules", "[B.ORG.]\n/g.*/ -> regex@m.com\nz from *@q.com -> q@m.com\nx from *@q.com -> q@m.com\n"),
        ],
        POSTMASTER,
    )
    assert rules.domains == {"a.org", "b.org"}
    assert rules.total == 6
    assert [said(rules, f"{name}@b.org") for name in ("x", "y", "gx")] == ["one@m.com", "two@m.com", "glob@m.com"]
    assert said(rules, "x@b.org", "a@q.com") == "q@m.com"
    assert said(rules, "x@a.org", "a@q.com") == "one@m.com"
    assert said(rules, "y@a.org").startswith("reject 550 5.1.1")


def test_the_order_of_files_decides_between_globs() -> None:
    rules = parse([("b", "[x.org]\na* -> first@m.com"), ("a", "[x.org, y.org]\n*a -> second@m.com")], POSTMASTER)
    assert said(rules, "aa@x.org") == "first@m.com"
    assert said(rules, "aa@y.org") == "second@m.com"


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends(start: str, end: str) -> None:
    text = start + end.join(["[example.org]", "a -> b@c.com", 'r -> reject "550 5.7.1 x"', ""])
    rules = parse([("f", text)], POSTMASTER)
    assert said(rules, "a") == "b@c.com"
    assert said(rules, "r") == "reject 550 5.7.1 x"


@pytest.mark.parametrize(
    "domain", ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "xn--BCHER-kva.example"]
)
def test_u_labels_and_a_labels_are_one_domain(domain: str) -> None:
    rules = made("a -> b@c.com", f"[{domain}]\n")
    assert rules.domains == {"xn--bcher-kva.example"}
    assert said(rules, "a@bücher.example") == said(rules, "a@xn--bcher-kva.example") == "b@c.com"


def test_a_homograph_is_another_domain() -> None:
    assert said(made("* -> b@c.com"), "a@ex\u0430mple.org") == "not served"  # a Cyrillic letter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1: there are no rules: begin with a section, such as [example.org]"]),
        ("# nothing\n\n", ["1:1: there are no rules: begin with a section, such as [example.org]"]),
        ("a -> b@c.com\nd -> e@f.com", ["1:1: a rule before any section: write [your.domain] on a line above it"]),
        ("[]\na -> b@c.com", ["1:2: a domain is missing: [example.org]"]),
        ("[a.org,]", ["1:8: a domain is missing: [example.org]"]),
        ("[a.org, A.org]", ["1:9: a.org is listed twice"]),
        ("[*.a.org]", ["1:2: a section has no wildcards: name each domain"]),
        ("[me@a.org]", ["1:2: a section names domains, not addresses"]),
        ("[a b]", ["1:2: 'a b': the domain is malformed"]),
        ("[a.org", ["1:1: a section is a line of its own: [example.org, example.net]"]),
        ("[a.org] b -> c@d.com", ["1:1: a section is a line of its own: [example.org, example.net]"]),
        ("[a.org]\na\x00 -> b@c.com", ["2:2: control character U+0000"]),
        ("\x00[a.org]", ["1:1: control character U+0000"]),
        ("[a.org]\na -> b@c.com\rd -> e@f.com", ["2:13: control character U+000D"]),
        ("[a.org]\na -> b@c.com # \x1b[31m", ["2:16: control character U+001B"]),
        ("[a.org]\n\ufeffa -> b@c.com", ["2:1: control character U+FEFF"]),
        ("[a.org]\nä\u2028 -> b@c.com", ["2:2: control character U+2028"]),
    ],
)
def test_faults_of_whole_texts(text: str, expected: list[str]) -> None:
    assert problems(text, "") == expected


def test_no_source_at_all() -> None:
    with pytest.raises(RulesError, match="there are no rules"):
        parse([], POSTMASTER)


def test_a_section_may_be_empty() -> None:
    rules = made("")
    assert rules.total == 0
    assert isinstance(decided(rules, "postmaster"), Forward)


def test_comments_after_a_header() -> None:
    assert said(made("a -> b@c.com", " [example.org]  # ours\n"), "a") == "b@c.com"


def test_all_faults_are_told_at_once_and_sorted() -> None:
    with pytest.raises(RulesError) as caught:
        parse(
            [
                ("2.rules", "[b.org]\nx -> y@z.com\nx -> q@z.com\nbad\n"),
                ("1.rules", "rule -> before@section.com\n[a.org]\na -> foo, bar limit 3\nb -> c@d.com oops\n"),
            ],
            POSTMASTER,
        )
    places = [(problem.file, problem.line) for problem in caught.value.problems]
    assert places == [
        ("1.rules", 1),
        ("1.rules", 3),
        ("1.rules", 3),
        ("1.rules", 3),
        ("1.rules", 4),
        *[("2.rules", 3), ("2.rules", 4)],
    ]
    assert str(caught.value).splitlines()[0].startswith("1.rules:1:1: a rule before")


def test_sections_that_overlap_too_much_are_refused() -> None:
    count = 1_500
    text = "".join(f"[d{n}.example, common.example]\n[d{n}.example, other.example]\n" for n in range(count))
    rules = "\n".join(f"r{n} -> a@b.com" for n in range(1_000))
    domains = ", ".join(f"d{n}.example" for n in range(count))
    (problem,) = problems(f"{text}[{domains}]\n{rules}\n", "")
    assert "overlap too much" in problem
    assert count * 1_000 > MAX_MERGED


def test_domains_that_share_sections_share_their_table() -> None:
    rules = made("a -> b@c.com", "[a.org, b.org]\n")
    assert rules.tables["a.org"] is rules.tables["b.org"]


_WORDS = st.sampled_from(
    [
        *[
            "[a.org]\n",
            "\n",
            " ",
            "a",
            "b",
            "*",
            "?",
            "/",
            "(",
            ")",
            "\\1",
            "${local}",
            "->",
            "@",
            "a.org",
            '"',
            ",",
            "#",
        ],
        *["from", "<>", "until 2027-01-01", "limit 3/day", "via [192.0.2.1]", "reject", '"550 5.1.1 x"', "discard"],
        *["\na -> b@a.org", "\n* -> *@a.org", "\nb -> a@a.org, c@d.com", "\n/(.*)x/ -> \\1@a.org"],
        *["\nx* -> ${local}y@a.org", "defer", "b.com", "\nx -> y@z.com"],
    ]
)


@given(
    st.lists(_WORDS, max_size=40).map("".join) | st.text(max_size=200), st.sampled_from(["a", "x1", "b+t", "Ü", "axx"])
)
def test_any_text_gives_rules_or_its_faults_and_rules_always_answer(text: str, local: str) -> None:
    for source in (text, "[a.org]\n" + text):
        try:
            rules = parse([("f", source)], Address("a", "a.org"))
        except RulesError as error:
            assert error.problems
            assert all(problem.reason and problem.line >= 1 and problem.column >= 1 for problem in error.problems)
        else:
            for sender in (None, POSTMASTER):
                assert rules.resolve(Address(local, "a.org"), sender, TODAY)
