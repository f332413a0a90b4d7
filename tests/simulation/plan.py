"""What a seed means: who sends what to whom, which hops are bad and how, when the disk, the clock and DNS fail, and how
processes end. All of it is drawn before the run begins.
"""

from dataclasses import dataclass, field
from random import Random

from forwarder.delivery.intervals import Intervals
from forwarder.model.address import parse_mailbox
from forwarder.rules import parse
from tests.simulation.disk import Spell
from tests.simulation.hops import Hop, Temper
from tests.simulation.world import DAY, HOUR, MINUTE, World

POSTMASTER = parse_mailbox("owner@owner.test")
BOXES = {  # our addresses and the mailboxes behind them
    "one": ("one@a.test",),
    "two": ("two@b.test",),
    "three": ("three@c.test",),
    "pair": ("left@a.test", "right@b.test"),
    "mate": ("mate@a.test",),
    "gone": ("gone@nowhere.test",),
    "dead": ("dead@d.test",),
    "nobody": ("nobody@b.test",),
}
_LIKELY = [alias for alias in BOXES for _ in range(1 if alias in ("gone", "dead", "nobody") else 3)]
RULES = parse(
    [("sim.rules", "[ours.test]\n" + "".join(f"{alias} -> {', '.join(to)}\n" for alias, to in BOXES.items()))],
    POSTMASTER,
)
_HOSTS = {
    "a.test": ("mx1.a.test", "mx2.a.test"),
    "b.test": ("mx1.b.test",),
    "c.test": ("alt1.google.com", "alt2.google.com"),
    "d.test": ("mx1.d.test",),
    "owner.test": ("mx1.owner.test",),
    "good.test": ("mx1.good.test",),
    "other.test": ("mx1.other.test",),
}
CLIENTS = {"good.test": "192.0.2.10", "other.test": "192.0.2.20"}  # those that SPF names


@dataclass(frozen=True)
class Ending:
    """When a process ends: at a step of its tasks, an operation of its disk, a reply, while it takes a message into
    custody, or after seconds; 0: not so. `after` counts from the beginning, or from the call of `keep`."""

    step: int = 0
    operation: int = 0
    reply: int = 0
    custody: int = 0
    after: float = 0.0
    orderly: bool = False


@dataclass(eq=False)
class Mail:
    """One message of one sender. `told` says whether a DSN may answer it; `client` is where it comes from."""

    token: str
    sender: str
    client: str
    aliases: tuple[str, ...]
    octets: bytes
    told: bool
    at: float
    patience: float
    vanishing: float


@dataclass
class Plan:
    """Everything that was drawn."""

    zone: dict[tuple[str, str], list[str]]
    hops: dict[str, Hop]
    mails: list[Mail]
    intervals: Intervals
    ends: float  # of all faults
    dns: list[tuple[float, float, float]] = field(default_factory=list)
    disk: list[Spell] = field(default_factory=list)
    jumps: list[tuple[float, float]] = field(default_factory=list)
    slowness: float = 0.0
    queue_first: bool = False
    endings: int = 0

    def ending(self, number: int, random: Random) -> Ending:
        """Draw how a process ends."""
        if number > self.endings:
            return Ending()
        match random.randrange(8):
            case 0:
                return Ending(step=random.randrange(1, 1500))
            case 1:
                return Ending(step=random.randrange(1, 200))
            case 5:
                return Ending(step=random.randrange(100, 600), orderly=True)
            case 2:
                return Ending(operation=random.randrange(1, 120))
            case 3:
                return Ending(reply=random.randrange(1, 4))
            case 4:
                return Ending(after=random.expovariate(1 / (2 * HOUR)) + 1)
            case 6:
                after = random.choice((0.0, 0.001, random.random()))
                return Ending(custody=random.choice((1, 1, 2)), after=after, orderly=random.random() < 0.7)
            case _:
                return Ending(after=random.expovariate(1 / (2 * HOUR)) + 1, orderly=True)

    def downtime(self, random: Random) -> float:
        """Draw how long nothing serves after a process has ended."""
        return random.choice((1.0, 1.0, 10.0, 10.0, MINUTE, 10 * MINUTE, 3 * HOUR)) if self.endings else 60.0


