"""A gateway with a queue and everybody around it: who sends, where mail goes, and who may be told of a failure.

`Scene` is a loopback world with a sender's client and mail host, somebody who claims to be that sender, the
postmaster's host, and a gateway. Every test takes places of its own (`Scene.place`): what pacing and back-off have
learnt of one next hop never touches another test.

`Tuned` is the real gateway, started with other constants than those it ships with. They are no settings: the test's
own launcher sets them in the process, before it serves.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from enum import Enum
from typing import Any

from forwarder.ops.control import call
from tests.corpus.signed import Key, make_key, sign
from tests.lab.client import Answer, Client, stuff
from tests.lab.gateway import Gateway, Value
from tests.lab.hop import Hop, Received
from tests.lab.maildir import wait_for
from tests.lab.world import Host, World, loopback_world

ME = "me@sender.test"
PLACES = 90
_NUMBERS = itertools.count()
RULES = "[forward.test]\n" + "".join(
    f"one{n} -> box@d{n}.test\nboth{n} -> box@d{n}.test, box@e{n}.test\n" for n in range(PLACES)
)
_LAUNCHER = """\
import json, sys
from dataclasses import replace
from forwarder.app import custody, service
from forwarder.cli import main
constants = json.loads(sys.argv.pop(1))
runner, settlement = custody.runner_settings, custody.settlement_settings
custody.runner_settings = lambda *given: replace(runner(*given), **constants["runner"])
def settle(*given):
    settings = settlement(*given)
    return replace(settings, intervals=replace(settings.intervals, **constants["intervals"]))
custody.settlement_settings = settle
service._DELIVERING = constants["grace"]
main()
"""


class Who(Enum):
    """Who sends: both ways to be authenticated, and somebody who only claims to be the same sender."""

    SPF = "spf"
    DKIM = "dkim"
    NOBODY = "nobody"


class Tuned(Gateway):
    """A gateway whose process has `constants`: of the runner's settings, of the intervals, and `grace` at its end."""

    constants: Mapping[str, object] = {"runner": {}, "intervals": {}, "grace": 10.0}

    def tune(self, **constants: object) -> None:
        """Set constants for the next start."""
        self.constants = {**Tuned.constants, **constants}

    def _words(self, *words: str) -> list[str]:
        if words != ("serve",):
            return super()._words(*words)
        return [sys.executable, "-c", _LAUNCHER, json.dumps(self.constants), *words]


@dataclass(frozen=True, slots=True)
class Place:
    """Destinations of one test: alias `one` leads to `d`, alias `both` to `d` and `e`."""

    number: int
    d: Hop
    e: Hop

    @property
    def one(self) -> str:
        """The alias with one destination."""
        return f"one{self.number}@forward.test"

    @property
    def both(self) -> str:
        """The alias with two destinations."""
        return f"both{self.number}@forward.test"


@dataclass
class Scene:
    """See the module. `home` takes the true sender's mail, `office` the postmaster's."""

    world: World
    client: Host
    stranger: Host
    home: Hop
    office: Hop
    key: Key
    gateway: Tuned
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _places: Iterator[int] = field(default_factory=lambda: iter(range(PLACES)))

    def begin(self) -> None:
        """Begin a test: nobody has any mail, and nothing is left of a test that failed."""
        if self.queue():
            self.ask(verb="delete", all=True)
        self.home.received.clear()
        self.office.received.clear()

    def end(self) -> None:
        """End a test: its next hops are gone."""
        self._open.close()

    def place(self) -> Place:
        """Give new destinations, both up."""
        number = next(self._places)
        d, e = (
            self._open.enter_context(
                Hop(self.world, self.world.host(f"mx.{name}{number}.test", f"{name}{number}.test"))
            )
            for name in "de"
        )
        return Place(number, d, e)

    def message(self, who: Who = Who.SPF) -> bytes:
        """Give a message that was not sent before."""
        octets = (
            f"From: Me <{ME}>\r\nTo: someone@forward.test\r\nSubject: {next(_NUMBERS)} Grüße\r\nX-Fold: a\r\n\t b  \r\n"
            f"Message-ID: <{next(_NUMBERS)}@sender.test>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\n"
            ".dot\r\n..\r\n  text ü \r\n\r\n"
        ).encode()
        return sign(self.key, "relaxed/relaxed", octets) if who is Who.DKIM else octets

    def connect(self, who: Who = Who.SPF) -> Client:
        """Give a client that has said EHLO."""
        client = Client(self.world, self.gateway.host, self.client if who is Who.SPF else self.stranger)
        client.ehlo()
        return client

    def send(self, who: Who, to: str, octets: bytes = b"", sender: str = ME) -> Answer:
        """Send one message."""
        with self.connect(who) as client:
            return client.send(sender, to, octets or self.message(who), "BODY=8BITMIME")

    def queue(self) -> list[dict[str, Any]]:
        """Give what is in the queue, asked as `queue list --json` asks, without a process for each question."""
        ids = self.ask(verb="select")["ids"]
        messages: list[dict[str, Any]] = self.ask(verb="list", ids=ids)["messages"] if ids else []
        return messages

    def listed(self, *words: str) -> list[dict[str, Any]]:
        """Give what `queue list --json` prints, whether the gateway runs or not."""
        ran = self.gateway.run("queue", "list", "--json", *words)
        assert ran.status == 0, ran.output
        messages: list[dict[str, Any]] = json.loads(ran.output)["messages"]
        return messages

    def ask(self, **request: object) -> dict[str, Any]:
        """Ask the running gateway about its queue."""
        answer = call(self.gateway.folder / "run" / "control.sock", "queue", timeout=60.0, **request)
        assert answer["ok"], answer
        return answer

    def story(self, name: str, id: str) -> list[dict[str, object]]:
        """Give the events of a name about a message."""
        return [event for event in self.gateway.events(name) if event.get("id") == id]

    def wait_story(self, name: str, id: str, count: int = 1) -> list[dict[str, object]]:
        """Wait until that many events of a name were logged about a message."""
        return wait_for(
            lambda: found if len(found := self.story(name, id)) >= count else [], what=f"no {count} {name} of {id}"
        )

    def wait_empty(self) -> None:
        """Wait until the queue is empty."""
        wait_for(lambda: not self.queue(), what="the queue does not empty")

    def restart(self, *, kill: bool = False) -> None:
        """End the gateway, by SIGTERM or at once, and start it again."""
        self.stop(kill=kill)
        self.gateway.start()

    def stop(self, *, kill: bool = False) -> None:
        """End the gateway, by SIGTERM with status 0 or at once."""
        if kill:
            self.gateway.kill()
        else:
            self.gateway.terminate()
            assert self.gateway.wait_end() == 0, self.gateway.text[-4000:]

    def vanish(self, who: Who, to: str, octets: bytes) -> None:
        """Send one message and be gone before the reply; return when the gateway knows that nobody has heard it."""
        unheard = len(self.gateway.events("unheard"))
        client = self.connect(who)
        for line in (f"MAIL FROM:<{ME}> BODY=8BITMIME", f"RCPT TO:<{to}>"):
            assert client.command(line).code == 250
        assert client.command("DATA").code == 354
        process = self.gateway.process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)  # it sees the message and the end at once
        try:
            client.write(stuff(octets))
            client.close()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        self.gateway.wait_event("unheard", unheard + 1)

    def delete(self, id: str) -> None:
        """Delete a message from the queue."""
        assert self.ask(verb="delete", ids=[id])["changed"]


