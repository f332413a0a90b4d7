"""Who is left alone, until when, and in whose words. Pure; times are monotonic seconds.

A refusal sets a pause. While it lasts, refusals of what was begun before it ended make it longer only if they ask for
more; the first refusal of what was begun afterwards doubles it, up to the ruling's longest. A success of what was begun
afterwards makes all forgotten, and so does a day without either. At most `most` pauses are kept; the one that was set
longest ago is forgotten first.
"""

from collections import OrderedDict
from dataclasses import dataclass

from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.ports import Held
from forwarder.smtp.answers import quote

DAY = 86_400.0
SAID = 200  # characters of a provider's words that are quoted
Key = tuple[str, ...]


@dataclass(slots=True)
class Pause:
    """`why` says in our words whose wish it is, `said` quotes it; both are printable ASCII on one line."""

    until: float
    length: float
    why: str
    said: str = ""

    def held(self, now: float) -> Held:
        """Give what is told to who has to wait for its end."""
        return held(self.why, self.until - now, self.said)


class Pauses:
    """Pauses by key. It is false while there is none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pauses: OrderedDict[Key, Pause] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pauses)

    def items(self) -> list[tuple[Key, Pause]]:
        """Give all, also those that have ended and may still be doubled; the oldest first."""
        return list(self._pauses.items())

    def get(self, key: Key, now: float) -> Pause | None:
        """Give the pause that is in force."""
        pause = self._pauses.get(key)
        return pause if pause and now < pause.until else None

    def put(self, key: Key, pause: Pause) -> None:
        """Keep a pause."""
        self._pauses[key] = pause
        self._pauses.move_to_end(key)
        if len(self._pauses) > self._most:
            self._pauses.popitem(last=False)

    def refused(self, key: Key, wish: Pause, longest: float, begun: float) -> float:
        """Learn of a refusal of what was begun then, and of the pause that it asks for; give the pause's length."""
        known = self._pauses.get(key)
        now = wish.until - wish.length
        if known and begun < known.until:
            if known.until >= wish.until:
                return known.length
        elif known and now < known.until + DAY:
            wish.length = min(max(known.length * 2, wish.length), max(longest, wish.length))
            wish.until = now + wish.length
        self.put(key, wish)
        return wish.length

    def succeeded(self, key: Key, begun: float) -> None:
        """Learn of a success of what was begun then."""
        pause = self._pauses.get(key)
        if pause and begun >= pause.until:
            del self._pauses[key]


def wish(ruling: Ruling, reply: Reply, title: str, now: float) -> Pause:
    """Give the pause that a ruling asks for, before anything is known of earlier ones."""
    return Pause(now + ruling.pause, ruling.pause, _why(ruling, title), quote(reply, SAID))


def held(why: str, seconds: float, said: str = "") -> Held:
    """Put into words that something has to wait. RFC 3463 3.5: X.4.5 is congestion, and the sender comes again."""
    text = f"{why}: the next try is in {_span(seconds)}"
    return Held(Reply(451, "4.4.5", f"{text}; it said: {said}" if said else text), max(0.0, seconds))


def _why(ruling: Ruling, title: str) -> str:
    if ruling.fate is Fate.OURS and ruling.scope is not Scope.SENDER:
        return f"{title} takes no mail from us at present"
    return f"{title} {_WISHES[ruling.scope]}"


_WISHES = {
    Scope.MESSAGE: "has asked us to slow down",
    Scope.DESTINATION: "has asked us to slow down",
    Scope.ADDRESS: "has asked us to slow down",
    Scope.DOMAIN: "has asked us to slow down with this envelope sender's domain",
    Scope.SENDER: "has asked us to slow down with mail of this sender",
    Scope.MAILBOX: "has asked us to slow down with mail to this mailbox",
}


def _span(seconds: float) -> str:
    """Say it as people do, not more exactly than they would."""
    for size, name in ((3600, "hour"), (60, "minute")):
        if seconds > 1.5 * size:
            return _count(round(seconds / size), name)
    return _count(max(1, round(seconds)), "second")


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
