"""Which row decides, whom a row holds for, and what becomes of replies that nobody knows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.delivery.classify import LOOKED_AT, classify, provider_of
from forwarder.delivery.replies import ROWS
from forwarder.model.reply import Class, Reply
from forwarder.model.ruling import PERMANENT, TEMPORARY, Fate

GMAIL = "gmail-smtp-in.l.google.com[192.0.2.9]:25"
PROTOCOL_CODES = {500, 501, 502, 503, 504, 523, 530, 534, 535, 538, 555}


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("aspmx.l.google.com", "google"),
        ("alt1.aspmx.l.Google.com.", "google"),
        ("aspmx2.googlemail.com", "google"),
        ("a-1.mx.smtp.goog", "google"),
        ("example-com.mail.protection.outlook.com", "microsoft"),
        ("hotmail-com.olc.protection.outlook.com", "microsoft"),
        ("example-com.p-v1.mx.microsoft", "microsoft"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "apple"),
        ("mailsec.protonmail.ch", "proton"),
        ("in1-smtp.messagingengine.com", "fastmail"),
        ("mx1.mail.example.net", "example.net"),
        ("mx.example.co.uk", "co.uk"),
        ("google.com.example.net", "example.net"),
        ("notgoogle.com", "notgoogle.com"),
        ("mail.google.com.", "google"),
        ("localhost", "localhost"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("", ""),
    ],
)
def test_a_provider_is_known_by_its_mail_hosts(host: str, provider: str) -> None:
    assert provider_of(host) == provider


@pytest.mark.parametrize(
    ("relay", "name"),
    [
        (GMAIL, "spam"),
        ("", "permanent"),
        ("mx.example.net[192.0.2.9]:25", "permanent"),
        ("192.0.2.9[192.0.2.9]:25", "permanent"),
        ("2001:db8::9[2001:db8::9]:25", "permanent"),
        ("google.com.example.net[192.0.2.9]:25", "permanent"),
    ],
)
def test_rows_of_a_provider_hold_for_its_hosts_only(relay: str, name: str) -> None:
    assert classify(Reply(550, "5.7.1", "This message is likely unsolicited email."), relay).name == name


@pytest.mark.parametrize("relay", [GMAIL, "", "mx.example.net[192.0.2.9]:25", "nonsense", "[", "[]:"])
def test_rows_for_everybody_hold_for_every_host(relay: str) -> None:
    assert classify(Reply(421, "4.7.28", "originating from your IP Netblock"), relay).name == "netblock"


def test_the_first_row_that_matches_decides() -> None:
    both = Reply(554, "5.7.1", "Client host [192.0.2.1] blocked using dbl.spamhaus.org")
    assert classify(both).fate is Fate.RETURN


def test_an_enhanced_code_of_another_class_is_read_from_the_text() -> None:
    reply = Reply(421, "", "5.7.32 Your email was blocked because the From: header isn't\n5.7.32 aligned with either")
    assert classify(reply, GMAIL).name == "alignment"


def test_words_are_found_across_lines_that_repeat_the_enhanced_code() -> None:
    reply = Reply(550, "", "5.7.1 This message is likely\n5.7.1 unsolicited email.")
    assert classify(reply, GMAIL).name == "spam"


def test_the_end_of_a_long_reply_is_not_looked_at() -> None:
    seen = "This message is likely unsolicited"
    assert classify(Reply(550, "5.7.1", seen.rjust(LOOKED_AT)), GMAIL).name == "spam"
    assert classify(Reply(550, "5.7.1", seen.rjust(LOOKED_AT + 1)), GMAIL) is PERMANENT


@pytest.mark.parametrize(
    ("reply", "ruling"),
    [
        (Reply(450, "", "no"), TEMPORARY),
        (Reply(421, "4.7.0", ""), TEMPORARY),
        (Reply(550, "", ""), PERMANENT),
        (Reply(554, "5.0.0", "no"), PERMANENT),
        (Reply(599, "5.7.999", "no"), PERMANENT),
        (Reply(666, "6.6.6", "no"), TEMPORARY),
        (Reply(0, "", "no"), TEMPORARY),
    ],
)
def test_the_first_digit_decides_what_nobody_knows(reply: Reply, ruling: object) -> None:
    assert classify(reply, GMAIL) is ruling


# Invariant: classify gives a ruling for whatever a host says, whoever it is.
@given(st.integers(), st.text(max_size=12), st.text(max_size=3000), st.text(max_size=60))
def test_classify_never_fails(code: int, enhanced: str, text: str, relay: str) -> None:
    assert classify(Reply(code, enhanced, text), relay).name
    assert classify(Reply(code, enhanced, text), f"{relay}.google.com[192.0.2.9]:25").name


# Invariant: without a word or an enhanced code that a row knows, only the first digit counts.
@given(
    st.integers(200, 599).filter(lambda code: code not in PROTOCOL_CODES),
    st.sampled_from(["", "9.0.0", "9.9.99"]),
    st.text(alphabet="xyzXYZ 019.,\n", max_size=300),
    st.sampled_from([GMAIL, "", "mx.example.net[192.0.2.9]:25", "mx01.mail.icloud.com[192.0.2.9]:25"]),
)
def test_a_reply_without_known_words_follows_its_first_digit(code: int, enhanced: str, text: str, relay: str) -> None:
    reply = Reply(code, enhanced, text)
    assert classify(reply, relay) is (PERMANENT if reply.kind is Class.PERMANENT else TEMPORARY)


FRAGMENTS = [
    " ",
    "\n",
    "a",
    "blocked ",
    "your ip ",
    "ip address [192.0.2.1] ",
    "contains ",
    "contains a link in the ",
    "recipient ",
    "user doesn't have a ",
    "account mailbox user address ",
    "5.7.1 \n",
    "[" * 40 + "1:",
    "from domain sender address ",
    "listed spam content of ",
]


@pytest.mark.parametrize("fragment", FRAGMENTS)
@pytest.mark.parametrize("relay", [GMAIL, "a.protection.outlook.com[192.0.2.9]:25", ""])
def test_a_hostile_reply_costs_no_more_than_what_is_looked_at(fragment: str, relay: str) -> None:
    long = (fragment * (65_536 // len(fragment) + 1))[:65_536]
    for code, enhanced in ((550, "5.7.1"), (550, ""), (554, "5.1.1"), (501, ""), (421, "4.7.1")):
        assert classify(Reply(code, enhanced, long), relay) == classify(Reply(code, enhanced, long[:LOOKED_AT]), relay)


def test_no_pattern_repeats_what_repeats_without_bound() -> None:
    for row in ROWS:
        for pattern in (row.code, row.enhanced, row.text):
            assert ")*" not in pattern
            assert ")+" not in pattern