def id_of(answer: Answer) -> str:
    """Give the id that a reply names."""
    found = re.search(r"id (\S+)", answer.text)
    assert found is not None, answer
    return found[1]


def states(entry: Mapping[str, Any]) -> dict[str, str]:
    """Give the state of each destination of an entry of the queue."""
    return {part["destination"]: part["state"] for part in entry["to"]}


@contextlib.contextmanager
def scene(settings: Mapping[str, Value] | None = None, **constants: object) -> Iterator[Scene]:
    """Give a scene whose gateway has begun. It looks away for two seconds and retries after one."""
    with loopback_world() as world, contextlib.ExitStack() as stack:
        client, stranger = world.host("client.test"), world.host("stranger.test")
        home = stack.enter_context(Hop(world, world.host("mx.sender.test", "sender.test")))
        office = stack.enter_context(Hop(world, world.host("mx.elsewhere.test", "elsewhere.test")))
        key = make_key()
        world.dns.add("sender.test", "TXT", f"v=spf1 ip4:{client.address} -all")
        world.dns.add("_dmarc.sender.test", "TXT", "v=DMARC1; p=none")
        world.dns.add(key.name, "TXT", key.record)
        common: dict[str, Value] = {"delivery.cutthrough_deadline": "2s", "delivery.retry": ["1s"]}
        gate = world.host("mx.forward.test")
        gateway = Tuned(world, gate, RULES, settings={**common, **(settings or {})})
        world.dns.add(gateway.srs_domain, "TXT", f"v=spf1 ip4:{gate.address} -all")
        gateway.tune(**constants)
        stack.enter_context(gateway)
        found = Scene(world, client, stranger, home, office, key, gateway)
        stack.callback(found.end)
        yield found


@dataclass(frozen=True, slots=True)
class Dsn:
    """A delivery status notification as its receiver reads it (RFC 3464)."""

    message: EmailMessage
    about: Message
    recipients: tuple[Message, ...]


def dsn(received: Received) -> Dsn:
    """Read a DSN of ours; it must be a whole one."""
    assert received.sender == "", "RFC 3461 6.1: the null sender"
    message = message_from_bytes(received.octets, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert "<postmaster@mx.forward.test>" in message["From"]
    assert message["Auto-Submitted"] == "auto-replied"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    text, status, returned = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert status.get_content_type() == "message/delivery-status"
    assert returned.get_content_type() in ("text/rfc822-headers", "message/rfc822")
    groups = status.get_payload()
    assert isinstance(groups, list)
    about, *recipients = (group for group in groups if isinstance(group, Message))
    assert about["Reporting-MTA"] == "dns; mx.forward.test"
    assert about["Arrival-Date"]
    assert about["X-Forwarder-ID"]
    assert b"box@" not in received.octets, "where the alias leads is not the sender's business"
    return Dsn(message, about, tuple(recipients))
