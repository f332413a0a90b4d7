"""DSNs: exact ones, and what each field comes from."""

import quopri
from email import message_from_bytes
from pathlib import Path

import pytest

from forwarder.bounce.compose import MAX_HEADER, MAX_MESSAGE, MAX_SIZE, compose
from forwarder.bounce.report import Action, Report, Told
from forwarder.bounce.status import status
from forwarder.bounce.suppress import silence
from forwarder.model.address import Address
from forwarder.model.envelope import RcptOptions
from forwarder.model.headers import split_header
from forwarder.model.message import Content, MemoryContent, SpentContent
from tests.bounce import grammar
from tests.bounce.samples import DELAYED, FULL, HEADER, ORIGINAL, RELAYED, SENDER, report, told

GOLDEN = Path(__file__).parent / "golden"


def composed(report: Report, original: Content = ORIGINAL) -> grammar.Dsn:
    return grammar.read(compose(report, original))


def recipient(changed: Told, action: Action = Action.FAILED) -> dict[str, str]:
    (fields,) = composed(report(recipients=(changed,), action=action)).recipients
    return fields


def returned(original: bytes, **changed: object) -> tuple[dict[str, str], bytes]:
    third = composed(report(**changed), MemoryContent(original)).third
    assert third
    return third


@pytest.mark.parametrize(("name", "sample"), [("failed", FULL), ("delayed", DELAYED), ("relayed", RELAYED)])
def test_exact(name: str, sample: Report) -> None:
    assert compose(sample, ORIGINAL) == (GOLDEN / f"{name}.eml").read_bytes().replace(b"\n", b"\r\n")


def test_another_parser_finds_the_same_fields() -> None:
    octets = compose(FULL, ORIGINAL)
    text, groups, third = grammar.by_stdlib(octets)
    ours = grammar.read(octets)
    read = [{name: "".join(value.splitlines()) for name, value in group.items()} for group in groups]
    assert read == [ours.message, *ours.recipients]
    assert "büro@ours.example" in text
    assert third is not None
    assert third.get_content_type() == "message/rfc822"
    (inner,) = grammar.inner(third)
    assert inner["Message-ID"] == "<m1@there.example>"


@pytest.mark.parametrize("sample", [FULL, DELAYED, RELAYED])
def test_a_dsn_is_never_answered(sample: Report) -> None:
    header = split_header(compose(sample, ORIGINAL))
    assert silence(SENDER, header)


@pytest.mark.parametrize("sample", [FULL, DELAYED, RELAYED])
def test_it_says_whom_to_ask_and_marks_itself_automatic(sample: Report) -> None:
    header = composed(sample).header
    assert header["From"] == "Mail Delivery System <postmaster@mx.ours.example>"
    assert header["To"] == "anna@there.example"
    assert header["Auto-Submitted"] == "auto-replied"
    assert header["Message-ID"] == "<4f3a01@mx.ours.example>"
    assert header["In-Reply-To"] == header["References"] == "<m1@there.example>"


@pytest.mark.parametrize(
    "field",
    [
        b"Message-ID: <a@b> <c@d>\r\n",
        b"Message-ID: nonsense\r\n",
        b"Message-ID: <a b@c>\r\n",
        b"Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n",
        b"Message-ID: <" + b"a" * 250 + b"@b>\r\n",
        b"Message-ID: <\xc3\xa9@b>\r\n",
        b"X: y\r\n",
    ],
)
def test_a_message_id_that_is_none_is_not_referred_to(field: bytes) -> None:
    header = composed(report(), MemoryContent(field + b"\r\n")).header
    assert not {"In-Reply-To", "References"} & set(header)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (Address("a b", "there.example"), '"a b"@there.example'),
        (Address("postmaster", ""), "postmaster@mx.ours.example"),
        (Address("jürgen", "there.example"), "=?utf-8?b?asO8cmdlbkB0aGVyZS5leGFtcGxl?= :;"),
    ],
)
def test_to(address: Address, shown: str) -> None:
    assert composed(report(to=address)).header["To"] == shown


