from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.model.address import Address, AddressError, parse_mailbox
from forwarder.model.destination import Destination
from forwarder.rules import Defer, Discard, Forward, Limit, NotServed, Place, Refuse
from tests.rules.made import POSTMASTER, TODAY, decided, made, problems, said

UNKNOWN = "reject 550 5.1.1 There is no such address here"


# precedence


def test_precedence_from_the_tag_to_the_catch_all() -> None:
    lines = {
        "sales+x -> tagged@m.com": "tagged@m.com",
        "sales -> exact@m.com": "exact@m.com",
        "s*x -> glob@m.com": "glob@m.com",
        "/sales.*/ -> regex@m.com": "regex@m.com",
        "* -> all@m.com": "all@m.com",
    }
    left = list(lines)
    for expected in lines.values():
        assert (
            said("\n".join(reversed(left)) if expected.startswith(("t", "e", "a")) else "\n".join(left), "Sales+X")
            == expected
        )
        left.pop(0)
    assert said("", "sales+x") == UNKNOWN


def test_globs_and_expressions_are_asked_in_file_order() -> None:
    assert said("a* -> one@m.com\n/ab/ -> two@m.com", "ab") == "one@m.com"
    assert said("/ab/ -> two@m.com\na* -> one@m.com", "ab") == "two@m.com"


def test_file_order_holds_over_many_patterns() -> None:
    many = "\n".join(f"x{index}* -> m{index}@m.com" for index in range(1_300))
    assert said(f"{many}\nx* -> late@m.com", "x1299") == "m1@m.com"
    assert said(f"{many}\nx* -> late@m.com", "x") == "late@m.com"


def test_a_tag_of_its_own_and_other_tags() -> None:
    rules = made("sales -> a@m.com\nsales+x -> b@m.com\nsales+x+y -> c@m.com")
    assert [said(rules, name) for name in ("sales+x", "sales+x+y", "sales+x+z", "sales+", "sales")] == [
        "b@m.com", "c@m.com", "a@m.com", "a@m.com", "a@m.com",
    ]  # fmt: skip


def test_an_expression_sees_the_tag_and_a_glob_need_not() -> None:
    rules = made("/inv-[0-9]+/ -> r@m.com\nnews-? -> g@m.com")
    assert said(rules, "inv-1+x") == UNKNOWN
    assert said(rules, "news-1+x") == "g@m.com"


@pytest.mark.parametrize("pattern", ["shop", "sh*", "/shop/", "*"])
def test_from_comes_first_wherever_it_stands(pattern: str) -> None:
    rules = made(
        f"{pattern} -> plain@m.com\n{pattern} from *@shop.com -> any@m.com\n"
        f"{pattern} from a@shop.com, b@shop.com -> a@m.com"
    )
    assert said(rules, "shop", "c@shop.com") == "any@m.com"
    assert said(rules, "shop", "a@shop.com") == "any@m.com"  # in file order
    assert said(rules, "shop", "c@else.com") == "plain@m.com"
    assert said(rules, "shop", "<>") == "plain@m.com"


def test_a_from_that_does_not_match_leads_to_the_next_rules() -> None:
    rules = made(
        "shop+x from a@b.com -> 1@m.com\nshop from b@b.com -> 2@m.com\nsh* from c@b.com -> 3@m.com\n"
        "/s.*/ -> 4@m.com\n* from d@b.com -> 5@m.com"
    )
    assert [said(rules, "shop+x", f"{who}@b.com")[0] for who in "abcd"] == list("1234")
    assert said(rules, "zzz", "d@b.com") == "5@m.com"
    assert said(rules, "zzz", "e@b.com") == UNKNOWN


# postmaster and abuse


@pytest.mark.parametrize("name", ["postmaster", "Abuse", "abuse+x"])
def test_postmaster_and_abuse_fall_back_before_the_catch_all(name: str) -> None:
    assert said("* -> discard", name) == str(POSTMASTER)
    assert said(f"{name} -> me@m.com\n* -> discard", name) == "me@m.com"
    assert said("/postmaster|abuse(.x)?/ -> me@m.com\n* -> discard", name) == "me@m.com"
    assert said(f"{name} from a@b.com -> me@m.com", name) == str(POSTMASTER)


