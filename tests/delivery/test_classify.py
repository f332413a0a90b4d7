"""Replies as the big receivers publish them, and whether they speak of us."""

import re

import pytest

from forwarder.delivery.classify import our_fault
from forwarder.model.reply import Reply
from tests.conformance import google_errors

OURS = [
    (550, "5.7.25", "The sending IP address doesn't have a PTR record", "PTR"),
    (550, "5.7.1", "This message does not meet IPv6 sending guidelines regarding PTR records", "PTR"),
    (550, "5.7.24", "The SPF record of the sending domain has one or more suspicious entries.", "SPF"),
    (550, "5.7.27", "This message was blocked because it didn't pass SPF authentication.", "SPF"),
    (550, "5.7.26", "The MAIL FROM domain [x] has an SPF record with a hard fail policy (-all) but", "SPF"),
    (550, "5.7.26", "This email has been blocked because the sender is unauthenticated.", "does not pass"),
    (550, "5.7.28", "There is an unusual rate of unsolicited email originating from your IP address.", "block list"),
    (550, "5.7.1", "likely suspicious due to the very low reputation of the sending IP address.", "block list"),
    (
        550,
        "5.7.1",
        "messages from [192.0.2.1] weren't sent. ... part of their network is on our block list (S3140)",
        "block",
    ),
    (550, "5.7.606", "Access denied, banned sending IP [192.0.2.1]", "block list"),
    (553, "5.7.2", "[TSS09] All messages from 192.0.2.1 will be permanently deferred", "block list"),
    (
        554,
        "5.7.1",
        "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://x/url",
        "block",
    ),
    (554, "", "Your IP 192.0.2.1 is listed at bl.example", "block list"),
]
OF_THE_MESSAGE = [
    (550, "5.1.1", "The email account that you tried to reach does not exist."),
    (550, "5.7.26", "Unauthenticated email from x.example is not accepted due to domain's DMARC policy."),
    (550, "5.7.1", "This message is likely unsolicited email."),
    (550, "5.7.1", "likely suspicious due to the very low reputation of the sending domain."),
    (552, "5.7.0", "This message was blocked because its content presents a potential security issue."),
    (552, "5.2.2", "The recipient's inbox is out of storage space"),
    (554, "5.7.1", "Blocked: a URL in this message is listed by Spamhaus DBL"),
    (554, "5.4.6", "Message exceeded 50 hops"),
    (421, "4.7.28", "an unusual rate of unsolicited email originating from your IP address"),
    (250, "2.0.0", "your IP is listed, but never mind"),
]


@pytest.mark.parametrize(("code", "enhanced", "text", "reason"), OURS)
def test_refusals_of_us(code: int, enhanced: str, text: str, reason: str) -> None:
    assert reason in our_fault(Reply(code, enhanced, text))


@pytest.mark.parametrize(("code", "enhanced", "text"), OF_THE_MESSAGE)
def test_refusals_of_the_message(code: int, enhanced: str, text: str) -> None:
    assert our_fault(Reply(code, enhanced, text)) == ""


def test_every_published_error_of_google_is_judged_as_it_reads() -> None:
    about_us = re.compile(r"5\.7\.2[4578]|5\.7\.29|5\.7\.30")
    for code, enhanced, text in google_errors():
        if code.startswith("5") and about_us.fullmatch(enhanced):
            assert our_fault(Reply(int(code), enhanced, text)), text
        if enhanced.startswith(("5.1.", "5.2.", "5.3.", "5.4.", "5.5.", "5.6.")):
            assert not our_fault(Reply(int(code), enhanced, text)), text


def test_a_hostile_reply_costs_little() -> None:
    assert our_fault(Reply(554, "5.7.1", "your ip " * 100_000)) == ""