@pytest.mark.parametrize(
    ("action", "reply", "given", "expected"),
    [
        (Action.FAILED, "550 5.1.1 No", "", "5.1.1"),
        (Action.FAILED, "550 No", "", "5.0.0"),
        (Action.FAILED, "451 4.7.1 Later", "", "4.7.1"),  # RFC 3463 2: given up, but may succeed some day
        (Action.FAILED, "451 Later", "", "4.4.7"),  # RFC 3463 3.5
        (Action.FAILED, "451 4.7.1 Later", "4.4.7", "4.4.7"),
        (Action.FAILED, "250 2.1.5 Fine", "", "5.0.0"),
        (Action.FAILED, "", "", "5.0.0"),
        (Action.FAILED, "550 5.01.1 No", "", "5.0.0"),
        (Action.FAILED, "550 5.1.1\r\nX: y", "5.1.1\r\nX: y", "5.0.0"),
        (Action.FAILED, "550 5.1.1234 No", "", "5.0.0"),
        (Action.DELAYED, "451 4.7.1 Later", "", "4.7.1"),
        (Action.DELAYED, "550 5.7.25 No PTR", "", "4.7.25"),  # a fault of ours, still tried
        (Action.DELAYED, "451 Later", "", "4.0.0"),
        (Action.RELAYED, "250 2.1.5 Fine", "", "2.1.5"),
        (Action.RELAYED, "250 Fine", "", "2.0.0"),
        (Action.RELAYED, "550 5.1.1 No", "", "2.0.0"),
    ],
)
def test_status_agrees_with_the_action(action: Action, reply: str, given: str, expected: str) -> None:
    assert status(action, told(reply=reply, status=given)) == expected
    assert recipient(told(reply=reply, status=given), action)["Status"] == expected


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        (Address("a+b", "ours.example"), "rfc822; a+b@ours.example"),
        (Address("a b", "ours.example"), 'rfc822; "a b"@ours.example'),
        (Address("é+b", "ours.example"), "utf-8; \\x{E9}\\x{2B}b@ours.example"),
        (Address('é\\x{41}"', "ours.example"), 'utf-8; "\\x{E9}\\x{5C}\\x{5C}x{41}\\x{5C}""@ours.example'),
        (Address("Postmaster", ""), "rfc822; Postmaster@mx.ours.example"),
    ],
)
def test_final_recipient(alias: Address, expected: str) -> None:
    assert recipient(told(alias=alias))["Final-Recipient"] == expected


