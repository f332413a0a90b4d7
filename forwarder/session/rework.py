"""A From of ours for mail in the queue that DMARC has refused behind us: the second offer, for senders who have gone.

`rework` makes of some deliveries of a letter a message that is to be offered in their place. It goes by what stands in
our own lines on top of them, as nothing else is known of the message any more:

- that DMARC passed at our door, in Authentication-Results, or in our ARC set where a signature keeps that field out;
- the body hash, in our signature: the content is not read again, however large. Mail that we did not sign, since the
  keys came later, is left alone;
- a From of ours, if there is one: what has been rewritten is never rewritten again.

From and our signature are made anew; the other lines stay, but for our ARC set, which is over the old From. There is no
new one: it would say what was seen of the chain on arrival, and that is gone.

A fault of ours, as of the disk, is logged, and then there is none. The digest stays that of what came in.
"""

from collections.abc import Sequence
from dataclasses import replace

from forwarder.auth.dkim.record import parse_signature
from forwarder.auth.foresight import passed_at_our_door
from forwarder.model.headers import Header, split_header
from forwarder.model.letter import Letter
from forwarder.model.message import Outgoing, StrippedContent
from forwarder.policy.rewriting import Rewriting
from forwarder.rewrite.author import Unwritable
from forwarder.rewrite.sign import BODY, sign, signable
from forwarder.rewrite.survival import Change
from forwarder.session.gateway import Gateway
from forwarder.session.signatories import authors_keys
from forwarder.session.substitutes import Substitutes

_SIGNED = b"dkim-signature"
_OUTDATED = frozenset((_SIGNED, b"arc-seal", b"arc-message-signature", b"arc-authentication-results"))


def rework(gateway: Gateway, letter: Letter, numbers: Sequence[int]) -> Outgoing | None:
    """Give the message, with an id of its own and a delivery for each of `numbers`, or None where it must not be.

    `numbers` are parts that came for one address of ours. Never raises: that they were refused has to be recorded.
    """
    try:
        return _reworked(gateway, letter, numbers)
    except Exception as error:  # noqa: BLE001,RUF100 - whatever it is, the sender can still be told of the refusal
        reason = f"no From of ours could be written: {type(error).__name__}: {error}"
        gateway.log.event("alert", id=letter.message.id, reason=reason)
        return None


def _reworked(gateway: Gateway, letter: Letter, numbers: Sequence[int]) -> Outgoing | None:
    message = letter.message
    deliveries = [message.deliveries[number] for number in numbers]
    top = split_header(deliveries[0].head)
    body_hash = _body_hash(top)
    is_allowed = gateway.settings.rewriting.rewriting is not Rewriting.NEVER
    if not is_allowed or top.all(b"from") or not passed_at_our_door(top) or not body_hash:
        return None
    header = split_header(message.content.head(gateway.settings.content.header_size + 1))
    alias = deliveries[0].recipient
    change = Substitutes(gateway.signing, gateway.rules.domains, header).of(alias)
    if isinstance(change, Unwritable) or not header.complete:
        return None
    after = Change(header, change.fields, change.removed).after
    what = signable(after, body_hash, int(gateway.clock.now().timestamp()))
    signatures = sign(authors_keys(gateway.signing, alias.domain), what)
    return replace(
        message,
        id=gateway.new_id(),
        content=StrippedContent(message.content, change.removed),
        deliveries=tuple(replace(one, head=signatures + _kept(one.head) + change.fields) for one in deliveries),
    )


def _body_hash(top: Header) -> bytes:
    """Give the SHA-256 of the relaxed body as our own signature has it; b"" where there is none."""
    found = (parse_signature(field.value) for field in top.all(_SIGNED))
    return next((each.body_hash for each in found if each.body == BODY), b"")


def _kept(head: bytes) -> bytes:
    return b"".join(field.raw for field in split_header(head).fields if field.name not in _OUTDATED)
