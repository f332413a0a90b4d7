"""What the operator's requests do to the letters in the spool."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.delivery import queue_view
from forwarder.delivery.queue_desk import QueueDesk
from forwarder.model.letter import Change, Letter, Part, Progress, State
from tests.delivery.queue_stage import BODY, DELIVERED, DUE, HEAD, HELD, QUEUED, Office, letter

A, B, C = "01AAAAAAAAAAAAAA", "01BBBBBBBBBBBBBB", "01BBBBBBCCCCCCCC"
ACTS = ("retry", "hold", "release", "bounce", "delete")
UNTOUCHED = {"ok": True, "changed": 0, "skipped": [], "unknown": [], "new": []}


def both(id: str = A) -> Letter:
    """A letter with a queued, a held and a delivered recipient."""
    return letter(
        id,
        ("one@ours.example", "one@inbox.example", QUEUED),
        ("two@ours.example", "two@other.example", HELD),
        ("three@ours.example", "three@inbox.example", DELIVERED),
    )


def ids(answer: Mapping[str, object]) -> object:
    assert answer["ok"] is True, answer
    return answer["ids"]


def refusal(answer: Mapping[str, object]) -> tuple[object, str]:
    assert answer["ok"] is False
    problems: Any = answer["problems"]
    return answer["status"], "\n".join(problems)


def reasons(answer: Mapping[str, object]) -> list[tuple[str, str | None, str]]:
    skipped: Any = answer["skipped"]
    return [(one["id"], one["address"], one["reason"]) for one in skipped]


async def test_a_letter_as_json_has_it() -> None:
    answer: Any = await Office(both()).ask("list")
    assert answer["messages"] == [
        {
            "id": A,
            "from": "a@sender.example",
            "to": [
                {
                    "address": "one@ours.example",
                    "state": "queued",
                    "reason": "451 4.7.1 try later",
                    "destination": "one@inbox.example",
                    "via": None,
                    "number": 0,
                    "attempts": 3,
                    "relay": "mx.inbox.example[192.0.2.9]:25",
                    "next_attempt": "2026-11-22T12:30:00Z",
                    "waited": 7200,
                    "owner_told": True,
                    "delay_notices": 0,
                    "selected": True,
                },
                {
                    "address": "two@ours.example",
                    "state": "held",
                    "reason": "452 4.2.2 mailbox full",
                    "destination": "two@other.example",
                    "via": None,
                    "number": 1,
                    "attempts": 4,
                    "relay": "mx.inbox.example[192.0.2.9]:25",
                    "next_attempt": None,
                    "waited": 9000,
                    "owner_told": False,
                    "delay_notices": 0,
                    "selected": True,
                },
                {
                    "address": "three@ours.example",
                    "state": "delivered",
                    "reason": "250 2.0.0 OK",
                    "destination": "three@inbox.example",
                    "via": None,
                    "number": 2,
                    "attempts": 1,
                    "relay": "",
                    "next_attempt": None,
                    "waited": 1,
                    "owner_told": True,
                    "delay_notices": 0,
                    "selected": True,
                },
            ],
            "size": len(BODY),
            "received": "2026-11-22T10:00:00Z",
            "next_attempt": "2026-11-22T12:30:00Z",
            "kind": "mail",
            "sent_as": "a@sender.example",
            "author": "a@sender.example",
            "message_id": "<1@sender.example>",
            "bounceable": True,
        }
    ]


async def test_the_null_sender_is_shown_and_sought_as_such() -> None:
    office = Office(letter(A, sender=None), letter(B))
    answer: Any = await office.ask("list", **{"from": "<>"})
    assert [(one["id"], one["from"]) for one in answer["messages"]] == [(A, "<>")]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [B, A]),
        ({"to": "ONE@ours.example"}, [A]),
        ({"to": "one@inbox.example"}, [A]),
        ({"to": "one@nobody.example"}, []),
        ({"to": "three@ours.example"}, []),  # has it already
        ({"domain": "Other.Example."}, [A]),
        ({"domain": "ours.example"}, [B, A]),
        ({"from": "b@sender.example"}, [B]),
        ({"from": "B@SENDER.example"}, [B]),
        ({"state": "held"}, [A]),
        ({"state": "queued"}, [B, A]),
        ({"state": "held", "to": "one@ours.example"}, []),  # both must hold of one recipient
        ({"state": "queued", "domain": "other.example"}, []),
        ({"for": "release"}, [A]),
        ({"for": "delete", "all": True}, [B, A]),
        ({"for": "hold", "domain": "other.example"}, []),
    ],
)
async def test_what_is_selected_oldest_first(asked: dict[str, object], found: list[str]) -> None:
    office = Office(replace(both(), received=DUE), letter(B, sender="b@sender.example"))
    assert ids(await office.ask("select", **asked)) == found


async def test_a_beginning_of_an_id_is_enough_in_any_case() -> None:
    office = Office(letter(A), letter(B))
    assert ids(await office.ask("select", "01aa", B)) == [A, B]


async def test_a_beginning_that_fits_several_is_refused_with_their_names() -> None:
    office = Office(letter(A), letter(B), letter(C))
    status, text = refusal(await office.ask("delete", "01BB", A))
    assert status == 2
    assert B in text and C in text and A not in text
    assert len(office.spool.letters) == 3


async def test_a_whole_id_that_others_begin_with_is_meant() -> None:
    office = Office(letter("01BBB"), letter("01BBBB"))
    assert ids(await office.ask("select", "01BBB")) == ["01BBB"]


async def test_beginnings_that_fit_many_name_a_few() -> None:
    office = Office(*(letter(f"01BB{number:012}") for number in range(50)))
    _, text = refusal(await office.ask("select", "01BB"))
    assert text.count("01BB0") == 20 and "…" in text


async def test_an_unknown_id_is_named_and_the_others_are_worked_on() -> None:
    office = Office(letter(A))
    answer = await office.ask("delete", A, "09ZZZZ")
    assert (answer["changed"], answer["unknown"]) == (1, ["09ZZZZ"])
    assert not office.spool.letters


async def test_retry_makes_it_due_now_and_tells_the_queue() -> None:
    office = Office(letter(A))
    answer = await office.ask("retry", A)
    assert answer == {**UNTOUCHED, "changed": 1}
    assert office.progress(A) == replace(QUEUED, due=office.clock.time)
    (waiting,) = office.queue.waitings
    assert (waiting.part, waiting.lane, waiting.trusted) == (Part(A, 0), "inbox.example", True)
    assert waiting.progress == office.progress(A)
    assert not office.spool.leased and not office.spool.given_back


async def test_hold_and_release() -> None:
    office = Office(letter(A))
    assert (await office.ask("hold", A))["changed"] == 1
    held = office.progress(A)
    assert (held.state, held.due, held.untold) == (State.HELD, None, False)
    assert held.reply == "held by the administrator; before that: 451 4.7.1 try later"
    assert office.queue.parts == [Part(A, 0)]
    assert (await office.ask("release", A))["changed"] == 1
    # Its time in the queue begins anew, so that it does not expire at once; all else is as before.
    assert office.progress(A) == replace(QUEUED, due=office.clock.time, waited=0.0)
    assert [waiting.part for waiting in office.queue.waitings] == [Part(A, 0)]


async def test_hold_without_an_answer_to_keep() -> None:
    office = Office(letter(A, ("a@ours.example", "a@inbox.example", Progress(State.QUEUED, DUE))))
    await office.ask("hold", A)
    assert office.progress(A).reply == "held by the administrator"
    await office.ask("release", A)
    assert office.progress(A).reply == ""


async def test_delete_ends_what_is_open_and_twice_is_unknown() -> None:
    office = Office(both())
    assert (await office.ask("delete", A))["changed"] == 2
    assert not office.spool.letters
    assert office.queue.parts == [Part(A, 0), Part(A, 1)]
    assert await office.ask("delete", A) == {**UNTOUCHED, "unknown": [A]}


async def test_a_filter_touches_the_recipients_that_it_names_and_no_others() -> None:
    office = Office(both())
    assert (await office.ask("delete", to="two@ours.example"))["changed"] == 1
    assert [progress.state for progress in office.spool.letters[A].progress] == [
        State.QUEUED,
        State.DELETED,
        State.DELIVERED,
    ]


async def test_ids_and_a_filter_together_narrow() -> None:
    office = Office(both(), both(B))
    assert (await office.ask("delete", A, state="held"))["changed"] == 1
    assert office.progress(B, 1) == HELD and office.progress(A, 0) == QUEUED


@pytest.mark.parametrize(
    ("verb", "progress", "reason"),
    [
        ("retry", HELD, "held: nothing is tried until you release it"),
        ("hold", HELD, "held already"),
        ("release", QUEUED, "not held: retry makes it due at once"),
    ],
)
async def test_a_verb_that_does_not_apply_says_why(verb: str, progress: Progress, reason: str) -> None:
    office = Office(letter(A, ("a@ours.example", "a@inbox.example", progress)))
    answer = await office.ask(verb, A)
    assert (answer["changed"], reasons(answer)) == (0, [(A, None, reason)])
    assert office.progress(A) == progress
    assert not office.spool.leased


@pytest.mark.parametrize("verb", ["retry", "hold", "bounce", "delete", "resend"])
async def test_what_is_being_delivered_is_left_alone(verb: str) -> None:
    office = Office(letter(A))
    office.spool.busy = {Part(A, 0)}
    answer = await office.ask(verb, A, resend_to="b@inbox.example")
    assert answer["changed"] == 0
    assert reasons(answer) == [(A, "me@ours.example", "being delivered right now: try again in a moment")]
    assert office.progress(A) == QUEUED
    assert not office.queue.parts and not office.queue.waitings


async def test_the_rest_of_a_letter_is_worked_on_though_one_part_is_busy() -> None:
    office = Office(both())
    office.spool.busy = {Part(A, 0)}
    answer = await office.ask("delete", A)
    assert (answer["changed"], len(reasons(answer))) == (1, 1)
    assert (office.progress(A, 0).state, office.progress(A, 1).state) == (State.QUEUED, State.DELETED)


@pytest.mark.parametrize("verb", ACTS)
async def test_an_error_of_the_spool_changes_nothing_and_gives_leases_back(verb: str) -> None:
    office = Office(both())
    office.spool.failing = "no space left on device"
    answer = await office.ask(verb, A)
    assert "no space left on device" in str(answer)
    assert office.spool.letters[A] == both()
    assert not office.spool.leased
    assert not office.queue.parts and not office.queue.waitings and not office.log.events


async def test_a_lease_that_another_took_after_the_change_is_not_given_back() -> None:
    office = Office(letter(A), letter(B))
    store = office.spool.store

    async def taken_at_once(letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
        await store(letters, changes)
        office.spool.leased |= {change.part for change in changes}

    office.spool.store = taken_at_once  # type: ignore[method-assign]
    await office.ask("retry", all=True)
    assert office.spool.leased == {Part(A, 0), Part(B, 0)}


async def test_what_changed_before_the_lease_is_read_again() -> None:
    office = Office(letter(A))
    lease = office.spool.lease

    async def tried_meanwhile(parts: Sequence[Part]) -> Sequence[Part]:
        progress = (replace(QUEUED, attempts=9),)
        office.spool.letters[A] = replace(office.spool.letters[A], progress=progress)
        return await lease(parts)

    office.spool.lease = tried_meanwhile  # type: ignore[method-assign]
    await office.ask("retry", A)
    assert office.progress(A).attempts == 9


async def test_what_went_before_the_lease_is_told() -> None:
    office = Office(letter(A))

    async def delivered_meanwhile(parts: Sequence[Part]) -> Sequence[Part]:
        office.spool.letters.clear()
        return []

    office.spool.lease = delivered_meanwhile  # type: ignore[method-assign]
    assert reasons(await office.ask("delete", A)) == [(A, None, "gone meanwhile: it was delivered, bounced or deleted")]


async def test_bounce_tells_the_sender() -> None:
    office = Office(both())
    answer = await office.ask("bounce", A)
    assert (answer["changed"], answer["new"]) == (2, ["DSNAAAAAAAAAAAAA"])
    ((id, numbers, reply),) = office.bouncer.asked
    assert (id, numbers, reply.code) == (A, (0, 1), 554)
    assert list(office.spool.letters) == ["DSNAAAAAAAAAAAAA"]
    assert [waiting.part.id for waiting in office.queue.waitings] == ["DSNAAAAAAAAAAAAA"]
    assert office.queue.parts == [Part(A, 0), Part(A, 1)]


async def test_what_may_not_be_bounced_is_held_and_said_so() -> None:
    office = Office(letter(A, sender="b@stranger.example"))
    answer = await office.ask("bounce", A)
    assert answer["changed"] == 0
    ((_, address, reason),) = reasons(answer)
    assert address == "me@ours.example" and "stays held" in reason
    assert office.progress(A).state is State.HELD
    assert office.queue.parts == [Part(A, 0)]


async def test_a_damaged_letter_does_not_stop_the_others() -> None:
    office = Office(letter(A), letter(B))
    office.spool.damaged = {A}
    answer = await office.ask("bounce", all=True)
    assert answer["changed"] == 1
    assert reasons(answer) == [(A, None, "damaged: the content is not what was stored")]
    assert office.spool.leased == set()


async def test_resend_makes_a_letter_of_the_same_octets_and_ends_the_old_in_one_step() -> None:
    office = Office(both())
    answer = await office.ask("resend", A, resend_to="New@elsewhere.example")
    assert (answer["changed"], answer["new"]) == (2, ["NEW0000000000001"])
    assert office.spool.stores == 1
    ((id, made),) = office.spool.letters.items()
    assert id == "NEW0000000000001"
    (delivery,) = made.message.deliveries  # one copy: both recipients were to get the same
    assert str(delivery.destination.address) == "New@elsewhere.example"
    assert str(delivery.recipient) == "one@ours.example"
    assert delivery.head == both().message.deliveries[0].head
    assert b"".join(made.message.content.chunks()) == BODY
    assert made.progress == (Progress(State.QUEUED, office.clock.time),)
    assert replace(made, message=both().message, progress=both().progress) == both()
    assert [waiting.lane for waiting in office.queue.waitings] == ["elsewhere.example"]
    assert office.queue.parts == [Part(A, 0), Part(A, 1)]


async def test_resend_of_one_recipient_leaves_the_others() -> None:
    office = Office(both())
    await office.ask("resend", A, resend_to="b@elsewhere.example", state="held")
    assert (office.progress(A, 0), office.progress(A, 1).state) == (QUEUED, State.DELETED)
    made = office.spool.letters["NEW0000000000001"].message.deliveries[0]
    assert str(made.recipient) == "two@ours.example"


async def test_resend_is_refused_where_it_would_loop() -> None:
    office = Office(letter(A), refused="would come back to")
    status, text = refusal(await office.ask("resend", A, resend_to="x@ours.example"))
    assert (status, text) == (2, "x@ours.example: would come back to x@ours.example")
    assert office.progress(A) == QUEUED


async def test_an_action_is_written_to_the_log() -> None:
    office = Office(letter(A))
    await office.ask("resend", A, resend_to="b@elsewhere.example")
    deleted, queued = office.log.events
    assert deleted[0] == "deleted" and queued[0] == "queued"
    assert (deleted[1]["id"], deleted[1]["by"]) == (A, "the administrator")
    assert deleted[1]["resent"] == queued[1]["id"] == "NEW0000000000001"


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({}, "verb"),
        ({"verb": "explode"}, "explode"),
        ({"verb": 7}, "verb"),
        ({"verb": "delete"}, "--all"),
        ({"verb": "delete", "ids": []}, "--all"),
        ({"verb": "delete", "ids": "01AA"}, "ids"),
        ({"verb": "delete", "ids": [1]}, "ids"),
        ({"verb": "delete", "ids": ["01A"]}, "too short"),
        ({"verb": "delete", "ids": [""]}, "too short"),
        ({"verb": "delete", "all": "yes"}, "all"),
        ({"verb": "delete", "all": True, "ids": [A]}, "contradict"),
        ({"verb": "delete", "all": True, "to": "me@ours.example"}, "--all"),
        ({"verb": "delete", "to": ""}, "to"),  # an unset variable of a shell must not widen what is deleted
        ({"verb": "delete", "to": "nonsense"}, "nonsense"),
        ({"verb": "delete", "domain": "a b"}, "domain"),
        ({"verb": "delete", "from": "x" * 1001}, "from"),
        ({"verb": "delete", "state": "delivered"}, "queued or held"),
        ({"verb": "select", "for": "show"}, "for"),
        ({"verb": "resend", "ids": [A]}, "resend_to"),
        ({"verb": "resend", "ids": [A], "resend_to": "nonsense"}, "nonsense"),
        ({"verb": "show"}, "ids"),
        ({"verb": "show", "ids": [A, B]}, "ids"),
        ({"verb": "show", "ids": [A], "headers": 1}, "headers"),
        ({"verb": "content", "ids": [A], "offset": -1}, "offset"),
        ({"verb": "content", "ids": [A], "offset": True}, "offset"),
        ({"verb": "content", "ids": [A], "number": 5}, "number"),
    ],
)
async def test_wrong_use_is_refused_in_words(request_: dict[str, object], word: str) -> None:
    office = Office(letter(A), letter(B))
    status, text = refusal(await office.desk.handle(request_))
    assert status == 2 and word in text
    assert office.spool.stores == 0


_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_json = st.recursive(_values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2))
_keys = st.sampled_from(["ids", "all", "to", "domain", "from", "state", "for", "resend_to", "number", "offset"])
_verbs = st.sampled_from([*ACTS, "resend", "list", "show", "select", "content"]) | _json


@given(_verbs, st.dictionaries(_keys, _json))
def test_no_request_does_harm(verb: object, request: dict[str, object]) -> None:
    """Whatever a request holds, the answer is a yes or a refusal in words, and only what was meant changes."""
    office = Office(letter(A))
    answer = asyncio.run(office.desk.handle({**request, "verb": verb}))
    if answer["ok"] is not True:
        assert answer["status"] in (1, 2) and answer["problems"]
    if request.get("all") is not True:  # no random text names what is there
        assert office.spool.letters == {A: letter(A)}


async def test_show_gives_everything_and_the_headers_when_asked() -> None:
    office = Office(both())
    plain: Any = await office.ask("show", A)
    assert plain["message"]["id"] == A and "headers" not in plain["message"]
    answer: Any = await office.ask("show", A, headers=True)
    assert answer["message"]["headers"].split("\r\n") == [
        "Received: from a by b",
        "Delivered-To: one@ours.example",
        "From: a@sender.example",
        "Subject: hello",
        "",
    ]


@pytest.mark.parametrize("verb", ["show", "content"])
async def test_an_unknown_message_cannot_be_shown(verb: str) -> None:
    status, text = refusal(await Office().ask(verb, A))
    assert (status, A in text) == (1, True)


@given(st.binary(max_size=60), st.integers(1, 20))
def test_the_content_comes_whole_in_slices(body: bytes, size: int) -> None:
    """However it is cut, the slices joined are our head and the content of the recipient that was asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue_view, "MAX_SLICE", size)
        one = replace(both(), message=replace(both().message, content=letter(A, content=body).message.content))
        octets = asyncio.run(_octets(Office(one).desk, 1))
    assert octets == HEAD + b"Delivered-To: two@ours.example\r\n" + body


