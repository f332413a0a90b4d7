"""What a message's own octets may make us refuse: loops, header sections that nothing can be put in front of, that
are too large, or that are not what the operator demands (`policy.demands`).

Each check gives the reply to send, or None. The octets themselves (bare CR, LF, NUL) are judged while they arrive, in
`smtp.inbound`. Left out on purpose: whether the content is wanted.
"""

from dataclasses import dataclass, field

from forwarder.model.headers import MAX_FIELDS, Header
from forwarder.model.reply import Reply
from forwarder.policy.demands import Demands, unmet


@dataclass(frozen=True, slots=True)
class ContentLimits:
    """`header_size` and `field_size` (0: no limit) in octets, `hops` in Received lines."""

    header_size: int = 1_000_000
    hops: int = 50  # RFC 5321 6.3 asks for a large number, at least 100 in older texts; real paths are below 20
    header_fields: int = MAX_FIELDS
    field_size: int = 0
    demands: Demands = field(default_factory=Demands)


def objection(head: bytes, header: Header, limits: ContentLimits) -> Reply | None:
    """Say why a message that begins with `head` cannot be relayed to anybody, if it cannot.

    `head` is one octet longer than the largest header section, or the whole message; `header` is what it splits into.
    """
    if head[:1] in (b" ", b"\t"):
        # Put behind our own lines it would continue the last of them (RFC 5322 2.2.3).
        return Reply(554, "5.6.0", "The message begins with white space, so it has no header: add one")
    if reply := _too_large(head, header, limits):
        return reply
    if len(header.all(b"received")) > limits.hops:  # RFC 5321 6.3
        return Reply(554, "5.4.6", f"Mail loop: the message has passed through more than {limits.hops} servers")
    if reason := unmet(header, limits.demands):
        return Reply(550, "5.7.1", f"The message is not as RFC 5322 3.6 wants it: {reason}")
    return None


def _too_large(head: bytes, header: Header, limits: ContentLimits) -> Reply | None:
    if header.size > limits.header_size or (not header.complete and len(head) > limits.header_size):
        return Reply(552, "5.3.4", f"The header section is longer than {limits.header_size} octets")
    most = min(limits.header_fields, MAX_FIELDS)  # more were not split
    if len(header.fields) > most:
        return Reply(552, "5.3.4", f"The header section has more than {most} fields")
    if limits.field_size and any(len(each.raw) > limits.field_size for each in header.fields):
        return Reply(552, "5.3.4", f"A field of the header section is longer than {limits.field_size} octets")
    return None


def marks(header: Header) -> frozenset[bytes]:
    """Give the addresses that the message was already delivered to, as `mark` writes them."""
    return frozenset(field.value.lower() for field in header.all(b"delivered-to"))
