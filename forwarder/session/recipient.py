"""Where mail for one address goes: SRS of ours, the rules, or the few addresses that every mail host has.

Nothing else is ever relayed: an address that none of the three knows is refused.
"""

from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.reply import Reply
from forwarder.rewrite.srs import SrsError
from forwarder.rules import Decision, Forward, NotServed, Refuse
from forwarder.session.gateway import Gateway

_ROLES = frozenset({"postmaster", "abuse"})  # RFC 5321 4.5.1, RFC 2142


def resolve(gateway: Gateway, recipient: Address, sender: Address | None) -> Decision:
    """Decide about one RCPT."""
    if gateway.srs.is_ours(recipient):
        return _returned(gateway, recipient, sender)
    decision = _local(gateway, recipient, sender)
    if not isinstance(decision, NotServed):
        return decision
    return Refuse(Reply(550, "5.7.1", f"Mail for {recipient.domain} is not handled here"), ())


def _returned(gateway: Gateway, recipient: Address, sender: Address | None) -> Decision:
    """Send what comes back to an SRS address on to the original sender, whose domain may be one of ours."""
    try:
        original = gateway.srs.decode(recipient, gateway.day)
    except SrsError as error:
        return Refuse(Reply(550, "5.1.1", f"This return address is not valid: {error}"), ())
    decision = _local(gateway, original, sender)
    return Forward((Destination(original),), (), ()) if isinstance(decision, NotServed) else decision


def _local(gateway: Gateway, address: Address, sender: Address | None) -> Decision:
    """Decide about an address of a domain that we serve, or of this host itself."""
    today = gateway.clock.now().date()
    decision = gateway.rules.resolve(address, sender, today)
    if not isinstance(decision, NotServed) or address.domain not in (gateway.settings.hostname, gateway.srs.domain):
        return decision
    if address.key[0] not in _ROLES:
        return Refuse(Reply(550, "5.1.1", f"There is no mailbox <{address}> here"), ())
    postmaster = gateway.settings.postmaster
    decision = gateway.rules.resolve(postmaster, sender, today)
    return Forward((Destination(postmaster),), (), ()) if isinstance(decision, NotServed) else decision