async def _octets(desk: QueueDesk, number: int) -> bytes:
    found = b""
    offset: int | None = 0
    while offset is not None:
        answer: Any = await desk.handle({"verb": "content", "ids": [A], "number": number, "offset": offset})
        found += base64.b64decode(answer["octets"])
        assert answer["next"] in (None, len(found))
        offset = answer["next"]
    return found


async def test_damaged_content_is_not_shown_as_if_it_were_whole() -> None:
    office = Office(letter(A))
    office.spool.damaged = {A}
    assert refusal(await office.ask("content", A)) == (1, f"{A}: damaged: the content is not what was stored")


async def test_a_spool_that_cannot_is_told() -> None:
    office = Office(letter(A))
    office.spool.failing = "the disk is gone"
    assert refusal(await office.ask("delete", A)) == (1, "the spool could not do it: the disk is gone")


async def test_a_long_selection_reads_no_letter() -> None:
    office = Office(
        *(letter(f"01B{n:04}", ("a@ours.example", "a@inbox.example", (QUEUED, HELD)[n % 2])) for n in range(20))
    )
    for wanted in ({}, {"state": "held"}, {"to": "a@ours.example"}, {"domain": "inbox.example", "for": "release"}):
        answer = await office.desk.handle({"verb": "select", **wanted})
        assert len(answer["ids"]) == (10 if "state" in wanted or "for" in wanted else 20)  # type: ignore[arg-type]
    assert office.spool.read == 0


async def test_letters_that_are_not_meant_are_not_read_to_find_out_what_an_id_names() -> None:
    office = Office(*(letter(f"01BB{number:012}") for number in range(50)))
    refusal(await office.ask("select", "01BB"))
    assert ids(await office.ask("select", "09ZZ")) == []
    assert office.spool.read == 0
    assert ids(await office.ask("select", "01BB000000000007")) == ["01BB000000000007"]
    assert office.spool.read == 1
