"""What leaves: the message as its destinations get it, with our header lines, signed and sealed.

`Departure` finds out what will be said of the message behind us and decides what is done about it, for each alias that
it came for (`prospects`); `messages` gives what is to be sent, `rewritten` some of it again with a From of ours. Which
keys sign is `session.signatories`. ARC seals say what we saw, and go on everything.

One alias has one prospect, however many destinations it leads to: their copies differ in what X-Forwarded-To and
X-Forwarded-For say, and neither is there where a signature that could carry the message names it. Two aliases may
differ in which domain of ours signs, and in whether we may write a From for them.

Nothing here fails for what a message may hold. It costs no second pass over the body: its hash was made on arrival.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from forwarder.auth.dkim.canonical import BodyHashes
from forwarder.auth.dkim.choice import Candidate
from forwarder.auth.dkim.record import Signature
from forwarder.auth.dkim.verify import DkimStatus
from forwarder.auth.foresight import Foresight, foresee
from forwarder.auth.results import Authentication
from forwarder.model.address import Address
from forwarder.model.headers import Header, split_header
from forwarder.model.message import Content, Delivery, Outgoing, StrippedContent
from forwarder.model.reply import Reply
from forwarder.policy.rewriting import Action, Course, Foreseen, decide
from forwarder.rewrite import headers, prepare
from forwarder.rewrite.author import Rewritten, Unwritable
from forwarder.rewrite.seal import Stamp, seal
from forwarder.rewrite.sign import BODY, Signable, sign, signable
from forwarder.rewrite.survival import Change, named_by
from forwarder.session.gateway import Gateway
from forwarder.session.signatories import Signatories, authors_keys
from forwarder.session.substitutes import Substitutes

_OPTIONAL = frozenset((b"x-forwarded-to", b"x-forwarded-for", b"delivered-to", b"authentication-results"))

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A message that may go on, and what is known of it.

    `candidates` are the signatures that came with it, one for each of `found.dkim`; `body_hash` is the SHA-256 of the
    relaxed body; `forged` are the octet ranges that claim to be our word; `results` is our Authentication-Results.
    """

    content: Content
    header: Header
    found: Authentication
    candidates: Sequence[Candidate]
    body_hash: bytes
    forged: Ranges
    results: bytes


Held = Mapping[int, tuple[bytes, Signature]]  # by its place in `found.dkim`: the field, and what it says


def held(candidates: Sequence[Candidate], found: Authentication) -> Held:
    """Give the signatures that held on arrival."""
    return {
        n: (each.field.raw, each.signature)
        for n, (each, result) in enumerate(zip(candidates, found.dkim, strict=False))
        if result.status is DkimStatus.PASS and isinstance(each.signature, Signature)
    }


def unwelcome(signatures: Held) -> frozenset[bytes]:
    """Give the names of fields of ours that would break one of them, and that we can do without."""
    return named_by(signature for _, signature in signatures.values()) & _OPTIONAL


def surviving(signatures: Held, change: Change) -> frozenset[int]:
    """Give the places of those that hold after the change."""
    return frozenset(n for n, (raw, signature) in signatures.items() if change.keeps(raw, signature))


