"""Rounds of the whole gateway: killed at a random moment under load, started again, settled, and held to its promises.

Senders, some authenticated and some not, send mails of their own at the same time, to inboxes that accept, put off and
refuse; one in a dozen is large. A sender that heard nothing comes again when the gateway is back.
"""

import random
import threading
import time
from collections.abc import Iterator

from tests.kill.rounds import Tally
from tests.kill.scene import Moods, Scene, scene
from tests.lab.world import loopback_world

LIVES = 20  # with one gateway, killed as often
_SENDERS = 4
_MAILS = 4  # of each sender in a round
_LATEST = 0.5  # seconds
_LARGE = 1_200_000
_IN_FLIGHT = 24  # letters that one lane of the runner or a sender can be at when death comes
_VICTIMS = {1: ("everything",), 2: ("parent", "worker", "worker", "everything")}


def campaigns(rounds: int, seed: int, lives: int = LIVES) -> Iterator[Tally]:
    """Run as many rounds as wanted, with one worker and with two in turn; give the tally so far after each campaign."""
    tally = Tally()
    for number, first in enumerate(range(0, rounds, lives)):
        with loopback_world() as world:
            mode = "queue" if number % 4 < 2 else "cutthrough"
            with scene(world, {"workers": 1 + number % 2, "delivery.mode": mode}, grey=0.5) as running:
                _campaign(running, random.Random(seed * 1_000_003 + first), min(lives, rounds - first), tally)
        yield tally
        if tally.problems:
            return


def _campaign(running: Scene, dice: random.Random, lives: int, tally: Tally) -> None:
    workers = max(1, len(running.gateway.workers()))
    for number in range(lives):
        before = running.duplicates()
        victim = dice.choice(_VICTIMS[workers])
        _round(running, dice, victim)
        problems = running.problems()
        if victim != "worker":  # the file of a worker that died is found at the next start, or by the sweep
            problems += [f"left over: {name}" for name in running.left_over()]
        copies = running.duplicates() - before
        problems += [f"{copies} second copies"] if copies > _IN_FLIGHT else []
        running.ask("delete", state="held") if running.queue("held") and not problems else None
        tally.rounds += 1
        tally.states[f"{victim}, {workers} worker(s)"] += 1
        tally.problems += [f"life {number}, {victim}: {problem}" for problem in problems]
        if problems:
            break
        _count(running, tally)
        running.forget()


def _count(running: Scene, tally: Tally) -> None:
    tally.acknowledged += sum(len(mail.mailboxes) for mail in running.mails if mail.code == 250)
    tally.duplicates += running.duplicates()


def _round(running: Scene, dice: random.Random, victim: str) -> None:
    moods = running.inbox.script.recipients
    assert isinstance(moods, Moods)
    moods.grey = 0.5
    threads = [threading.Thread(target=_send_many, args=(running, dice.getrandbits(60))) for _ in range(_SENDERS)]
    for thread in threads:
        thread.start()
    time.sleep(dice.random() * _LATEST)
    running.kill(victim)
    for thread in threads:
        thread.join()
    for mail in running.mails:
        if mail.code == 0:
            running.send(mail, stranger=mail.stranger)
    moods.grey = 0.0
    running.settle()


def _send_many(running: Scene, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(_MAILS):
        aliases = dice.sample(("good", "grey", "bad", "two", "three"), dice.randint(1, 2))
        mail = running.mail(*aliases, size=_LARGE if dice.random() < 0.08 else dice.randrange(3000))
        mail.stranger = dice.random() < 0.3
        running.send(mail, stranger=mail.stranger)