def test_other_names_have_no_fallback() -> None:
    assert said("", "hostmaster") == UNKNOWN


def test_postmaster_without_a_domain() -> None:
    rules = made("* -> a@b.com")
    assert rules.resolve(Address("PostMaster", ""), None, TODAY) == Forward(
        (Destination(POSTMASTER),), (), (Place("postmaster of the configuration", 0),)
    )
    assert rules.resolve(Address("abuse", ""), None, TODAY) == NotServed()


def test_the_configured_postmaster_may_be_an_alias_of_ours() -> None:
    from forwarder.rules import parse

    rules = parse([("f", "[a.org, b.org]\nadmin -> me@m.com")], Address("admin", "a.org"))
    assert said(rules, "abuse@b.org") == "me@m.com"
    bare = rules.resolve(Address("postmaster", ""), None, TODAY)
    assert isinstance(bare, Forward)
    assert [str(d.address) for d in bare.destinations] == ["me@m.com"]


# what a decision holds


def test_a_forward_has_destinations_limits_and_path() -> None:
    assert decided("list -> me@m.com, you@m.com limit 20/hour", "list") == Forward(
        (Destination(Address("me", "m.com")), Destination(Address("you", "m.com"))),
        (Limit("rule list@example.org", 20, 3_600, Place("t.rules", 2)),),
        (Place("t.rules", 2),),
    )


def test_a_limits_key_outlives_moved_lines_and_tells_domains_and_senders_apart() -> None:
    def keys(text: str, address: str, sender: str | None = None) -> list[str]:
        decision = decided(made(text, "[a.org, b.org]\n"), address, sender)
        assert isinstance(decision, Forward)
        return [limit.key for limit in decision.limits]

    rule = "l* -> me@m.com limit 1/day"
    assert keys(rule, "l1@a.org") == keys(f"# moved\n{rule}", "l2@a.org")
    assert keys(rule, "l1@a.org") != keys(rule, "l1@b.org")
    assert keys(rule, "l1@a.org") != keys("l* from *@x.com -> me@m.com limit 1/day", "l1@a.org", "a@x.com")


def test_limits_of_all_rules_on_the_way_count() -> None:
    decision = decided("a -> b@example.org limit 1/day\nb -> me@m.com limit 2/hour", "a")
    assert isinstance(decision, Forward)
    assert [(limit.count, limit.seconds) for limit in decision.limits] == [(1, 86_400), (2, 3_600)]
    assert [str(place) for place in decision.path] == ["t.rules:2", "t.rules:3"]


def test_until_includes_its_day_and_is_final_afterwards() -> None:
    rules = made("party -> me@m.com until 2027-01-31\nparty* -> glob@m.com\n* -> all@m.com")
    assert said(rules, "party", day=date(2027, 1, 31)) == "me@m.com"
    late = decided(rules, "party", day=date(2027, 2, 1))
    assert isinstance(late, Refuse)
    assert (late.reply.code, late.reply.enhanced) == (550, "5.1.1")


def test_an_until_for_one_sender_leaves_the_others_alone() -> None:
    rules = made("p from *@a.com -> a@m.com until 2020-01-01\np -> me@m.com")
    assert said(rules, "p", "x@b.com") == "me@m.com"
    assert said(rules, "p", "x@a.com").startswith("reject 550")


def test_replies_and_discard() -> None:
    rules = made('r -> reject "554 5.7.1 Go"\nd -> defer "451 4.2.1 Wait"\nx -> discard')
    assert [type(decided(rules, name)) for name in "rdx"] == [Refuse, Defer, Discard]
    assert said(rules, "r") == "reject 554 5.7.1 Go"
    assert said(rules, "d") == "defer 451 4.2.1 Wait"
    assert decided(rules, "x") == Discard((Place("t.rules", 4),))


