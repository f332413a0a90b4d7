"""Who may send now, what is learnt, what survives. The control law under load is in `test_pacing_simulation`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.delivery.pacing import Pacing
from forwarder.delivery.providers import KNOWN, PacingSettings
from forwarder.delivery.waiting import Waiter
from forwarder.delivery.window import Rate
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.ports import Load, Turn

FINE = Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "OK"), remote=True)
UNKNOWN = Outcome(Verdict.REFUSED, Reply(550, "5.1.1", "no such user"), remote=True)
DAY = 86_400


def load(host: str = "mx.example", **changed: object) -> Load:
    known = {"source": "", "domain": "fwd.example", "sender": "s.example", "mailboxes": ("a@b",), "trusted": False}
    return Load(host, **{**known, **changed})  # type: ignore[arg-type]


def refused(scope: Scope, pause: float = 600, fate: Fate = Fate.RETRY, **ways: bool) -> Outcome:
    ruling = Ruling("throttled", scope, fate, "too fast", pause, 8 * pause, **ways)
    return Outcome(Verdict.DEFERRED, Reply(421, "4.7.28", "unusual\nrate \x7fé"), remote=True, ruling=ruling)


def provider_of(host: str) -> str:
    return host.removeprefix("mx1.").removeprefix("mx2.")


def pacing(per_destination: int = 5, keys: int = 10_000) -> Pacing:
    return Pacing(PacingSettings(per_destination, keys=keys), provider_of)


def ask(core: Pacing, what: Load, now: float) -> Turn:
    """Ask without waiting."""
    got = core.ask(what, now, now)
    assert isinstance(got, Turn)
    return got


def begin(core: Pacing, what: Load, now: float) -> Turn:
    turn = ask(core, what, now)
    assert turn.number
    return turn


def wait(core: Pacing, what: Load, until: float, now: float) -> Waiter:
    got = core.ask(what, until, now)
    assert isinstance(got, Waiter)
    return got


def send(core: Pacing, what: Load, now: float, *outcomes: Outcome) -> None:
    core.done(begin(core, what, now), outcomes or (FINE,), now)


def room(core: Pacing, what: Load, now: float) -> int:
    """How many turns there are at once; they are given back."""
    turns = []
    while (turn := ask(core, what, now)).number:
        turns.append(turn)
    core.abandon([turn.number for turn in turns], now)
    return len(turns)


def test_without_trouble_the_limit_is_that_of_a_destination() -> None:
    for limit in (1, 5, 12):
        core = pacing(limit)
        assert room(core, load(), 0) == limit
        for tick in range(300):
            send(core, load(), tick)
        assert room(core, load(), 300) == limit


def test_the_hosts_of_one_provider_share_and_our_addresses_do_not() -> None:
    core = pacing(1)
    turn = begin(core, load("mx1.example"), 0)
    assert not ask(core, load("mx2.example"), 0).number
    assert ask(core, load("mx2.example", source="192.0.2.9"), 0).number
    assert ask(core, load("mx.other"), 0).number
    core.done(turn, [FINE], 0)
    core.done(turn, [FINE], 0)  # once is enough
    assert room(core, load("mx2.example"), 0) == 1


def test_a_known_provider_begins_with_five_and_grows() -> None:
    core = pacing()
    assert room(core, load("google"), 0) == 5
    for now in range(100):
        turns = [ask(core, load("google", mailboxes=(f"{now}.{n}@b",)), now) for n in range(20)]
        for turn in turns:
            core.done(turn, [UNKNOWN], now)  # it talks: that is no throttle
    assert 10 < room(core, load("google", mailboxes=("x@b",)), 100) <= 20
    assert room(pacing(2), load("google"), 0) == 2


@pytest.mark.parametrize(("name", "messages"), [("google", 50), ("yahoo", 20), ("apple", 5), ("mx.example", 0)])
def test_messages_for_one_connection(name: str, messages: int) -> None:
    assert begin(pacing(), load(name), 0).messages == messages


def test_the_table_of_providers_goes_by_name() -> None:
    assert all(provider.name == name and provider.title for name, provider in KNOWN.items())


@pytest.mark.parametrize(
    ("scope", "same", "other"),
    [
        (Scope.DESTINATION, load(source="192.0.2.1"), load("mx.other")),
        (Scope.ADDRESS, load(domain="x", sender="y", mailboxes=("z@z",)), load(source="192.0.2.1")),
        (Scope.DOMAIN, load(source="192.0.2.1", sender="y"), load(domain="other.example")),
        (Scope.SENDER, load(source="192.0.2.1", domain="y"), load(sender="other.example")),
        (Scope.MAILBOX, load(source="192.0.2.1", domain="y"), load(mailboxes=("c@d",))),
    ],
)
def test_a_pause_is_for_its_scope_and_time(scope: Scope, same: Load, other: Load) -> None:
    core = pacing()
    send(core, load(), 0, refused(scope))
    held = ask(core, same, 1).held[0]
    assert held.seconds == 599
    assert ask(core, other, 1).number
    assert not ask(core, same, 599.9).number
    assert ask(core, same, 600).number


def test_senders_that_are_not_known_are_not_one() -> None:
    core = pacing()
    send(core, load(sender=""), 0, refused(Scope.SENDER))
    assert ask(core, load(sender="", mailboxes=("c@d",)), 1).number


def test_the_reply_of_a_pause_says_who_and_when_and_quotes() -> None:
    core = pacing()
    send(core, load("google"), 0, refused(Scope.ADDRESS))
    assert ask(core, load("google"), 1).held[0].reply == Reply(
        451,
        "4.4.5",
        "Gmail has asked us to slow down: the next try is in 10 minutes; it said: 421 4.7.28 unusual rate ??",
    )
    send(core, load(), 0, refused(Scope.DESTINATION, 20_000, Fate.OURS))
    assert (
        ask(core, load(), 1)
        .held[0]
        .reply.text.startswith("mx.example takes no mail from us at present: the next try is in 6 hours; it said: ")
    )


def test_a_pause_doubles_only_after_it_has_ended_and_a_success_forgets_it() -> None:
    core, trouble = pacing(), refused(Scope.DOMAIN, 100)
    early = [begin(core, load(), 0) for _ in range(3)]
    core.done(early[0], [trouble], 10)
    core.done(early[1], [trouble], 20)  # begun before: it is the same trouble, told later
    assert ask(core, load(), 20).held[0].seconds == 100
    core.done(early[2], [FINE], 30)  # begun before: it says nothing against the pause
    assert not ask(core, load(), 119).number
    now, lengths = 120.0, []
    for _ in range(5):
        send(core, load(), now, trouble)
        lengths.append(ask(core, load(), now).held[0].seconds)
        now += lengths[-1]
    assert lengths == [200, 400, 800, 800, 800]
    send(core, load(), now)
    send(core, load(), now, trouble)
    assert ask(core, load(), now).held[0].seconds == 100


def test_a_longer_pause_takes_the_place_of_a_shorter() -> None:
    core = pacing()
    turns = [begin(core, load(), 0) for _ in range(3)]
    for turn, seconds in zip(turns, (60, 3600, 10), strict=True):
        core.done(turn, [refused(Scope.ADDRESS, seconds)], 1)
    assert ask(core, load(), 1).held[0].seconds == 3600


def test_after_a_pause_of_the_provider_one_at_a_time_from_every_address() -> None:
    core = pacing()
    other = load(source="192.0.2.1")
    send(core, other, 0)
    send(core, load(), 0, refused(Scope.DESTINATION, 60, Fate.OURS))
    assert room(core, load(), 60) == room(core, other, 60) == 1
    send(core, other, 60)
    assert (room(core, load(), 60), room(core, other, 60)) == (1, 2)


def test_a_provider_that_is_not_reached_gets_one_at_a_time() -> None:
    core = pacing()
    core.done(begin(core, load(), 0), [], 30)
    assert room(core, load(), 30) == 1
    send(core, load(), 40)
    assert room(core, load(), 40) == 2


def test_a_throttle_without_a_pause_slows_down() -> None:
    core = pacing()
    for tick in range(40):
        send(core, load(), tick * 0.1)  # 10/s
    busy = Outcome(Verdict.DEFERRED, Reply(451, "4.3.0", "Too many concurrent SMTP connections"), remote=True)
    send(core, load(), 4.0, busy)
    assert not ask(core, load(), 4.1).number
    assert "slow down" in ask(core, load(), 4.1).held[0].reply.text
    begin(core, load(), 4.2)  # 5/s
    assert not ask(core, load(), 4.3).number


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Verdict.DEFERRED, Reply(451, "4.4.5", "too many connections")),  # our own words
        Outcome(Verdict.DEFERRED, Reply(450, "4.2.0", "greylisted"), remote=True),
        Outcome(Verdict.REFUSED, Reply(554, "5.7.1", "too many connections"), remote=True),
        refused(Scope.MAILBOX),
        refused(Scope.SENDER),
        refused(Scope.MESSAGE),
    ],
)
def test_other_refusals_do_not_slow_down(outcome: Outcome) -> None:
    core = pacing()
    send(core, load(), 0, outcome)
    assert room(core, load(sender="x", mailboxes=("x@y",)), 0) == 5


def test_lessons_are_remembered_for_a_day_and_pause_nothing() -> None:
    core = pacing()
    send(core, load(), 0, refused(Scope.DESTINATION, secure=True, fate=Fate.OURS))
    send(core, load(), 1, refused(Scope.MESSAGE, split=True))
    send(core, load(), 2, refused(Scope.ADDRESS, elsewhere=True, fate=Fate.OURS))
    turn = begin(core, load(), 3)
    assert (turn.secure, turn.apart, turn.ipv4) == (True, True, True)
    assert not begin(core, load("mx.other"), 3).secure
    later = begin(core, load(), DAY + 1)
    assert (later.secure, later.apart, later.ipv4) == (False, False, True)


def test_a_lesson_that_did_not_help_pauses() -> None:
    core = pacing()
    for now in (0, 1):
        send(core, load(), now, refused(Scope.ADDRESS, elsewhere=True, fate=Fate.OURS))
    assert not ask(core, load(), 2).number


def test_one_mailbox_is_held_and_the_others_go() -> None:
    core = pacing()
    send(core, load(mailboxes=("a@b",)), 0, refused(Scope.MAILBOX))
    turn = begin(core, load(mailboxes=("x@b", "a@b")), 1)
    assert list(turn.held) == [1]


def test_a_mailbox_is_not_blamed_for_another() -> None:
    core = pacing()
    send(core, load(mailboxes=("a@b", "c@d")), 0, FINE, refused(Scope.MAILBOX))
    assert not begin(core, load(mailboxes=("a@b", "c@d")), 1).held
    send(core, load(mailboxes=("a@b", "c@d")), 2, refused(Scope.MAILBOX), refused(Scope.MAILBOX))
    assert list(ask(core, load(mailboxes=("a@b", "c@d")), 3).held) == [0, 1]


def test_the_quota_of_a_mailbox_at_gmail() -> None:
    core, mine = pacing(), load("google", mailboxes=("a@b", "c@d"))
    for tick in range(50):
        send(core, load("google"), tick * 0.1)
    turn = begin(core, mine, 10)
    assert list(turn.held) == [0]
    assert turn.held[0].seconds == 50
    assert not ask(core, load("google"), 59.9).number
    assert wait(core, load("google"), 61, 59.9)
    assert core.ready(59.95) == []
    assert [turn.number > 0 for _, turn in core.ready(60)] == [True]


def test_trusted_first_and_one_of_four_for_the_others() -> None:
    core = pacing(1)
    turn = begin(core, load(), 0)
    names = {wait(core, load(trusted=n % 2 == 1), 100, 0): n for n in range(10)}
    order = []
    for _ in range(10):
        core.done(turn, [FINE], 1)
        [(waiter, turn)] = core.ready(1)
        order.append(names[waiter])
    assert order == [1, 3, 5, 0, 7, 9, 2, 4, 6, 8]


def test_who_is_held_does_not_stand_in_the_way() -> None:
    core = pacing(1)
    send(core, load(), 0, refused(Scope.SENDER, 50))
    turn = begin(core, load(sender="x"), 0)
    held, free = wait(core, load(), 100, 0), wait(core, load(sender="x"), 100, 1)
    core.done(turn, [FINE], 2)
    [(waiter, turn)] = core.ready(2)
    assert waiter is free
    newer = wait(core, load(sender="x"), 100, 10)
    assert core.ready(60) == []
    core.done(turn, [FINE], 61)
    [(waiter, turn)] = core.ready(61)  # it has kept its place
    assert waiter is held
    core.leave(newer)
    core.done(turn, [FINE], 62)
    assert core.ready(200) == []


def test_settings_can_change() -> None:
    core = pacing(1)
    turn = begin(core, load(), 0)
    wait(core, load(), 100, 0)
    core.reconfigure(PacingSettings(3), 1)
    assert len(core.ready(1)) == 1
    core.done(turn, [FINE], 2)
    assert room(core, load(), 2) == 2
    core.reconfigure(PacingSettings(1), 3)
    assert room(core, load(), 3) == 0


def test_memory_is_bounded() -> None:
    core = pacing(keys=20)
    kept = begin(core, load("busy.example"), 0)
    for n in range(300):
        what = load(f"mx{n}.example", sender=f"{n}", domain=f"{n}", mailboxes=(f"{n}@b",))
        for scope in Scope:
            core.done(core.ask(what, n, n), [refused(scope, 1)], n)  # type: ignore[arg-type]
    sizes = [len(core._peers), len(core._names), *(len(store) for store in core._restraints._pauses.values())]
    assert max(sizes) <= 20
    assert core._peers["busy.example"].flows[""].window.used == 1  # what is in use is not forgotten
    core.done(kept, [FINE], 300)
    assert not core._open


# Over a restart


def test_what_was_learnt_survives() -> None:
    old = pacing()
    for tick in range(40):
        send(old, load(), tick * 0.1)
    send(old, load(), 4, refused(Scope.ADDRESS, 600))
    send(old, load("mx.other"), 5, refused(Scope.DESTINATION, secure=True))
    send(old, load("mx.third"), 5, refused(Scope.SENDER, 60))
    new = pacing()
    new.load(old.dump(100), 7)
    assert ask(new, load(), 7).held[0] == ask(old, load(), 100).held[0]
    assert begin(new, load("mx.other"), 7).secure
    send(new, load(), 511)
    assert not ask(new, load(), 511.05).number  # the rate is known
    assert room(new, load(), 512) == 1


def test_an_ended_pause_still_doubles_after_a_restart() -> None:
    old, new = pacing(), pacing()
    send(old, load(), 0, refused(Scope.DOMAIN, 100))
    new.load(old.dump(150), 0)
    send(new, load(), 1, refused(Scope.DOMAIN, 100))
    assert ask(new, load(), 1).held[0].seconds == 200


def test_what_never_made_trouble_is_not_kept() -> None:
    core = pacing()
    send(core, load(), 0)
    assert core.dump(1) == pacing().dump(0)


@given(st.binary(max_size=300))
def test_foreign_octets_change_nothing(octets: bytes) -> None:
    core = pacing()
    core.load(octets, 0)
    assert core.dump(0) == pacing().dump(0)
    assert begin(core, load(), 0).number == 1


_SAMPLE = pacing()
for _tick in range(40):
    send(_SAMPLE, load(), _tick * 0.1)
send(_SAMPLE, load(), 4, refused(Scope.ADDRESS))
send(_SAMPLE, load("mx.other"), 4, refused(Scope.MESSAGE, split=True))
_DUMP = _SAMPLE.dump(5)
_LEAVES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just([]) | st.just(1e308)
)


def _paths(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [at, *(path for key, inner in pairs for path in _paths(inner, (*at, key)))]
    return [at]


@given(
    st.sampled_from(_paths(json.loads(_DUMP))[1:]), _LEAVES, st.lists(st.sampled_from([FINE, refused(Scope.ADDRESS)]))
)
def test_whatever_a_dump_was_made_into_the_core_goes_on(
    path: tuple[str | int, ...], value: object, story: list[Outcome]
) -> None:
    """Invariant: nothing is raised, replies are printable ASCII of one line, times are finite, and there is room in the
    end."""
    tree = json.loads(_DUMP)
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    core = pacing()
    core.load(json.dumps(tree).encode(), 0)
    for now, outcome in enumerate(story):
        turn = ask(core, load(), float(now))
        for held in turn.held.values():
            assert held.reply.text.isascii() and held.reply.text.isprintable()
            assert 0 <= held.seconds < 1e6
        core.done(turn, [outcome], float(now))
    core.dump(100)
    assert room(core, load(), 1e9) >= 1


@given(st.lists(st.tuples(st.sampled_from(["ask", "done", "abandon", "leave", "fail", "miss"]), st.integers(0, 30))))
def test_turns_are_neither_lost_nor_doubled(steps: list[tuple[str, int]]) -> None:
    """Invariant: never more turns than the limit, each waiter answered at most once, and all room is there again when
    all has ended."""
    core, now, held, waiting = pacing(3), 0.0, list[Turn](), list[Waiter]()
    for what, number in steps:
        now += number / 10
        if what == "ask":
            got = core.ask(load(trusted=number % 2 == 0), now + number, now)
            if isinstance(got, Waiter):
                waiting.append(got)
            elif got.number:
                held.append(got)
        elif what == "leave" and waiting:
            core.leave(waiting.pop(number % len(waiting)))
        elif held:
            turn = held.pop(number % len(held))
            outcomes = {"done": [FINE], "fail": [refused(Scope.ADDRESS, 5)], "miss": []}.get(what)
            if outcomes is None:
                core.abandon([turn.number], now)
            else:
                core.done(turn, outcomes, now)
        for waiter, turn in core.ready(now):
            waiting.remove(waiter)
            held += [turn] if turn.number else []
        assert len(held) <= 3
    for turn in held:
        core.done(turn, [FINE], now)
    for _ in range(100):  # everybody gets an answer in the end
        now += 100
        for waiter, turn in core.ready(now):
            waiting.remove(waiter)
            core.done(turn, [FINE], now)
    assert not waiting
    assert not core._open
    assert core._peers == {} or core._peers["mx.example"].flows[""].window.used == 0


# The details of the law


def test_throttles_of_what_was_under_way_count_once() -> None:
    core = pacing(10)
    turns = [begin(core, load(), 0) for _ in range(10)]
    for turn in turns:
        core.done(turn, [refused(Scope.MESSAGE, 0)], 1)
    window = core._peers["mx.example"].flows[""].window
    assert (window.width, window.peak) == (7, 10)


def test_patience_goes_by_the_pause_and_by_the_rate() -> None:
    for pause, before, expected in ((0, 1000, 30), (0, 1, 200), (600, 1000, 7200), (9000, 1000, 14400)):
        rate = Rate()
        for tick in range(20):
            rate.begin(tick / before)
        rate.throttled(1, pause)
        assert rate.patience == pytest.approx(max(expected, 100 / rate.floor))
        assert rate.floor == pytest.approx(before / 2)


def test_a_newcomer_does_not_push_in() -> None:
    core = pacing(1)
    for tick in range(20):
        send(core, load(), tick)
    send(core, load(), 20, refused(Scope.MESSAGE, 0))
    first = wait(core, load(), 100, 20)
    got = core.ask(load(), 100, 30)  # there is room again, and nobody has called `ready` yet
    assert isinstance(got, Waiter)
    [(waiter, turn)] = core.ready(30)
    assert waiter is first
    assert turn.number


def test_a_pause_of_the_provider_answers_who_waits_at_other_addresses() -> None:
    core, other = pacing(1), load(source="192.0.2.1")
    begin(core, other, 0)
    waiter = wait(core, other, 100, 0)
    send(core, load(), 1, refused(Scope.DESTINATION, 600))
    [(answered, turn)] = core.ready(1)
    assert answered is waiter
    assert turn.held[0].seconds == 600


def test_numbers_that_cannot_be_calculated_with_are_foreign() -> None:
    tree = json.loads(_DUMP)
    tree["peers"][0]["flows"][0]["patience"] = 0
    core = pacing()
    core.load(json.dumps(tree).encode(), 0)
    assert core.dump(0) == pacing().dump(0)
