"""Which lane a delivery goes in, and when an outcome speaks of the whole lane. Pure."""

from forwarder.model.letter import Letter, Part, Waiting, lane_named
from forwarder.model.message import Delivery
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.ruling import Scope

# RFC 3463 3.5: no answer from the host, the directory server failed, unable to route. Not congestion (4.4.5), which
# is ours, and not a connection that broke (4.4.2), which may be the message's doing.
_UNREACHABLE = frozenset(("4.4.1", "4.4.3", "4.4.4"))
_WIDE = frozenset((Scope.DESTINATION, Scope.ADDRESS))


def lane_of(delivery: Delivery) -> str:
    """Name the lane of a delivery: its explicit hop, or else its domain."""
    return str(delivery.destination.via or delivery.destination.address.domain)


def waiting_of(letter: Letter, number: int) -> Waiting:
    """Give what a schedule needs to know of one part."""
    message = letter.message
    lane = lane_named(lane_of(message.deliveries[number]), letter.kind)
    return Waiting(Part(message.id, number), lane, letter.progress[number], message.authenticated)


def speaks_of_lane(outcome: Outcome) -> bool:
    """Say whether any other message to the same lane would have fared the same."""
    if outcome.verdict in (Verdict.DELIVERED, Verdict.RUNNING, Verdict.UNTRIED):
        return False
    ruling = outcome.ruling
    if ruling and ruling.scope in _WIDE and outcome.wait > 0:
        return not ruling.elsewhere  # another source address may fare better
    nobody_reached = not outcome.remote and not outcome.relay
    return nobody_reached and outcome.verdict is Verdict.DEFERRED and outcome.reply.enhanced in _UNREACHABLE