def test_other_domains_are_not_ours() -> None:
    assert decided("* -> a@b.com", "a@example.com") == NotServed()
    assert decided("* -> a@b.com", "a@sub.example.org") == NotServed()
    assert decided("* -> a@b.com", "a@[192.0.2.1]") == NotServed()


# substitution


def test_the_catch_all_can_keep_the_name_as_it_was_written() -> None:
    assert said("* -> *@other.example", "John.Doe+X") == "John.Doe+X@other.example"


def test_captures_keep_the_spelling() -> None:
    assert said(r"/inv-(\w+)-(x)?.*/ -> b+\1\2@m.com", "INV-Abc-") == "b+Abc@m.com"


def test_smtputf8_names() -> None:
    rules = made(r"jürgen -> j@m.com" "\n" r"/käse-(.+)/ -> \1@m.com")
    assert said(rules, "JU\u0308RGEN") == "j@m.com"
    assert said(rules, "KÄSE-brot") == "brot@m.com"


def test_a_template_without_a_valid_address_is_refused_in_plain_words() -> None:
    decision = decided(r"/x(.*)/ -> \1@m.com", "x")
    assert isinstance(decision, Refuse)
    assert str(decision.reply).startswith("550 5.1.1 This address cannot be forwarded")
    assert isinstance(decided(r"/x(.*)/ -> \1@m.com, me@m.com", "x"), Refuse)
    assert isinstance(decided("* -> " + "y" * 200 + "${local}@m.com", "x" * 60), Refuse)


@pytest.mark.parametrize(
    "local", ['"u@evil.example"', "u%evil.example", "evil.example!u", '"a b, c@evil.example"', '"\\"@evil.example"']
)
def test_row_30_nothing_goes_elsewhere_than_the_rules_say(local: str) -> None:
    decision = decided("* -> *@other.example", f"{local}@example.org")
    assert isinstance(decision, Forward)
    (destination,) = decision.destinations
    assert destination.address.domain == "other.example"
    assert parse_mailbox(str(destination.address)) == destination.address


# recursion


def test_targets_of_ours_are_resolved_further_and_doubles_dropped() -> None:
    rules = made("all -> a@example.org, b@example.org, Me@m.com\na -> me@m.com, x@m.com\nb -> a@example.org, y@m.com")
    assert said(rules, "all") == "me@m.com, x@m.com, y@m.com"


def test_an_address_that_several_ways_lead_to_is_looked_up_once() -> None:
    decision = decided("all -> a@example.org, b@example.org\na -> b@example.org\nb -> me@m.com limit 1/day", "all")
    assert isinstance(decision, Forward)
    assert [place.line for place in decision.path] == [2, 3, 4]
    assert len(decision.limits) == 1


def test_the_same_mailbox_by_another_hop_is_another_destination() -> None:
    rules = made("all -> a@example.org, me@m.com\na -> me@m.com via [192.0.2.1]")
    assert said(rules, "all") == "me@m.com via [192.0.2.1], me@m.com"


def test_the_sender_stays_the_same_on_the_way() -> None:
    rules = made("a -> b@example.org\nb from x@y.com -> special@m.com\nb -> me@m.com")
    assert said(rules, "a", "x@y.com") == "special@m.com"
    assert said(rules, "a") == "me@m.com"


def test_via_ends_the_way_even_in_a_domain_of_ours() -> None:
    assert said("* -> *@example.org via [192.0.2.7]:25", "a") == "a@example.org via [192.0.2.7]:25"


def test_ten_rules_may_follow_one_another_and_no_more() -> None:
    def chain(count: int) -> str:
        return "\n".join([*(f"a{n} -> a{n + 1}@example.org" for n in range(1, count)), f"a{count} -> me@m.com"])

    assert said(chain(10), "a1") == "me@m.com"
    assert any("more than 10 rules" in problem for problem in problems(chain(11)))


def test_row_39_a_circle_that_nobody_could_foresee_is_554() -> None:
    rules = made(r"/a(.*)/ -> \1@example.org" "\n" r"/b(.*)/ -> ab\1@example.org")
    assert said(rules, "bx") == "reject 554 5.4.6 The forwarding rules for this address lead in a circle"
    deep = made(r"/(.)(.*)/ -> \2\1x@example.org")
    assert said(deep, "ab") == "reject 554 5.4.6 The forwarding rules for this address go more than 10 deep"


