"""The whole gateway with all around it: senders, inboxes at one next hop, and the homes of senders and postmaster.

Every mail has a token and content of its own. `Scene.problems` holds what was acknowledged against what arrived.
"""

import contextlib
import hashlib
import itertools
import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder.ops.control import ControlError, call
from tests.kill.journal import told_by
from tests.kill.tracing import words
from tests.lab.client import Client
from tests.lab.gateway import Gateway, Value
from tests.lab.hop import Hop, Received
from tests.lab.maildir import wait_for
from tests.lab.world import Host, World

RULES = """\
[forward.test]
good -> good@inbox.test
grey -> grey@inbox.test
bad -> bad@inbox.test
two -> two-good@inbox.test, two-grey@inbox.test
three -> three-good@inbox.test, three-grey@inbox.test, three-bad@inbox.test
"""
_LEADS = {
    "good": ("good",),
    "grey": ("grey",),
    "bad": ("bad",),
    "two": ("two-good", "two-grey"),
    "three": ("three-good", "three-grey", "three-bad"),
}
_REFUSED = "550 5.1.1 nobody of that name"
_GREY = "451 4.7.1 greylisted"
_SETTINGS: Mapping[str, Value] = {
    "delivery.mode": "queue",
    "delivery.retry": ["1s", "2s"],
    "delivery.cutthrough_deadline": "5s",
    "postmaster": "postmaster@owner.test",
    "spool.minimum_free": "1MB",
}
_TOKEN = re.compile(rb"^X-Token: (\S+)\r\n", re.MULTILINE)