@pytest.mark.parametrize(
    ("orcpt", "expected"),
    [
        ("rfc822;Info+2Bsales@ours.example", "rfc822; Info+sales@ours.example"),
        ("x400;/C=de/".replace("=", "+3D"), "x400; /C=de/"),
        ("utf-8;\\x{E9}\\x{2B}@ours.example", "utf-8; \\x{E9}\\x{2B}@ours.example"),
        ("UTF-8;é@ours.example", "UTF-8; \\x{E9}@ours.example"),
        ("utf-8;a+41@ours.example", "utf-8; a\\x{2B}41@ours.example"),
        ("rfc822;a+0D+0AX:b", "rfc822; a??X:b"),  # the session refuses these and the next ones
        ("rfc822;a\r\nX:b", None),
        ("rfc822;é", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_original_recipient_is_orcpt_decoded(orcpt: str, expected: str | None) -> None:
    assert recipient(told(options=RcptOptions(orcpt=orcpt))).get("Original-Recipient") == expected


@pytest.mark.parametrize("orcpt", ["rfc822;" + "a" * 2000, "utf-8;" + "é" * 240, "utf-8;" + "+41" * 160])
def test_an_address_that_does_not_fit_a_line_is_cut(orcpt: str) -> None:
    changed = told(alias=Address("é" + "+" * 230, "ours.example"), options=RcptOptions(orcpt=orcpt))
    fields = recipient(changed)  # the reader refuses long lines and broken escapes
    assert 850 < len(fields["Final-Recipient"]) < 950
    assert 850 < len(fields["Original-Recipient"]) < 950


@pytest.mark.parametrize(
    ("envid", "expected"),
    [("QQ+2B3", "QQ+3"), ("a+20b", "a b"), ("", None), ("a\r\nX:b", None), ("a+0Ab", "a?b"), ("a" * 1100, "a" * 900)],
)
def test_envelope_id_is_decoded(envid: str, expected: str | None) -> None:
    assert composed(report(envid=envid)).message.get("Original-Envelope-Id") == expected


@pytest.mark.parametrize(("about", "expected"), [("01M83FRA2M1XKX79", "01M83FRA2M1XKX79"), ("", None)])
def test_the_id_that_its_sender_was_told(about: str, expected: str | None) -> None:
    assert composed(report(about=about)).message.get("X-Forwarder-ID") == expected


@pytest.mark.parametrize(
    ("relay", "expected"),
    [
        ("mx.inbox.example[192.0.2.25]:25", "dns; mx.inbox.example"),
        ("192.0.2.25[192.0.2.25]:25", "dns; [192.0.2.25]"),
        ("2001:db8::25[2001:db8::25]:25", "dns; [IPv6:2001:db8::25]"),
        ("", None),
        ("a\r\nX: b[192.0.2.25]:25", None),
        ("mx.inbox.example[192.0.2.25]:25 X", None),
        ("a" * 1000 + "[192.0.2.25]:25", "dns; [192.0.2.25]"),
    ],
)
def test_remote_mta(relay: str, expected: str | None) -> None:
    assert recipient(told(relay=relay)).get("Remote-MTA") == expected


def test_only_a_reply_of_smtp_is_called_one() -> None:
    assert recipient(told(reply="550 No"))["Diagnostic-Code"] == "smtp; 550 No"
    assert recipient(told(reply="451 4.4.1 Nobody there", relay=""))["Diagnostic-Code"].startswith("X-Forwarder; 451")
    assert "Diagnostic-Code" not in recipient(told(reply=" "))
    assert "The reason given" not in composed(report(recipients=(told(reply=" "),))).text


def test_a_reply_beyond_ascii_is_read_by_people_only() -> None:
    dsn = composed(report(recipients=(told(reply="550 5.1.1 Empfänger unbekannt"),)))
    assert dsn.recipients[0]["Diagnostic-Code"] == "smtp; 550 5.1.1 Empf?nger unbekannt"
    assert "550 5.1.1 Empfänger unbekannt" in dsn.text


def test_a_long_reply_is_cut_and_folded() -> None:
    octets = compose(report(recipients=(told(reply="550 " + "word " * 1000),)), ORIGINAL)
    assert max(map(len, octets.split(b"\r\n"))) <= 90  # the boundary's own line is the longest
    assert "Last-Attempt-Date" in grammar.read(octets).recipients[0]
    assert grammar.read(octets).recipients[0]["Diagnostic-Code"].endswith("...")


def test_an_alias_with_several_destinations_is_one_recipient_with_every_reason() -> None:
    again = told(alias=Address("INFO", "ours.example"), reply="552 5.2.2 Mailbox full")
    dsn = composed(report(recipients=(told(), again, told())))
    assert [fields["Status"] for fields in dsn.recipients] == ["5.1.1"]
    assert dsn.text.count("info@ours.example") == 1
    assert dsn.text.count("5.2.2 Mailbox full") == 1
    assert "to this address:" in " ".join(dsn.text.split())


def test_what_is_attached_is_said() -> None:
    assert "Your message is attached." in composed(report(ret="FULL")).text
    assert "The header of your message is attached." in composed(report()).text
    assert "attached" not in composed(report(), SpentContent(ORIGINAL)).text


@pytest.mark.parametrize(
    ("changed", "type"),
    [
        ({"ret": "FULL"}, "message/rfc822"),
        ({"ret": "HDRS"}, "text/rfc822-headers"),
        ({}, "text/rfc822-headers"),
        ({"ret": "FULL", "action": Action.DELAYED}, "text/rfc822-headers"),  # RFC 3461 6.2
        ({"ret": "FULL", "action": Action.RELAYED}, "text/rfc822-headers"),
    ],
)
def test_the_whole_is_returned_only_if_asked_for_and_failed(changed: dict[str, object], type: str) -> None:
    original = ORIGINAL.head(ORIGINAL.size)
    fields, body = returned(original, **changed)
    assert fields["Content-Type"] == type
    assert body == (original if type == "message/rfc822" else HEADER)


@pytest.mark.parametrize(
    "body",
    [
        "é".encode(),
        b"a" * 999 + b"\r\n",
        b"a\nb\r\n",
        b"a\rb\r\n",
        b"a\0b\r\n",
        b"0123456789012345678901234567890123456789\r\n" * 7000,
    ],
)
def test_what_is_not_seven_bit_or_too_big_is_not_returned_whole(body: bytes) -> None:
    fields, header = returned(HEADER + b"\r\n" + body, ret="FULL")
    assert fields["Content-Type"] == "text/rfc822-headers"
    assert fields["Content-Transfer-Encoding"] == "7bit"
    assert header == HEADER


def test_a_message_of_the_largest_size_is_returned_whole_within_the_limit() -> None:
    line = b"0123456789012345678901234567890123456789012345678901234567\r\n"
    lines = (MAX_MESSAGE - len(HEADER) - 2) // len(line)
    original = MemoryContent(HEADER + b"\r\n" + line * lines)
    octets = compose(report(ret="FULL"), original)
    assert grammar.read(octets).third == (
        {
            "Content-Type": "message/rfc822",
            "Content-Transfer-Encoding": "7bit",
            "Content-Description": "Your message",
        },
        original.head(original.size),
    )
    assert len(octets) <= MAX_SIZE


@pytest.mark.parametrize(
    "field",
    [
        "Subject: Grüße =\r\n".encode(),
        b"Subject: \xff\xfe \r\n",
        b"Subject: " + b"a" * 2000 + b"\r\n",
        b"Subject: a\rb\0c\r\n",
        b"Subject: a\nFrom: b\r\n",
    ],
)
def test_a_broken_header_is_returned_octet_for_octet(field: bytes) -> None:
    fields, body = returned(HEADER + field + b"\r\nText\r\n")
    assert fields["Content-Transfer-Encoding"] == "quoted-printable"
    assert max(map(len, body.split(b"\r\n"))) <= 76
    assert quopri.decodestring(body) == HEADER + field


def test_a_long_header_is_cut_between_fields() -> None:
    field = b"X-Long: a\r\n b\r\n"
    fields, body = returned(HEADER + field * 6000 + b"\r\nText\r\n")
    assert fields["Content-Type"] == "text/rfc822-headers"
    assert MAX_HEADER - 2 * len(field) < len(body) <= MAX_HEADER
    assert (len(body) - len(HEADER)) % len(field) == 0


def test_a_message_without_a_body_keeps_its_last_field() -> None:
    assert returned(HEADER)[1] == HEADER


def test_many_recipients_take_the_room_of_the_original() -> None:
    many = tuple(told(alias=Address(f"a{number}", "ours.example"), reply="550 " + "x" * 900) for number in range(80))
    dsn = composed(report(recipients=many, ret="FULL"), MemoryContent(HEADER + b"\r\n" + b"0123456\r\n" * 20_000))
    assert dsn.third is not None
    assert dsn.third[0]["Content-Type"] == "text/rfc822-headers"
    assert len(dsn.recipients) == 80


def test_a_part_of_the_original_is_none_of_ours() -> None:
    inner = compose(report(ret="FULL"), ORIGINAL)
    dsn = composed(report(ret="FULL"), MemoryContent(inner))
    assert dsn.third is not None
    assert dsn.third[1] == inner


def test_the_destination_is_not_told() -> None:
    octets = compose(report(recipients=(told(reply="550 5.1.1 No such user", relay=""),)), ORIGINAL)
    assert b"inbox.example" not in octets
    assert message_from_bytes(octets)["Delivered-To"] is None
