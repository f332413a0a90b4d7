"""`mode = "queue"`: what an authenticated sender gives us is ours before any next hop is asked, whatever comes then."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.queue_stage import ME, Scene, Who, dsn, id_of, scene
from tests.lab.client import stuff
from tests.lab.maildir import wait_for

NEVER = "550 5.7.17 we do not want this"
MANY = 480
_CLIENTS = 8

each_restart = pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    with scene({"delivery.mode": "queue"}) as found:
        yield found


@pytest.fixture
def stage(everybody: Scene) -> Iterator[Scene]:
    everybody.begin()
    yield everybody
    everybody.end()


@pytest.mark.parametrize("who", [Who.SPF, Who.DKIM])
def test_it_is_ours_before_anybody_is_asked(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.d.down()
    octets = stage.message(who)
    answer = stage.send(who, place.one, octets)
    assert (answer.code, answer.text[:12]) == (250, "2.0.0 Queued"), answer
    assert [entry["id"] for entry in stage.queue()] == [id_of(answer)]
    place.d.up()
    (taken,) = place.d.wait()
    assert taken.octets.endswith(octets)
    stage.wait_empty()
    assert len(place.d.accepted) == 1


def test_the_reply_waits_for_nobody(stage: Scene) -> None:
    """The hop has not answered when the sender is told."""
    place = stage.place()
    go_on = threading.Event()
    place.d.say(before_dot=lambda: go_on.wait(30))
    answer = stage.send(Who.SPF, place.one)
    assert (answer.code, place.d.received) == (250, [])
    go_on.set()
    stage.wait_story("delivered", id_of(answer))
    stage.wait_empty()
    assert len(place.d.accepted) == 1


def test_anyone_else_goes_cut_through(stage: Scene) -> None:
    place = stage.place()
    place.d.down()
    assert stage.send(Who.NOBODY, place.one).code == 451
    assert stage.queue() == []
    place.d.up()
    answer = stage.send(Who.NOBODY, place.one)
    assert (answer.code, answer.text[:15]) == (250, "2.0.0 Forwarded"), answer
    assert len(place.d.accepted) == 1


def test_a_refusal_is_told_by_one_dsn(stage: Scene) -> None:
    place = stage.place()
    place.d.say(dot=NEVER)
    place.e.say(dot=NEVER)
    assert stage.send(Who.SPF, place.both).code == 250
    (told,) = stage.home.wait()
    (about,) = dsn(told).recipients
    assert (about["Final-Recipient"], about["Status"]) == (f"rfc822; {place.both}", "5.7.17")
    stage.wait_empty()
    assert len(stage.home.received) == 1, "two destinations of one alias are one recipient for its sender"


@each_restart
def test_a_restart_loses_and_doubles_nothing(stage: Scene, kill: bool) -> None:
    place = stage.place()
    place.d.down()
    sent = [stage.message() for _ in range(20)]
    with stage.connect() as client:
        for octets in sent:
            assert client.send(ME, place.one, octets, "BODY=8BITMIME").code == 250
    stage.stop(kill=kill)
    place.d.up()
    stage.gateway.start()
    stage.wait_empty()
    arrived = sorted(message.octets for message in place.d.accepted)
    assert len(arrived) == len(sent)
    assert all(any(octets.endswith(one) for octets in arrived) for one in sent)


def test_a_client_that_vanishes_and_sends_again_makes_one_copy(stage: Scene) -> None:
    place = stage.place()
    octets = stage.message()
    stage.vanish(Who.SPF, place.one, octets)
    assert stage.send(Who.SPF, place.one, octets).code == 250
    place.d.wait()
    stage.wait_empty()
    assert len(place.d.accepted) == 1
    assert stage.send(Who.SPF, place.one, octets).code == 250
    assert len(place.d.wait(2)) == 2, "once it has been heard, the same message is another one"


@each_restart
def test_a_client_that_vanishes_and_sends_again_after_a_restart_makes_one_copy(stage: Scene, kill: bool) -> None:
    place = stage.place()
    octets = stage.message()
    stage.vanish(Who.SPF, place.one, octets)
    place.d.wait()
    stage.wait_empty()
    stage.restart(kill=kill)
    assert stage.send(Who.SPF, place.one, octets).code == 250
    assert stage.queue() == []
    assert len(place.d.accepted) == 1


@pytest.mark.timeout(300)
def test_hundreds_of_messages_survive_a_restart(stage: Scene) -> None:
    place = stage.place()
    place.d.down()

    def feed(count: int) -> None:
        with stage.connect() as client:
            for _ in range(count):
                client.write(f"MAIL FROM:<{ME}> BODY=8BITMIME\r\nRCPT TO:<{place.one}>\r\nDATA\r\n".encode())
                assert [client.read().code for _ in range(3)] == [250, 250, 354]
                client.write(stuff(stage.message()))
                assert client.read().code == 250

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(feed, [MANY // _CLIENTS] * _CLIENTS))
    stage.stop()
    place.d.up()
    stage.gateway.start()
    place.d.wait(MANY, timeout=200)
    wait_for(lambda: not stage.ask(verb="select")["ids"], what="the queue does not empty")
    assert len(place.d.accepted) == MANY
    assert len({message.octets for message in place.d.accepted}) == MANY