def draw(world: World) -> Plan:
    """Give the plan of a seed."""
    random = world.random("plan")
    large = random.random() < 0.002  # one of these costs as much as ten others
    expire = random.choice((6 * HOUR, DAY, 2 * DAY, 5 * DAY) if large else (2 * HOUR, 2 * HOUR, 6 * HOUR, DAY))
    seconds = random.choice(((60.0, 600.0, 3600.0, 4 * HOUR), (60.0, 300.0, 1800.0, 3 * HOUR)))
    ends = expire * random.choice((0.02, 0.02, 0.1, 0.1, 0.3, 0.3, 1.2))
    zone = _zone()
    plan = Plan(zone, _hops(world, random, ends, zone), [], Intervals(seconds, expire=expire), ends)
    plan.mails = [
        _mail(n, random, ends) for n in range(random.randrange(6, 20) if large else random.choice((1, 1, 1, 1, 2)))
    ]
    if random.random() < 0.25:
        plan.dns = _spans(random, ends, random.choice((0.2, 0.8, 1.0)))
    if random.random() < 0.35:
        kinds = ("full", "io", "sync", "short", "commit", "committed", "full", "io")
        plan.disk = [
            Spell(begin, end, random.choice(kinds), chance)
            for begin, end, chance in _spans(random, ends, random.choice((0.05, 0.3, 1.0)))
        ]
    if random.random() < 0.3:
        by = (3650 * DAY, -DAY, -3 * MINUTE, 2 * MINUTE, -365 * DAY, 6 * DAY)
        plan.jumps = sorted((random.random() * ends * 1.2, random.choice(by)) for _ in range(random.choice((1, 2))))
    plan.slowness = random.choice((0.0, 0.0, 0.0, 0.01, 0.5))
    plan.queue_first = random.random() < 0.25
    plan.endings = random.choice((0, 1, 1, 2, 3, 5))
    return plan


def _spans(random: Random, ends: float, chance: float) -> list[tuple[float, float, float]]:
    spans = []
    for _ in range(random.choice((1, 1, 2))):
        begin = random.choice((0.0, random.random() * ends))
        spans.append((begin, min(ends, begin + random.expovariate(1 / (ends / 3))), chance))
    return spans


def _zone() -> dict[tuple[str, str], list[str]]:
    zone: dict[tuple[str, str], list[str]] = {}
    number = 0
    for domain, hosts in _HOSTS.items():
        zone[domain, "MX"] = [f"{10 * (n + 1)} {host}" for n, host in enumerate(hosts)]
        for host in hosts:
            number += 1
            zone[host, "A"] = [f"198.51.100.{number}"]
    for domain, client in CLIENTS.items():
        zone[domain, "TXT"] = [f"v=spf1 ip4:{client} -all"]
    return zone


def _hops(world: World, random: Random, ends: float, zone: dict[tuple[str, str], list[str]]) -> dict[str, Hop]:
    hops = {}
    rough = random.random() < 0.85
    for domain, hosts in _HOSTS.items():
        for host in hosts:
            temper = _temper(random) if rough else Temper()
            hop = Hop(host, domain, world, world.random(host), temper, ends)
            hop.delay = random.choice((0.0, 0.0, 0.2, 3.0))
            hop.dead = domain == "d.test"
            if rough and random.random() < 0.2:
                begin = random.random() * ends
                hop.dying = (begin, begin + random.random() * ends)
            hop.grey = rough and random.random() < 0.1
            hop.tls, hop.dsn = random.random() < 0.2, random.random() < 0.2
            hop.nobody = frozenset(("nobody@b.test",))
            hops[zone[host, "A"][0]] = hop
    return hops


def _temper(random: Random) -> Temper:
    def some(most: float) -> float:
        return random.choice((0.0, 0.0, 0.2, 0.6, 1.0)) * most

    return Temper(some(0.7), some(0.6), some(0.2), some(0.6), some(0.4), some(0.7))


def _mail(number: int, random: Random, ends: float) -> Mail:
    domain = random.choice(("good.test", "good.test", "other.test"))
    kind = random.choice(("plain", "plain", "plain", "plain", "null", "list", "auto"))
    honest = random.random() < 0.7
    aliases = tuple(random.sample(_LIKELY, random.choice((1, 1, 1, 2, 2, 3))))
    aliases = tuple(dict.fromkeys(aliases))
    token = f"m{number}"
    lines = [f"From: writer@{domain}", "To: somebody@ours.test", f"Message-ID: <{token}@{domain}>", "Subject: hello"]
    lines += {"list": ["List-Id: <l.test>"], "auto": ["Auto-Submitted: auto-replied"]}.get(kind, [])
    lines += ["", f"body of {token}", ".", "..dots", "." * random.randrange(5), "x" * random.randrange(2000)]
    octets = "\r\n".join(lines).encode() + b"\r\n"
    if random.random() < 0.05:
        octets += b"more of it, \xff too\r\n" * random.randrange(20_000)
    return Mail(
        token=token,
        sender="" if kind == "null" else f"writer@{domain}",
        client=CLIENTS[domain] if honest else "203.0.113.9",
        aliases=aliases,
        octets=octets,
        told=honest and kind == "plain",
        at=random.choice((0.0, 1.0, random.random() * ends)),
        patience=random.choice((HOUR, 12 * HOUR, 12 * HOUR, 5 * DAY)),
        vanishing=random.choice((0.0, 0.0, 0.3)),
    )