def plainly(foresight: Foresight) -> Foreseen:
    """Give what is foreseen in the plain values that `policy.rewriting` decides by."""
    return Foreseen(
        foresight.expected.value, foresight.policy.value, foresight.passed_here, foresight.author, foresight.reason
    )


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is foreseen of the copies for one alias, and what is done about it."""

    foresight: Foresight
    course: Course


class Departure:
    """`envelope` is the message without content and deliveries; `routed` says where it goes, the first alias first.

    `prospects` are by alias, `deliveries` are without signatures and seals.
    """

    def __init__(
        self,
        gateway: Gateway,
        evidence: Evidence,
        trace: headers.Trace,
        routed: Sequence[prepare.Routed],
        envelope: Outgoing,
    ) -> None:
        self._gateway = gateway
        self._evidence = evidence
        self._envelope = envelope
        self._time = int(trace.received.timestamp())
        self._signatories = Signatories(gateway.signing, evidence.header, evidence.found)
        self._substitutes = Substitutes(gateway.signing, gateway.rules.domains, evidence.header)
        self._held = held(evidence.candidates, evidence.found)
        leave_out = unwelcome(self._held)
        self.deliveries = prepare.deliveries(routed, trace, evidence.results, leave_out)
        self._foresights: dict[frozenset[str], Foresight] = {}
        aliases = dict.fromkeys(one.recipient.address for one in routed)
        self.prospects: Mapping[Address, Prospect] = {alias: self._prospect(alias) for alias in aliases}
        if refused := self.refused:  # where two aliases lead to one mailbox, one that may go names the delivery
            last = sorted(routed, key=lambda one: one.recipient.address in refused)
            self.deliveries = prepare.deliveries(last, trace, evidence.results, leave_out)

    @cached_property
    def refused(self) -> Mapping[Address, Reply]:
        """The aliases whose copies must not go, and why."""
        courses = ((alias, each.course) for alias, each in self.prospects.items())
        return {alias: course.reply for alias, course in courses if course.reply is not None}

    @property
    def broken(self) -> Sequence[str]:
        """The domains whose signatures held on arrival and do not survive what we do to the header."""
        return [self._evidence.found.dkim[n].domain for n in self._held if n not in self._surviving]

    @cached_property
    def whole(self) -> Outgoing:
        """The message for everybody, as it is recognised when it comes again; not to be sent."""
        return replace(self._envelope, content=self._evidence.content, deliveries=self.deliveries)

    def messages(self) -> tuple[Outgoing, ...]:
        """Give the message as it leaves: two if From is rewritten in some copies only, which have their own id."""
        ours: list[Delivery] = []
        rest: list[Delivery] = []
        for each in self.deliveries:
            action = self.prospects[each.recipient].course.action
            (ours if action is Action.REWRITE else rest).append(each)
        if not ours:
            return (self._untouched(rest),)
        if not rest:
            return (self._substituted(ours, self._envelope.id),)
        return self._untouched(rest), self._substituted(ours, self._gateway.new_id())

    def may_rewrite(self, alias: Address) -> bool:
        """Whether copies for an alias that passed here and went with From as it came could have a From of ours."""
        prospect = self.prospects[alias]
        is_untouched = prospect.course.action is not Action.REWRITE
        return is_untouched and prospect.foresight.passed_here and isinstance(self._substitutes.of(alias), Rewritten)

    def rewritten(self, some: Collection[Delivery]) -> Outgoing:
        """Give some copies of a message that was sent, with a From of ours and an id of their own."""
        wanted = {(each.recipient, each.destination) for each in some}
        again = [each for each in self.deliveries if (each.recipient, each.destination) in wanted]
        return self._substituted(again, self._gateway.new_id())

    # What is foreseen

    @cached_property
    def _surviving(self) -> frozenset[int]:
        """Those that hold on any copy: all have lines of the same names on top."""
        if not self._held:
            return frozenset()
        head = self.deliveries[0].head if self.deliveries else b""
        return surviving(self._held, Change(self._evidence.header, head, self._evidence.forged))

    def _prospect(self, alias: Address) -> Prospect:
        ours = frozenset(key.domain for key in self._signatories.of(alias.domain))
        if ours not in self._foresights:
            self._foresights[ours] = foresee(self._evidence.found, self._surviving, ours)
        foresight = self._foresights[ours]
        return Prospect(foresight, self._course(alias, foresight))

    def _course(self, alias: Address, foresight: Foresight) -> Course:
        foreseen, wishes = plainly(foresight), self._gateway.settings.rewriting
        course = decide(wishes, foreseen)
        if course.action is Action.REWRITE and isinstance(found := self._substitutes.of(alias), Unwritable):
            return decide(wishes, foreseen, found.reason)
        return course

    # What is put on top

    def _untouched(self, deliveries: Sequence[Delivery]) -> Outgoing:
        """Give copies that have From as it came."""
        forged = self._evidence.forged
        header = Change(self._evidence.header, b"", forged).after if forged else self._evidence.header
        what = signable(header, self._evidence.body_hash, self._time)
        stamps: dict[str, bytes] = {}
        dressed = []
        for each in deliveries:
            domain = each.recipient.domain
            if domain not in stamps:
                stamps[domain] = self._stamp(domain, sign(self._signatories.of(domain), what), what)
            dressed.append(replace(each, head=stamps[domain] + each.head))
        return self._outgoing(self._envelope.id, dressed, forged)

    def _substituted(self, deliveries: Sequence[Delivery], id: str) -> Outgoing:
        """Give copies that have a From of ours; their aliases can have one."""
        found = {each.recipient: self._substitutes.of(each.recipient) for each in deliveries}
        changes = {alias: change for alias, change in found.items() if isinstance(change, Rewritten)}
        cuts = {*self._evidence.forged, *(cut for change in changes.values() for cut in change.removed)}
        ranges = tuple(sorted(cuts))
        tops = {alias: self._top(alias.domain, change.fields, ranges) for alias, change in changes.items()}
        dressed = [
            replace(each, head=tops[each.recipient] + each.head + changes[each.recipient].fields) for each in deliveries
        ]
        return self._outgoing(id, dressed, ranges)

    def _top(self, domain: str, fields: bytes, ranges: Ranges) -> bytes:
        """Sign and seal for a domain what has these fields of ours in the place of some ranges."""
        after = Change(self._evidence.header, fields, ranges).after
        what = signable(after, self._evidence.body_hash, self._time)
        return self._stamp(domain, sign(authors_keys(self._gateway.signing, domain), what), what)

    def _stamp(self, domain: str, dkim: bytes, what: Signable) -> bytes:
        signing = self._gateway.signing
        chain = self._evidence.found.arc
        sealer = next((key for key in signing.of(domain) if key.kind == "rsa"), None)
        if not signing.seal or chain is None or sealer is None:
            return Stamp(dkim).octets
        return Stamp(dkim, seal(sealer, chain, what, self._evidence.results, dkim)).octets

    def _outgoing(self, id: str, deliveries: Sequence[Delivery], ranges: Ranges) -> Outgoing:
        content = self._evidence.content
        stripped = StrippedContent(content, ranges) if ranges else content
        return replace(self._envelope, id=id, content=stripped, deliveries=tuple(deliveries))


def sign_own(gateway: Gateway, message: Outgoing) -> Outgoing:
    """Sign a message of our own, which is small: its From is at our host name."""
    keys = [key for key in gateway.signing.near(gateway.settings.hostname) if key.kind == "rsa"]
    if not gateway.signing.sign or not keys:
        return message
    octets = b"".join(message.content.chunks())
    header = split_header(octets)
    body = BodyHashes((BODY,))
    body.feed(octets[header.size + len(b"\r\n") :])
    body.finish()
    digest = body.digest(BODY)
    assert digest is not None
    field = sign(keys, signable(header, digest.digest, int(gateway.clock.now().timestamp())))
    return replace(message, deliveries=tuple(replace(each, head=field + each.head) for each in message.deliveries))
