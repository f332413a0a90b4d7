"""The tree walk, with the examples of RFC 9989 4.10, 5.1.8 and B.4."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dmarc.organisation import MAX_QUERIES, TreeWalks, Walk, is_within, public_organisation, walk_names
from forwarder.ports import Answer
from tests.auth.answers import RandomResolver, answers
from tests.fakes import FakeResolver

DEEP = "a.b.c.d.e.f.g.h.i.j.mail.example.com"


def zone(**records: str) -> dict[tuple[str, str], list[str]]:
    """Records of names, written with "_" for the dot."""
    return {("_dmarc." + name.replace("_", "."), "TXT"): ["v=DMARC1; " + text] for name, text in records.items()}


async def walked(domain: str, resolver: FakeResolver) -> Walk:
    return await TreeWalks(resolver).walk(domain)


@pytest.mark.parametrize(
    ("domain", "names"),
    [
        (
            DEEP,  # RFC 9989 4.10
            "{0} g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com j.mail.example.com "
            "mail.example.com example.com com",
        ),
        (
            "mail.a.b.c.d.e.f.g.example.com",  # RFC 9989 5.1.8: b.c.d.e.f.g.example.com is never found
            "{0} c.d.e.f.g.example.com d.e.f.g.example.com e.f.g.example.com f.g.example.com g.example.com "
            "example.com com",
        ),
        (
            "a.b.c.d.e.f.example.com",  # 8 labels
            "{0} b.c.d.e.f.example.com c.d.e.f.example.com d.e.f.example.com e.f.example.com f.example.com "
            "example.com com",
        ),
        (
            "b.c.d.e.f.example.com",  # 7 labels
            "{0} c.d.e.f.example.com d.e.f.example.com e.f.example.com f.example.com example.com com",
        ),
        ("a.mail.example.com", "{0} mail.example.com example.com com"),
        ("example.com", "{0} com"),
        ("com", "com"),
    ],
)
async def test_names_that_are_asked(domain: str, names: str) -> None:
    expected = names.format(domain).split()
    assert list(walk_names(domain)) == expected
    resolver = FakeResolver()
    await walked(domain, resolver)
    assert resolver.asked == [(f"_dmarc.{name}", "TXT") for name in expected]


@pytest.mark.parametrize(
    ("domain", "records", "organisation", "policy"),
    [
        # RFC 9989 4.10.2, the three examples
        ("a.mail.example.com", {"mail_example_com": "p=none", "example_com": "p=none"}, "example.com", "example.com"),
        ("a.mail.example.com", {"mail_example_com": "psd=n"}, "mail.example.com", "mail.example.com"),
        ("a.mail.example.com", {"com": "psd=y"}, "example.com", "com"),
        # RFC 9989 B.4.1 and B.4.2
        ("signing.example.com", {"signing_example_com": "", "example_com": ""}, "example.com", "signing.example.com"),
        (DEEP, {"example_com": "", "signing_example_com": ""}, "example.com", "example.com"),
        # RFC 9989 B.4.3
        (
            "giant.bank.example",
            {"giant_bank_example": "", "bank_example": "psd=y"},
            "giant.bank.example",
            "giant.bank.example",
        ),
        (
            "mail.giant.bank.example",
            {"giant_bank_example": "", "bank_example": "psd=y"},
            "giant.bank.example",
            "giant.bank.example",
        ),
        ("mail.mega.bank.example", {"bank_example": "psd=y"}, "mega.bank.example", "bank.example"),
        # psd=n ends the search, whatever is above
        ("a.b.example.com", {"b_example_com": "psd=n", "example_com": "", "com": "psd=y"}, "b.example.com", None),
        ("b.example.com", {"b_example_com": "psd=n", "example_com": ""}, "b.example.com", "b.example.com"),
        # psd=y at the start itself is not a boundary above it
        ("bank.example", {"bank_example": "psd=y", "example": ""}, "bank.example", "bank.example"),
        # the organisation below a public suffix has no record: the suffix's counts, not one in between
        ("a.b.example.com", {"b_example_com": "p=none", "com": "psd=y"}, "example.com", "com"),
        # the author's own record counts before the organisation's
        ("a.example.com", {"a_example_com": "p=none", "example_com": "p=reject"}, "example.com", "a.example.com"),
        # the fewest labels: even a top-level domain without psd
        ("a.example.com", {"example_com": "", "com": ""}, "com", "com"),
        # past the jump
        (DEEP, {"b_c_d_e_f_g_h_i_j_mail_example_com": ""}, DEEP, ""),
        (DEEP, {"g_h_i_j_mail_example_com": "psd=y"}, "f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com"),
        # nothing anywhere
        ("a.example.com", {}, "a.example.com", ""),
    ],
)
async def test_organisation_and_policy(
    domain: str, records: dict[str, str], organisation: str, policy: str | None
) -> None:
    walk = await walked(domain, FakeResolver(zone(**records)))
    assert walk.organisation == organisation
    found = walk.policy.domain if walk.policy else ""
    assert found == (organisation if policy is None else policy)


@pytest.mark.parametrize("psd", ["y", "n"])
async def test_nothing_is_asked_above_a_boundary(psd: str) -> None:
    resolver = FakeResolver(zone(b_example_com=f"psd={psd}", example_com="p=reject"))
    await walked("a.b.example.com", resolver)
    assert resolver.asked[-1] == ("_dmarc.b.example.com", "TXT")


async def test_several_records_at_a_name_are_no_record() -> None:
    two = {("_dmarc.b.example.com", "TXT"): ["v=DMARC1; psd=n", "v=DMARC1; p=reject"]}
    walk = await walked("a.b.example.com", FakeResolver(two | zone(example_com="p=none")))
    assert [found.domain for found in walk.found] == ["example.com"]


async def test_names_in_common_are_asked_once() -> None:
    resolver = FakeResolver(zone(example_com=""))
    walks = TreeWalks(resolver)
    assert (await walks.walk("a.example.com")).organisation == (await walks.walk("b.example.com")).organisation
    assert sorted(resolver.asked) == [(f"_dmarc.{n}", "TXT") for n in ("a.example.com", "b.example.com", "com")] + [
        ("_dmarc.example.com", "TXT")
    ]
    assert walks.asked == 4


async def test_a_question_without_an_answer_ends_the_walk() -> None:
    resolver = FakeResolver(zone(a_example_com="p=reject"), frozenset({"_dmarc.example.com"}))
    walks = TreeWalks(resolver)
    walk = await walks.walk("a.example.com")
    assert (walk.organisation, walk.own) == ("", walk.policy)
    assert walk.unanswered == "DNS did not answer for _dmarc.example.com: the name server did not answer"
    assert walk.policy is not None and walk.policy.domain == "a.example.com"
    other = await walks.walk("b.example.com")
    assert other.unanswered and other.policy is None
    assert [name for name, _ in resolver.asked].count("_dmarc.example.com") == 1


async def test_an_uncertain_walk_names_no_policy_but_the_starts_own() -> None:
    resolver = FakeResolver(zone(example_com="p=reject"), frozenset({"_dmarc.com"}))
    assert (await walked("a.example.com", resolver)).policy is None


def test_within() -> None:
    assert is_within("example.com", "example.com") and is_within("a.example.com", "example.com")
    assert not is_within("notexample.com", "example.com") and not is_within("com", "example.com")


LABELS = st.lists(st.sampled_from(["a", "b", "xn--bcher-kva", "_x", "x" * 63]), min_size=1, max_size=40)
TEXTS = st.sampled_from([b"v=DMARC1; psd=y", b"v=DMARC1; psd=n", b"v=DMARC1; p=reject", b"v=DMARC1", b"v=spf1", b""])


@given(LABELS, st.data())
async def test_a_walk_is_bounded_and_its_organisation_is_an_ancestor(labels: list[str], data: st.DataObject) -> None:
    def choose(name: str, kind: str) -> Answer[Any]:
        return data.draw(answers(kind, TEXTS))

    resolver = RandomResolver(choose)
    domain = ".".join(labels)
    walk = await TreeWalks(resolver).walk(domain)
    assert len(resolver.asked) <= MAX_QUERIES
    assert len(set(resolver.asked)) == len(resolver.asked)
    assert is_within(domain, walk.organisation) if not walk.unanswered else walk.organisation == ""
    assert walk.policy is None or is_within(domain, walk.policy.domain)


@pytest.mark.parametrize(
    ("domain", "organisation"),
    [
        ("a.b.example.com", "example.com"),
        ("example.co.uk", "example.co.uk"),
        ("a.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("com", "com"),
        ("a.b.example", "b.example"),  # a suffix that is not on the list
        ("a.city.kobe.jp", "city.kobe.jp"),
        ("a.b.kobe.jp", "a.b.kobe.jp"),
        ("www.xn--55qx5d.cn", "www.xn--55qx5d.cn"),
        ("me.github.io", "me.github.io"),
        ("", ""),
    ],
)
def test_public_suffix_list(domain: str, organisation: str) -> None:
    assert public_organisation(domain) == organisation


def test_the_list_is_loaded_when_it_is_needed() -> None:
    import subprocess

    code = "import sys, forwarder.auth.dmarc.verify; print('publicsuffixlist' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