class Moods(dict[str, str]):
    """What the inbox hop answers to RCPT: `bad` ones are refused, `grey` ones put off for a share of the time.

    While `closed`, RCPT waits for `go_on`.
    """

    def __init__(self, grey: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.grey = grey
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = threading.Event()
        self._dice = random.Random(seed)

    def get(self, mailbox: str, default: Any = None) -> Any:
        self.asked.set()
        self.go_on.wait(30)
        if "bad" in mailbox:
            return _REFUSED
        return _GREY if "grey" in mailbox and self._dice.random() < self.grey else default


@dataclass
class Mail:
    """One mail and what became of it at the gateway; `code` is 0 where the client heard nothing."""

    token: str
    octets: bytes
    aliases: tuple[str, ...]
    code: int = 0
    tries: int = 0
    stranger: bool = False

    @property
    def mailboxes(self) -> list[tuple[str, str]]:
        """Each alias with each mailbox that it leads to."""
        return [(alias, f"{name}@inbox.test") for alias in self.aliases for name in _LEADS[alias]]


@dataclass
class Scene:
    """See the module. `senders` are the hosts of an authenticated and of another sender."""

    world: World
    gateway: Gateway
    inbox: Hop
    home: Hop
    senders: tuple[Host, Host]
    mails: list[Mail] = field(default_factory=list)
    kills: int = 0
    at: Path = Path("/")  # where the gateway's files are seen from here
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def spool(self) -> Path:
        return self.at / str(self.gateway.folder / "state" / "spool").lstrip("/")

    @property
    def parent(self) -> int:
        """The gateway's first process."""
        assert self.gateway.process is not None
        return self.gateway.process.pid

    def mail(self, *aliases: str, size: int = 200) -> Mail:
        """Make a mail that there was not before."""
        token = f"t{next(self._numbers)}"
        text = f"From: a@sender.test\r\nX-Token: {token}\r\n\r\n{token}\r\n".encode()
        mail = Mail(token, text + (os.urandom(35).hex().encode() + b"\r\n") * (size // 72), aliases or ("good",))
        self.mails.append(mail)
        return mail

    def send(self, mail: Mail, *, stranger: bool = False) -> int:
        """Send once; give the code of the answer, 0 where there was none."""
        mail.tries += 1
        sender = "x@stranger.test" if stranger else "a@sender.test"
        with contextlib.suppress(OSError, AssertionError):
            with Client(self.world, self.gateway.host, self.senders[stranger]) as client:
                client.ehlo()
                to = [f"{alias}@forward.test" for alias in mail.aliases]
                code = client.send(sender, to, mail.octets).code
            mail.code = code
        return mail.code

    # Dying

    def kill(self, who: str = "everything") -> None:
        """Send SIGKILL to the parent, to one worker, or to all at once; start again what does not do so itself."""
        self.kills += 1
        if who == "worker":
            count = len(self.gateway.events("worker"))
            os.kill(next(iter(self.gateway.workers().values())), signal.SIGKILL)
            self.gateway.wait_event("worker", count + 1)
            return
        os.kill(self.parent, signal.SIGKILL) if who == "parent" else os.killpg(self.parent, signal.SIGKILL)
        self.restart()

    def restart(self) -> None:
        """Start again what has been killed."""
        assert self.gateway.wait_end() == -signal.SIGKILL
        self.gateway.start()

    def start_under(self, *faults: str) -> None:
        """Start the gateway so that faults meet it from its first moment; it must die of them."""
        self.kills += 1
        env = {**os.environ, "FORWARDER_CONFIG": str(self.gateway.configuration)}
        self.gateway.spawn([*words(faults), "--", *self.gateway._words("serve")], env)
        status = self.gateway.wait_end()
        assert status == -signal.SIGKILL, f"ended with {status}: {self.gateway.text[-2000:]}"

    # The queue

    def ask(self, verb: str, **request: object) -> dict[str, Any]:
        """Do as `forwarder queue` does."""
        return call(self.gateway.folder / "run" / "control.sock", "queue", **{"verb": verb, **request})  # type: ignore[arg-type]

    def queue(self, state: str = "") -> list[dict[str, Any]]:
        """Give the letters that wait, with at least one recipient in a state."""
        messages: list[dict[str, Any]] = self.ask("list", all=True)["messages"]
        return [one for one in messages if not state or any(to["state"] == state for to in one["to"])]

    def settle(self) -> None:
        """Let every hop accept, and wait until nothing is queued any more.

        A list may miss a report that is stored while it is made, so two in a row must show the same letters.
        """

        def empty() -> bool:
            with contextlib.suppress(ControlError):
                self.ask("retry", state="queued")
                looks = self.queue(), self.queue()
                first, second = ({one["id"]: {to["state"] for to in one["to"]} for one in look} for look in looks)
                return first == second and not any("queued" in states for states in first.values())
            return False

        wait_for(empty, 60, "the queue does not become empty")

    # The promises

    def arrived(self) -> Counter[tuple[str, str]]:
        """Count the copies that arrived whole: by token and mailbox."""
        mails = {mail.token: mail for mail in self.mails}
        found: Counter[tuple[str, str]] = Counter()
        for one in self.inbox.accepted:
            mail = mails[_token(one)]
            digest = hashlib.sha256(one.octets[-len(mail.octets) :]).digest()
            assert digest == hashlib.sha256(mail.octets).digest(), f"{mail.token} did not arrive as it was sent"
            found.update((mail.token, mailbox) for mailbox in one.recipients)
        return found

    def reported(self) -> Counter[tuple[str, str]]:
        """Count the DSNs of failure that reached the sender, by token and alias; a DSN that came twice is one."""
        digests = {hashlib.sha256(one.octets.partition(b"MIME-Version")[2]).digest(): one for one in self.home.accepted}
        return Counter(failed for one in digests.values() for failed in told_by(one.octets).failed)

    def held(self) -> set[tuple[str, str]]:
        """Give what is held, by token and mailbox, its content as it was sent."""
        mails = {mail.octets: mail for mail in self.mails}
        found = set()
        for letter in self.queue("held"):
            mail = mails[(self.spool / "messages" / letter["id"]).read_bytes()]
            found |= {(mail.token, to["destination"]) for to in letter["to"] if to["state"] == "held"}
        return found

    def left_over(self) -> list[str]:
        """Give the files that nobody answers for; one whose letter has just ended goes in a moment."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self._unknown(), 5)
        return self._unknown()

    def _unknown(self) -> list[str]:
        known = {letter["id"] for letter in self.queue()}
        files = {path.name for path in (self.spool / "messages").iterdir()}
        return sorted(files ^ known | {path.name for path in (self.spool / "incoming").iterdir()})

    def problems(self) -> list[str]:
        """Say what was promised and is not so, once the queue is settled."""
        arrived, reported, held = self.arrived(), self.reported(), self.held()
        found = []
        for mail in self.mails:
            for alias, mailbox in mail.mailboxes:
                known = (
                    arrived[mail.token, mailbox]
                    or reported[mail.token, f"{alias}@forward.test"]
                    or (mail.token, mailbox) in held
                )
                if mail.code == 250 and not known:
                    found.append(f"lost: {mail.token} to {mailbox}")
        found += [f"{count} DSNs for {failed}" for failed, count in reported.items() if count > self._tries(failed[0])]
        return found + self._twice()

    def _tries(self, token: str) -> int:
        return next(mail.tries for mail in self.mails if mail.token == token)

    def _twice(self) -> list[str]:
        """Second copies are only those of an attempt whose end was not recorded: the log tells of one end at most."""
        ends = Counter((event["id"], event.get("destination")) for event in self.gateway.events("delivered"))
        return [f"{count} ends of {part}" for part, count in ends.items() if count > 1]

    def forget(self) -> None:
        """Begin anew: all that was sent has been accounted for."""
        self.mails.clear()
        self.inbox.received.clear()
        self.home.received.clear()

    def duplicates(self) -> int:
        """Count the copies too many."""
        return sum(count - 1 for count in self.arrived().values())


def _token(message: Received) -> str:
    found = _TOKEN.search(message.octets)
    assert found is not None, message.octets[:2000]
    return found[1].decode()


@contextlib.contextmanager
def scene(world: World, settings: Mapping[str, Value] | None = None, grey: float = 0.0) -> Iterator[Scene]:
    """Give a scene whose gateway has been started."""
    senders = world.host("client.test"), world.host("elsewhere.stranger.test")
    world.dns.add("sender.test", "TXT", f"v=spf1 ip4:{senders[0].address} -all")
    world.dns.add("stranger.test", "A", senders[1].address)
    gate = world.host("mx.forward.test")
    with (
        Hop(world, world.host("mx.inbox.test", "inbox.test")) as inbox,
        Hop(world, world.host("mx.sender.test", "sender.test", "owner.test")) as home,
        Gateway(world, gate, RULES, settings={**_SETTINGS, **(settings or {})}) as gateway,
    ):
        inbox.say(recipients=Moods(grey))
        yield Scene(world, gateway, inbox, home, senders)
