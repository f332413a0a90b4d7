"""Whose fault a refusal is, and how often the operator hears of it."""

import pytest

from forwarder.delivery import judge as module
from forwarder.delivery.judge import ALERT_EVERY, Judge
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from tests.fakes import FakeClock, RecordingLog

BLOCKED = Reply(554, "5.7.1", "Client host [192.0.2.1] blocked using zen.spamhaus.org")
NO_PTR = Reply(550, "5.7.25", "no reverse name")
NO_USER = Reply(550, "5.1.1", "no such user")


def outcome(verdict: Verdict, reply: Reply, relay: str = "hop[192.0.2.9]:25", *, remote: bool = True) -> Outcome:
    return Outcome(verdict, reply, relay, remote)


@pytest.mark.parametrize(
    ("before", "after", "alerts"),
    [
        (outcome(Verdict.REFUSED, BLOCKED), Verdict.DEFERRED, 1),
        (outcome(Verdict.DEFERRED, BLOCKED), Verdict.DEFERRED, 1),
        (outcome(Verdict.REFUSED, BLOCKED, remote=False), Verdict.REFUSED, 0),
        (outcome(Verdict.REFUSED, NO_USER), Verdict.REFUSED, 0),
        (outcome(Verdict.DEFERRED, NO_USER), Verdict.DEFERRED, 0),
        (outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "your IP is listed")), Verdict.DELIVERED, 0),
    ],
)
def test_a_refusal_of_us_is_temporary(before: Outcome, after: Verdict, alerts: int) -> None:
    log = RecordingLog()
    judged = Judge(FakeClock()).judge(before, log)
    assert (judged.verdict, judged.reply, len(log.named("alert"))) == (after, before.reply, alerts)


def test_the_operator_hears_of_each_relay_and_reason_once_an_hour() -> None:
    clock, log = FakeClock(), RecordingLog()
    judge = Judge(clock)

    def alerts(reply: Reply, relay: str = "hop[192.0.2.9]:25") -> int:
        log.events.clear()
        assert judge.judge(outcome(Verdict.REFUSED, reply, relay), log).verdict is Verdict.DEFERRED
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
        judge.judge(outcome(Verdict.REFUSED, BLOCKED, f"hop{number}[192.0.2.9]:25"), log)
    assert [str(alert["relay"])[:4] for alert in log.named("alert")] == ["hop0", "hop1", "hop2", "hop3", "hop0"]