def test_ways_that_multiply_are_cut_off() -> None:
    targets = ", ".join(rf"\1{n}@example.org" for n in range(100))
    assert said(rf"/(.+)/ -> {targets}", "a").startswith("reject 554")
    wide = "\n".join(f"a{n} -> " + ", ".join(f"m{n}.{i}@m.com" for i in range(400)) for n in range(3))
    assert said(f"{wide}\nall -> a0@example.org, a1@example.org, a2@example.org", "all").startswith("reject 554 5.3.5")


MIXED = """
ok -> me@m.com
no -> reject "550 5.7.1 No"
gone -> me@m.com until 2020-01-01
later -> defer "450 4.2.1 Later"
drop -> discard
"""


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("ok later", "defer 450 4.2.1 Later"),
        ("later later2", "defer 450 4.2.1 Later"),
        ("later no", "defer 450 4.2.1 Later"),
        ("no ok", "me@m.com"),
        ("gone drop ok", "me@m.com"),
        ("drop no", "reject 550 5.7.1 No"),
        ("gone no", "reject 550 5.1.1 This address is no longer in use"),
        ("drop drop2", "discard"),
    ],
)
def test_ways_are_put_together_so_that_nothing_is_lost_unseen(members: str, expected: str) -> None:
    targets = ", ".join(f"{member}@example.org" for member in members.split())
    assert said(f'{MIXED}drop2 -> discard\nlater2 -> defer "451 4.2.1 Much later"\nall -> {targets}', "all") == expected


def test_a_fault_on_one_way_refuses_all() -> None:
    rules = made(MIXED + r"/f(.*)/ -> \1@m.com" "\nall -> ok@example.org, later@example.org, f@example.org")
    assert said(rules, "all").startswith("reject 550 5.1.1 This address cannot")


# invariants

_LOCALS = st.from_regex(r"[a-zA-Z0-9+._-]{1,12}", fullmatch=True) | st.text(min_size=1, max_size=12)
_RULES = made(
    "sales -> a@m.com\nsales+x -> b@m.com\nnews-* -> me+${local}@m.com\n/(\\w+)\\.(\\w+)/ -> \\2+\\1@m.com\n"
    '/([a-f]+)/ -> \\1x@example.org\nr* -> reject "550 5.7.1 x"\n/.{1,5}/ -> *@o.example\nabuse* from <> -> discard'
)
_CATCH_ALL = made("* -> *@other.example")


def _address(local: str) -> Address | None:
    try:
        return parse_mailbox(str(Address(local, "example.org")))
    except AddressError:
        return None


@given(_LOCALS)
def test_case_makes_no_difference(local: str) -> None:
    address = _address(local)
    if address is None or not address.is_ascii:
        return
    one = _RULES.resolve(address, None, TODAY)
    other = _RULES.resolve(Address(address.local.swapcase(), address.domain), None, TODAY)
    assert type(one) is type(other)
    if isinstance(one, Forward) and isinstance(other, Forward):
        assert [d.address.key for d in one.destinations] == [d.address.key for d in other.destinations]
        assert (one.path, one.limits) == (other.path, other.limits)
    else:
        assert one == other


@given(_LOCALS)
def test_a_catch_all_forwards_everything(local: str) -> None:
    address = _address(local)
    if address is None or address.key[0].partition("+")[0] in ("postmaster", "abuse"):
        return
    decision = _CATCH_ALL.resolve(address, None, TODAY)
    assert isinstance(decision, Forward)
    assert [d.address for d in decision.destinations] == [Address(address.local, "other.example")]


@given(st.text(max_size=20), st.sampled_from(["example.org", "", "m.com"]), st.none() | st.text(max_size=9))
def test_resolving_never_raises(local: str, domain: str, sender: str | None) -> None:
    who = None if sender is None else Address(sender, "s.com")
    assert _RULES.resolve(Address(local, domain), who, TODAY)
