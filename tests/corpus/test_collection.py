"""The collection is what it says: many, named once, whole, and of the sizes in their names."""

import re

import pytest

from tests.corpus.collection import ODD
from tests.corpus.odd import NOT_RELAYABLE, Odd, arriving
from tests.corpus.sizes import of_size


def test_there_are_many_and_their_names_differ() -> None:
    names = [one.name for one in ODD]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)


@pytest.mark.parametrize("one", [one for one in ODD if one.name != "size-of-25000000"], ids=lambda one: one.name)
def test_what_must_arrive_can(one: Odd) -> None:
    octets = arriving(one.octets)
    impossible = octets.count(b"\r") != octets.count(b"\r\n") or octets.count(b"\n") != octets.count(b"\r\n")
    assert (impossible or b"\0" in octets) == (one.refusal == NOT_RELAYABLE)


@pytest.mark.parametrize("size", [65_535, 65_536, 1_000_000])
def test_sizes_are_exact(size: int) -> None:
    assert len(of_size(size)) == size


@pytest.mark.parametrize("one", [one for one in ODD if one.name.startswith("dot-at-octet-")], ids=lambda one: one.name)
def test_dots_are_where_the_name_says(one: Odd) -> None:
    position = int(one.name.rpartition("-")[2])
    assert one.octets[position - 2 : position + 3] == b"\r\n.\r\n"
