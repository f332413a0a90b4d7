"""What a refusal makes of an outcome, and how often the operator hears of it."""

from dataclasses import replace

import pytest

from forwarder.delivery import judge as module
from forwarder.delivery.judge import ALERT_EVERY, Judge
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import PERMANENT, TEMPORARY, Fate
from tests.fakes import FakeClock, RecordingLog

HOP = "hop[192.0.2.9]:25"
GMAIL = "gmail-smtp-in.l.google.com[192.0.2.9]:25"
BLOCKED = Reply(554, "5.7.1", "Client host [192.0.2.1] blocked using zen.spamhaus.org")
NO_PTR = Reply(550, "5.7.25", "no reverse name")
NO_USER = Reply(550, "5.1.1", "no such user")
UNKNOWN = Reply(550, "5.7.1", "no")
NO_ACCOUNT = Reply(550, "5.1.1", "The email account that you tried to reach does not exist.")
TOO_QUICKLY = Reply(550, "5.2.1", "receiving email at a rate that prevents additional messages")
BAD_CONTENT = Reply(421, "4.7.0", "suspicious due to the nature of the content")
BAD_DOMAIN = Reply(421, "4.7.0", "very low reputation of the sending domain")
DEFERRED, REFUSED = Verdict.DEFERRED, Verdict.REFUSED


def outcome(verdict: Verdict, reply: Reply, relay: str = HOP, *, remote: bool = True) -> Outcome:
    return Outcome(verdict, reply, relay, remote)


@pytest.mark.parametrize(
    ("before", "after", "fate", "alerts"),
    [
        (outcome(REFUSED, BLOCKED), DEFERRED, Fate.OURS, 1),
        (outcome(DEFERRED, BLOCKED), DEFERRED, Fate.OURS, 1),
        (outcome(REFUSED, TOO_QUICKLY, GMAIL), DEFERRED, Fate.RETRY, 0),
        (outcome(DEFERRED, BAD_CONTENT, GMAIL), DEFERRED, Fate.NEVER_QUEUE, 0),
        (outcome(DEFERRED, BAD_DOMAIN, GMAIL), REFUSED, Fate.RETURN, 0),
        (outcome(REFUSED, replace(BAD_DOMAIN, code=550, enhanced="5.7.1"), GMAIL), REFUSED, Fate.RETURN, 0),
        (outcome(REFUSED, UNKNOWN), REFUSED, Fate.RETURN, 0),
        (outcome(REFUSED, NO_USER), REFUSED, Fate.RETURN, 1),
        (outcome(REFUSED, NO_ACCOUNT, GMAIL), REFUSED, Fate.HOLD, 1),
        # Said before MAIL: another host may be asked.
        (outcome(DEFERRED, UNKNOWN), DEFERRED, Fate.RETURN, 0),
        (outcome(DEFERRED, NO_USER), DEFERRED, Fate.RETURN, 1),
    ],
)
def test_a_refusal_counts_as_what_it_means(before: Outcome, after: Verdict, fate: Fate, alerts: int) -> None:
    log = RecordingLog()
    judged = Judge(FakeClock()).judge(before, log)
    assert judged.ruling
    assert (judged.verdict, judged.ruling.fate, len(log.named("alert"))) == (after, fate, alerts)
    assert replace(judged, verdict=before.verdict, ruling=None, wait=0.0) == before


@pytest.mark.parametrize(
    "before",
    [
        outcome(REFUSED, BLOCKED, remote=False),
        outcome(DEFERRED, BAD_DOMAIN, GMAIL, remote=False),
        outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "your IP is listed")),
    ],
)
def test_what_no_hop_refused_stays_as_it_is(before: Outcome) -> None:
    log = RecordingLog()
    assert Judge(FakeClock()).judge(before, log) is before
    assert not log.events


@pytest.mark.parametrize(
    ("reply", "wait"),
    [
        (Reply(421, "4.7.28", "messages that have the same Message-ID:"), 3600.0),  # message
        (TOO_QUICKLY, 3600.0),  # mailbox
        (Reply(421, "4.7.28", "from your IP Netblock"), 0.0),  # destination
        (Reply(421, "4.7.28", "from your DKIM domain"), 0.0),  # our domain
        (Reply(421, "4.7.28", "one of your URL domains"), 0.0),  # sender
        (Reply(550, "5.7.28", "from your IP address"), 0.0),  # our address
        (Reply(451, "4.3.0", "try again later"), 0.0),
    ],
)
def test_only_pauses_of_one_message_or_mailbox_are_its_own(reply: Reply, wait: float) -> None:
    assert Judge(FakeClock()).judge(outcome(DEFERRED, reply, GMAIL), RecordingLog()).wait == wait


def test_a_longer_wait_that_is_known_already_stays() -> None:
    before = replace(outcome(DEFERRED, TOO_QUICKLY, GMAIL), wait=5000.0)
    assert Judge(FakeClock()).judge(before, RecordingLog()).wait == 5000.0


def test_what_nobody_knows_is_ruled_by_its_first_digit() -> None:
    judge = Judge(FakeClock())
    assert judge.judge(outcome(REFUSED, UNKNOWN), RecordingLog()).ruling is PERMANENT
    assert judge.judge(outcome(DEFERRED, Reply(450, "", "no")), RecordingLog()).ruling is TEMPORARY


def test_an_alert_says_who_refused_and_why() -> None:
    log = RecordingLog()
    Judge(FakeClock()).judge(outcome(REFUSED, BLOCKED), log)
    assert log.named("alert") == [
        {
            "component": "delivery",
            "relay": HOP,
            "ruling": "blocked",
            "text": f"refused because our address is on a block list: {BLOCKED}",
        }
    ]


def test_the_operator_hears_of_each_relay_and_ruling_once_an_hour() -> None:
    clock, log = FakeClock(), RecordingLog()
    judge = Judge(clock)

    def alerts(reply: Reply, relay: str = HOP) -> int:
        log.events.clear()
        assert judge.judge(outcome(REFUSED, reply, relay), log).verdict is DEFERRED
        return len(log.named("alert"))

    assert [alerts(BLOCKED), alerts(BLOCKED), alerts(NO_PTR), alerts(BLOCKED, "other[192.0.2.8]:25")] == [1, 0, 1, 1]
    clock.advance(ALERT_EVERY - 1)
    assert alerts(BLOCKED) == 0
    clock.advance(1)
    assert [alerts(BLOCKED), alerts(BLOCKED)] == [1, 0]


def test_what_was_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KNOWN", 3)
    judge, log = Judge(FakeClock()), RecordingLog()
    for number in [0, 1, 2, 3, 3, 0]:
        judge.judge(outcome(REFUSED, BLOCKED, f"hop{number}[192.0.2.9]:25"), log)
    assert [str(alert["relay"])[:4] for alert in log.named("alert")] == ["hop0", "hop1", "hop2", "hop3", "hop0"]
