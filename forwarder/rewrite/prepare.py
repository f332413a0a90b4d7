"""From accepted recipients to deliveries: every destination once, with our header lines for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.model.destination import Destination, Hop
from forwarder.model.envelope import Recipient
from forwarder.model.message import Delivery
from forwarder.rewrite import headers


@dataclass(frozen=True, slots=True)
class Routed:
    """A recipient of ours and where its mail goes."""

    recipient: Recipient
    destinations: tuple[Destination, ...]


def deliveries(
    routed: Sequence[Routed], trace: headers.Trace, results: bytes = b"", leave_out: frozenset[bytes] = frozenset()
) -> tuple[Delivery, ...]:
    """Give one delivery per mailbox and next hop, in the order of the recipients; the first alias names it.

    `results` is the Authentication-Results field, or nothing; fields of the names in `leave_out` are not added.
    """
    chosen: dict[tuple[tuple[str, str], Hop | None], Delivery] = {}
    for one in routed:
        address = one.recipient.address
        for destination in one.destinations:
            key = (destination.address.key, destination.via)
            if key not in chosen:
                head = headers.head(trace, headers.Way(address, destination.address), results, leave_out)
                chosen[key] = Delivery(address, destination, head, one.recipient.options)
    return tuple(chosen.values())
