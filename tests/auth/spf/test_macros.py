"""Macros: the examples of RFC 7208 7.4, the grammar of 7.1, and what holds for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.spf.macros import (
    MAX_EXPLANATION,
    MAX_NAME,
    SpfSyntaxError,
    expand_name,
    expand_text,
    parse_domain_spec,
    parse_explanation,
    parse_macro_string,
)

VALUES = {
    "s": "strong-bad@email.example.com",
    "l": "strong-bad",
    "o": "email.example.com",
    "d": "email.example.com",
    "i": "192.0.2.3",
    "p": "mx.example.org",
    "v": "in-addr",
    "h": "mail.example.org",
    "c": "192.0.2.3",
    "r": "mx.receiver.example",
    "t": "1700000000",
}
IP6 = "2.0.0.1.0.D.B.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.C.B.0.1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{d02R}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{d" + "9" * 5000 + "}", "email.example.com"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("%{S}.example", "strong-bad%40email.example.com.example"),
        ("%{h}.%{p}.example.net.", "mail.example.org.mx.example.org.example.net"),
        ("a%%b%_c%-d.example", "a%b c%20d.example"),
        ("x%%", "x%"),
        ("foo:bar/baz.example.xn--zckzah", "foo:bar/baz.example.xn--zckzah"),
    ],
)
def test_names(text: str, expected: str) -> None:
    assert expand_name(parse_domain_spec(text), VALUES) == expected


def test_ipv6_nibbles() -> None:
    values = {**VALUES, "i": IP6, "v": "ip6"}
    name = expand_name(parse_domain_spec("%{ir}.%{v}._spf.%{d2}"), values)
    assert name == "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6._spf.example.com"


@pytest.mark.parametrize(
    "text",
    [
        *("", "museum", "museum.", "com", "a.123", "192.0.2.1", "a.-b", "a.b-", "a..", "a.b:80", "a.b/24"),
        *("%", "a%", "%a.example", "%(d).example", "%{d", "%{}", "%{x}", "%{d0}", "%{d00}", "%{d2rr}", "%{d-2}"),
        *("%{c}", "%{r}", "%{t}", "%{C}.example", "a b.example", "a\t.example", "ü.example", "%{d}x", "x%%-", "a.%%b"),
        "a.example\n",
    ],
)
def test_what_is_no_domain_spec(text: str) -> None:
    with pytest.raises(SpfSyntaxError):
        parse_domain_spec(text)


def test_a_long_name_loses_labels_on_its_left() -> None:
    values = {"l": ".".join(["local"] * 60), "d": "example.com"}
    name = expand_name(parse_domain_spec("a." * 200 + "%{l}.%{d}"), values)
    assert len(name) <= MAX_NAME < len("local." + name)
    assert name.startswith("local.local")
    assert name.endswith(".example.com")


@pytest.mark.parametrize(("length", "kept"), [(MAX_NAME, True), (MAX_NAME + 1, False)])
def test_exactly_253_characters_stay(length: int, kept: bool) -> None:
    text = "first." + "x" * (length - len("first.") - len(".example")) + ".example"
    assert (expand_name(parse_domain_spec(text), {}) == text) is kept
    assert (expand_name(parse_domain_spec(text + "."), {}) == text) is kept


@pytest.mark.parametrize("dot", ["", "."])
def test_what_is_cut_are_whole_labels(dot: str) -> None:
    longest = "first." + "x" * (MAX_NAME - len("first.") - len(".example")) + ".example"
    rest = longest.partition(".")[2]
    for text, expected in (("y.%{d}", longest), ("y%{d}", rest), ("a.b.y%{d}", rest), ("%{l}.%{d}", longest)):
        assert expand_name(parse_domain_spec(text), {"d": longest + dot, "l": "y"}) == expected


def test_one_label_too_long_leaves_what_is_right_of_it() -> None:
    assert expand_name(parse_domain_spec("%{l}.example"), {"l": "x" * 300}) == "example"
    assert expand_name(parse_domain_spec("%{l}"), {"l": "x" * 300}) == ""


def test_explanations() -> None:
    text = parse_explanation("http://%{d}/?s=%{S}&ip=%{C} at %{r}: %{t}")
    assert expand_text(text, VALUES) == (
        "http://email.example.com/?s=strong-bad%40email.example.com&ip=192.0.2.3 at mx.receiver.example: 1700000000"
    )


def test_what_a_value_brings_into_an_explanation_is_cleaned_and_cut() -> None:
    text = parse_explanation("%{l}")
    assert expand_text(text, {"l": "a\r\nb\0\x7fü\u2028"}) == "a??b????"
    assert expand_text(parse_explanation("%{l}" * 1000), {"l": "x" * 99}) == "x" * MAX_EXPLANATION


@pytest.mark.parametrize("text", ["50%", "%{x}", "tab\t", "ü", "%{d0}", "line\r\nline"])
def test_what_is_no_explanation(text: str) -> None:
    with pytest.raises(SpfSyntaxError):
        parse_explanation(text)


def test_values_of_unknown_modifiers_may_be_anything_well_formed() -> None:
    assert parse_macro_string("man:dog/cat%{t}")
    with pytest.raises(SpfSyntaxError):
        parse_macro_string("%abc")


class Counted(dict[str, str]):
    """Counts how often a value is taken."""

    taken = 0

    def __getitem__(self, letter: str) -> str:
        self.taken += 1
        return super().__getitem__(letter)


def test_what_would_be_cut_off_is_not_expanded() -> None:
    for length in (1, 10, 100, 1000):
        values = Counted({"l": "x" * length})
        expand_name(parse_domain_spec("%{l}" * 10_000), values)
        assert values.taken <= MAX_NAME // length + 3
        values = Counted({"l": "x" * length})
        expand_text(parse_explanation("%{l}" * 10_000), values)
        assert values.taken <= MAX_EXPLANATION // length + 1


pieces = st.sampled_from(
    ["%{l}", "%{d2r}", "%{S}", "%{h1r-}", "%%", "%_", "%-", "%", "{", "}", ".", "a", "example", "0"]
)
texts = st.one_of(st.text(max_size=60), st.lists(pieces, max_size=40).map("".join))


@given(texts, st.text(max_size=300))
def test_any_text_is_expanded_within_bounds_or_refused(text: str, value: str) -> None:
    values = dict.fromkeys("slodipvhcrt", value)
    for parse in (parse_domain_spec, parse_macro_string, parse_explanation):
        try:
            parsed = parse(text)
        except SpfSyntaxError as error:
            assert str(error).isascii()
            assert str(error).isprintable()
            continue
        assert len(expand_name(parsed, values)) <= MAX_NAME
        words = expand_text(parsed, values)
        assert len(words) <= MAX_EXPLANATION
        assert words.isascii()
        assert not words or words.isprintable()


@given(st.text("ab.", max_size=300), st.text("cd.", max_size=300))
def test_cutting_takes_as_few_labels_as_it_must(left: str, right: str) -> None:
    whole = f"{left}.x.{right}".removesuffix(".")
    while len(whole) > MAX_NAME:
        whole = whole.partition(".")[2]
    assert expand_name(parse_domain_spec("%{l}.x.%{d}"), {"l": left, "d": right}) == whole
