import re

import pytest

from forwarder.rules.names import fold, glob_expression, name_of


@pytest.mark.parametrize(
    ("one", "other"),
    [("Sales", "sALES"), ("JÜRGEN", "jürgen"), ("ju\u0308rgen", "jürgen"), ("ПОЧТА", "почта"), ("STRASSE", "straße")],
)
def test_spellings_of_one_name_fold_alike(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_different_names_do_not() -> None:
    assert fold("jurgen") != fold("jürgen")


@pytest.mark.parametrize(
    ("local", "base", "tag"),
    [("sales", "", ""), ("Sales+Car", "sales", "Car"), ("a+b+c", "a", "b+c"), ("+x", "", "x"), ("a+", "a", "")],
)
def test_the_tag_follows_the_first_plus(local: str, base: str, tag: str) -> None:
    name = name_of(local)
    assert (name.base, name.tag) == (base, tag)


@pytest.mark.parametrize(
    ("glob", "local", "matches"),
    [
        ("news-*", "news-", True),
        ("news-*", "news-a+b", True),
        ("*-news", "a-news+x", True),  # the part before the tag
        ("*-news", "a-news+x-news", True),
        ("*-news", "a-newsx", False),
        ("a?c", "abc", True),
        ("a?c", "a+c", True),  # the whole local part
        ("a?c", "a+c+x", False),
        ("a?c", "ac", False),
        ("a+*", "a+b", True),
        ("a+*", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "axb", False),
        ("a**c", "abbc", True),
    ],
)
def test_globs(glob: str, local: str, matches: bool) -> None:
    assert bool(re.fullmatch(glob_expression(glob, tags=True), local)) is matches


def test_without_tags_a_glob_is_for_the_whole_text() -> None:
    assert not re.fullmatch(glob_expression("*-news", tags=False), "a-news+x")
