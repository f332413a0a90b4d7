"""Notices to the postmaster."""

from dataclasses import replace
from email import message_from_bytes
from pathlib import Path

from forwarder.bounce.notice import MAX_SIZE, Item, Notice, compose_notice
from forwarder.bounce.suppress import silence
from forwarder.model.address import Address
from forwarder.model.headers import split_header
from tests.bounce.samples import ARRIVED, EXPIRES, INFO, NOW, SENDER

GOLDEN = Path(__file__).parent / "golden" / "notice.eml"
ME = Address("me", "inbox.example")
FULL = Item("1a2b01", ARRIVED, SENDER, INFO, ME, "552 5.2.2 Mailbox full", "anna@there.example", "<m1@there.example>")
UNKNOWN = Item("1a2b02", ARRIVED, None, INFO, ME, "550 5.1.1 Unknown", "bob@else.example", until=EXPIRES)
NOTICE = Notice("mx.ours.example", "9c01", ME, NOW, (FULL, UNKNOWN, replace(FULL, letter="1a2b03", sender=ME)))


def text(notice: Notice) -> str:
    octets = compose_notice(notice)
    assert len(octets) <= MAX_SIZE
    parsed = message_from_bytes(octets)
    assert not parsed.defects
    decoded = parsed.get_payload(decode=True)
    assert isinstance(decoded, bytes)
    return decoded.decode(parsed.get_content_charset() or "")


def test_exact() -> None:
    assert compose_notice(NOTICE) == GOLDEN.read_bytes().replace(b"\n", b"\r\n")


def test_a_notice_is_never_answered() -> None:
    assert silence(INFO, split_header(compose_notice(NOTICE))) == "it was sent by a program"


def test_a_reason_is_told_once_with_all_that_it_holds_up() -> None:
    body = text(NOTICE)
    assert body.count("552 5.2.2 Mailbox full") == 1
    assert body.index("1a2b01") < body.index("1a2b03") < body.index("550 5.1.1") < body.index("1a2b02")


def test_it_says_what_to_do() -> None:
    for command in ("show ID", "release ID", "resend ID --to ADDRESS", "delete ID"):
        assert f"forwarder queue {command}" in text(NOTICE)


def test_fifty_are_listed_and_the_rest_is_counted() -> None:
    items = tuple(replace(FULL, letter=f"id{number:04}") for number in range(1000))
    body = text(replace(NOTICE, items=items[:60], more=940))
    assert "id0049" in body
    assert "id0050" not in body
    assert "and 950 more: `forwarder queue list --state held`" in body
    assert message_from_bytes(compose_notice(replace(NOTICE, items=items)))["Subject"].startswith(
        "1000 deliveries are held"
    )


def test_nothing_more_is_said_of_nothing_more() -> None:
    assert "more:" not in text(NOTICE)


def test_one_is_one() -> None:
    assert message_from_bytes(compose_notice(replace(NOTICE, items=(FULL,))))["Subject"].startswith(
        "1 delivery is held"
    )


def test_without_items_it_counts() -> None:
    assert "and 7 more" in text(replace(NOTICE, items=(), more=7))


def test_beyond_ascii_it_is_readable_and_seven_bit() -> None:
    notice = replace(NOTICE, items=(replace(FULL, reason="552 Postfach voll für büro"),))
    assert "552 Postfach voll für büro" in text(notice)
    assert compose_notice(notice).isascii()


def test_as_many_are_listed_as_fit() -> None:
    wide = Address("ü" * 100, "there.example")
    long = replace(FULL, sender=wide, alias=wide, destination=wide, author="ß" * 400, reason="é" * 400)
    items = tuple(replace(long, letter=f"id{number}", reason=f"{number} {long.reason}") for number in range(50))
    body = text(replace(NOTICE, items=items))
    listed = sum(line.strip().startswith("id") for line in body.splitlines())
    assert 3 < listed < 50
    assert f"and {50 - listed} more" in body
