"""A gateway serves before its queue is loaded: what comes or changes meanwhile goes out once, what is deleted never."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.queue_stage import Scene, Who, id_of, scene

# The queue has been read, and is given to the runner when a file says so.
_LAUNCHER = """\
import asyncio, sys
from pathlib import Path
from forwarder.cli import main
from forwarder.spool.store import EmbeddedSpool
go, read = Path(sys.argv.pop(1)), EmbeddedSpool.waiting
async def late(spool):
    found = await read(spool)
    while not go.exists():
        await asyncio.sleep(0.01)
    return found
EmbeddedSpool.waiting = late
main()
"""


@pytest.fixture
def stage() -> Iterator[Scene]:
    with scene({"delivery.mode": "queue"}) as found:
        yield found


def test_clients_are_served_while_the_queue_is_loaded(
    stage: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, go = stage.place(), tmp_path / "go"
    place.d.down()
    old, deleted, retried = (id_of(stage.send(Who.SPF, place.one)) for _ in range(3))
    stage.stop(kill=True)
    monkeypatch.setattr(stage.gateway, "_words", lambda *words: [sys.executable, "-c", _LAUNCHER, str(go), *words])
    place.d.up()
    stage.gateway.start()

    new = id_of(stage.send(Who.SPF, place.one))
    stage.delete(deleted)
    assert stage.ask(verb="retry", ids=[retried])["changed"] == 1
    assert {entry["id"] for entry in stage.queue()} == {old, retried, new}
    assert place.d.accepted == [], "nothing is tried before all is loaded"

    go.touch()
    stage.wait_empty()
    for id in (old, retried, new):
        assert len(stage.wait_story("delivered", id)) == 1
    assert len(place.d.accepted) == 3
    assert {alert.get("component") for alert in stage.gateway.events("alert")} <= {"keys"}


def test_a_gateway_that_is_stopped_while_it_loads_keeps_everything(
    stage: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, go = stage.place(), tmp_path / "go"
    place.d.down()
    old = id_of(stage.send(Who.SPF, place.one))
    stage.stop(kill=True)
    monkeypatch.setattr(stage.gateway, "_words", lambda *words: [sys.executable, "-c", _LAUNCHER, str(go), *words])
    stage.gateway.start()
    new = id_of(stage.send(Who.SPF, place.one))
    stage.stop()
    place.d.up()
    go.touch()
    stage.gateway.start()
    stage.wait_empty()
    assert len(place.d.accepted) == 2
    for id in (old, new):
        assert len(stage.story("delivered", id)) == 1
