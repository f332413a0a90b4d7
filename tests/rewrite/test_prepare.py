"""Every destination once."""

from datetime import UTC, datetime

from forwarder.model.address import Address
from forwarder.model.destination import Destination, Hop
from forwarder.model.envelope import Peer, RcptOptions, Recipient
from forwarder.rewrite.headers import Hand, Trace
from forwarder.rewrite.prepare import Routed, deliveries

TRACE = Trace(
    "mx.ours.example",
    "ID",
    datetime(2026, 11, 22, tzinfo=UTC),
    Hand(Peer("192.0.2.1", 1), "h", "", extended=True, smtputf8=False, tls=None),
)
ME = Destination(Address("me", "inbox.example"))
ALSO_ME = Destination(Address("Me", "inbox.example"))
OTHER = Destination(Address("other", "inbox.example"))
ME_VIA = Destination(ME.address, Hop("192.0.2.7", 25))


def routed(local: str, *destinations: Destination) -> Routed:
    options = RcptOptions(frozenset({"NEVER"})) if local == "a" else RcptOptions()
    return Routed(Recipient(Address(local, "ours.example"), options), destinations)


def test_a_mailbox_named_by_two_aliases_gets_one_copy_that_names_the_first() -> None:
    made = deliveries([routed("a", ME, OTHER), routed("b", ALSO_ME)], TRACE)
    assert [delivery.destination for delivery in made] == [ME, OTHER]
    assert {str(delivery.recipient) for delivery in made} == {"a@ours.example"}
    assert all(delivery.options.notify == {"NEVER"} for delivery in made)


def test_another_next_hop_is_another_destination() -> None:
    assert len(deliveries([routed("a", ME, ME_VIA)], TRACE)) == 2


def test_a_copy_shows_only_its_own_alias() -> None:
    first, second = deliveries([routed("a", ME), routed("b", OTHER)], TRACE)
    assert b"a@ours.example" in first.head
    assert b"b@ours.example" not in first.head
    assert b"b@ours.example" in second.head


def test_each_copy_says_where_it_goes_itself_and_nothing_of_the_others() -> None:
    first, second = deliveries([routed("a", ME, OTHER)], TRACE)
    assert first.head.startswith(b"X-Forwarded-To: me@inbox.example\r\nX-Forwarded-For: a@ours.example me@inbox")
    assert b"other@" not in first.head
    assert second.head.startswith(b"X-Forwarded-To: other@inbox.example\r\n")
    assert b"me@" not in second.head


def test_results_and_what_is_left_out() -> None:
    results = b"Authentication-Results: mx.ours.example; none\r\n"
    (one,) = deliveries([routed("a", ME)], TRACE, results, frozenset({b"x-forwarded-for", b"x-forwarded-to"}))
    assert one.head.startswith(b"Delivered-To: a@ours.example\r\n" + results + b"Received: ")
