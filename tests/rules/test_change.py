import pytest

from forwarder.rules import compare
from tests.rules.made import made

BASE = "".join(f"a{n} -> m{n}@m.com\n" for n in range(20))


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        (BASE, BASE, (0, 0, 0)),
        (BASE, f"# moved\n\n{BASE}", (0, 0, 0)),
        (BASE, f"{BASE}b -> x@m.com", (1, 0, 0)),
        (f"{BASE}b -> x@m.com", BASE, (0, 1, 0)),
        (BASE, BASE.replace("m3@m.com", "other@m.com"), (0, 0, 1)),
        (BASE, BASE.replace("m3@m.com", "m3@m.com   # note"), (0, 0, 0)),
        (BASE, BASE.replace("m3@m.com", "m3@m.com until 2027-01-01"), (0, 0, 1)),
        ("x from a@b.com -> m@m.com", "x from c@b.com -> m@m.com", (1, 1, 0)),
        ('x -> reject "550 5.1.1 a"', 'x -> reject "550 5.1.1 b"', (0, 0, 1)),
        ("x* -> a@b.com\n/y/ -> a@b.com", "x* -> c@b.com\n/y/ -> a@b.com", (0, 0, 1)),
        ("x, y -> a@b.com", "x, y, z -> a@b.com", (1, 0, 0)),
    ],
)
def test_what_a_reload_changes(old: str, new: str, counts: tuple[int, int, int]) -> None:
    change = compare(made(old), made(new))
    assert (change.added, change.removed, change.changed) == counts
    assert not change.suspicious


def test_a_rule_of_two_domains_counts_once() -> None:
    header = "[a.org, b.org]\n"
    change = compare(made(BASE, header), made(BASE + "x -> y@m.com\nz* -> y@m.com", header))
    assert (change.added, change.total, change.before) == (2, 22, 20)


def test_a_new_domain_and_one_that_goes() -> None:
    change = compare(made("a -> b@c.com", "[a.org]\n"), made("a -> b@c.com", "[b.org]\n"))
    assert (change.added, change.removed, change.changed) == (1, 1, 0)


@pytest.mark.parametrize(
    ("before", "after", "suspicious"),
    [(20, 10, False), (20, 9, True), (10, 4, True), (9, 1, False), (9, 0, True), (0, 0, False), (0, 5, False)],
)
def test_what_looks_like_an_accident(before: int, after: int, suspicious: bool) -> None:
    def some(count: int) -> str:
        return "".join(f"a{n} -> m@m.com\n" for n in range(count))

    assert compare(made(some(before)), made(some(after))).suspicious is suspicious
