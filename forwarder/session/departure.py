"""What leaves: the message as its destinations get it, with our header lines, signed and sealed.

`Departure` finds out what will be said of the message behind us and decides what is done about it (`course`); `message`
gives it, with From as it came or rewritten. Our DKIM signature says that a domain of ours answers for the message. For
one that claims to be from that very organisation it would make DMARC pass, whoever wrote it: so it is put on such mail
only where it was shown to be genuine at our door. ARC seals say what we saw, and go on everything.

Nothing here fails for what a message may hold. It costs no second pass over the body: its hash was made on arrival.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from forwarder.auth.dkim.canonical import BodyHashes
from forwarder.auth.dkim.choice import Candidate
from forwarder.auth.dkim.record import Signature
from forwarder.auth.dkim.verify import DkimStatus
from forwarder.auth.dmarc.from_header import Author, author_domain
from forwarder.auth.dmarc.organisation import is_within, public_organisation
from forwarder.auth.dmarc.verify import DmarcStatus
from forwarder.auth.foresight import Foresight, foresee, is_believed
from forwarder.auth.results import Authentication
from forwarder.model.address import Address
from forwarder.model.headers import Header, split_header
from forwarder.model.message import Content, Delivery, Outgoing, StrippedContent
from forwarder.policy.rewriting import Action, Course, Foreseen, decide
from forwarder.rewrite import headers, prepare
from forwarder.rewrite.author import Rewritten, Unwritable, rewrite_author
from forwarder.rewrite.seal import Stamp, seal
from forwarder.rewrite.sign import BODY, Signable, sign, signable
from forwarder.rewrite.signing_key import SigningKey
from forwarder.rewrite.survival import Change, named_by
from forwarder.session.gateway import Gateway

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


class Departure:
    """`envelope` is the message without content and deliveries; `routed` says where it goes, the first alias first."""

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
        self._held = held(evidence.candidates, evidence.found)
        self._deliveries = prepare.deliveries(routed, trace, evidence.results, unwelcome(self._held))
        self.foresight: Foresight = foresee(evidence.found, self._surviving, self._ours)
        self.course: Course = self._decided()

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """Who gets the message."""
        return self._deliveries

    @property
    def broken(self) -> Sequence[str]:
        """The domains whose signatures held on arrival and do not survive what we do to the header."""
        return [self._evidence.found.dkim[n].domain for n in self._held if n not in self._surviving]

    def message(self, *, rewritten: bool) -> Outgoing:
        """Give the message as it leaves; `rewritten`: with a From of ours."""
        ranges = self._evidence.forged
        changes: Mapping[Address, Rewritten] = {}
        if rewritten:
            changes = {alias: each for alias in self._aliases if isinstance(each := self._rewriting(alias), Rewritten)}
            ranges = tuple(sorted({*ranges, *(cut for each in changes.values() for cut in each.removed)}))
        content = self._evidence.content
        return replace(
            self._envelope,
            content=StrippedContent(content, ranges) if ranges else content,
            deliveries=self._dressed(changes, ranges),
        )

    # What is foreseen

    @cached_property
    def _surviving(self) -> frozenset[int]:
        head = self._deliveries[0].head if self._deliveries else b""
        return surviving(self._held, Change(self._evidence.header, head, self._evidence.forged))

    @cached_property
    def _aliases(self) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(delivery.recipient for delivery in self._deliveries))

    @property
    def _ours(self) -> frozenset[str]:
        """The domains of ours that sign every copy."""
        signing = [{key.domain for key in self._signers(alias.domain)} for alias in self._aliases]
        return frozenset(set.intersection(*signing)) if signing else frozenset()

    def _decided(self) -> Course:
        foresight = self.foresight
        foreseen = Foreseen(
            foresight.expected.value, foresight.policy.value, foresight.passed_here, foresight.author, foresight.reason
        )
        wishes = self._gateway.settings.rewriting
        course = decide(wishes, foreseen)
        if course.action is not Action.REWRITE:
            return course
        return decide(wishes, foreseen, self.hindrance)

    @property
    def hindrance(self) -> str:
        """Why From cannot be rewritten; "" when it can."""
        for alias in self._aliases:
            if alias.domain not in self._gateway.rules.domains:
                return f"{alias.domain} is no domain of yours"
            if not self._authors_keys(alias.domain):
                return f"no key signs for {alias.domain} that all receivers take for its own"
            if isinstance(outcome := self._rewriting(alias), Unwritable):
                return outcome.reason
        return ""

    def _rewriting(self, alias: Address) -> Rewritten | Unwritable:
        fallback = Address("postmaster", alias.domain)
        return rewrite_author(self._evidence.header, alias, fallback)

    # What is put on top

    def _dressed(self, changes: Mapping[Address, Rewritten], ranges: Ranges) -> tuple[Delivery, ...]:
        stamps: dict[tuple[str, bytes], bytes] = {}
        what: dict[bytes, Signable] = {}
        dressed = []
        for delivery in self._deliveries:
            change = changes.get(delivery.recipient)
            fields = change.fields if change else b""
            key = (delivery.recipient.domain, fields)
            if key not in stamps:
                if fields not in what:
                    after = Change(self._evidence.header, fields, ranges).after
                    what[fields] = signable(after, self._evidence.body_hash, self._time)
                stamps[key] = self._stamp(key[0], what[fields], rewritten=change is not None).octets
            dressed.append(replace(delivery, head=stamps[key] + delivery.head + fields))
        return tuple(dressed)

    def _stamp(self, domain: str, what: Signable, *, rewritten: bool) -> Stamp:
        signing = self._gateway.signing
        dkim = sign(self._authors_keys(domain) if rewritten else self._signers(domain), what)
        chain = self._evidence.found.arc
        sealer = next((key for key in signing.of(domain) if key.kind == "rsa"), None)
        if not signing.seal or chain is None or sealer is None:
            return Stamp(dkim)
        return Stamp(dkim, seal(sealer, chain, what, self._evidence.results, dkim))

    def _authors_keys(self, domain: str) -> Sequence[SigningKey]:
        """Give the keys that make DMARC pass for a From of ours: aligned with it, and RSA, which everybody verifies."""
        signing = self._gateway.signing
        if not signing.sign:
            return ()
        own = public_organisation(domain)
        return [key for key in signing.of(domain) if key.kind == "rsa" and public_organisation(key.domain) == own]

    def _signers(self, domain: str) -> Sequence[SigningKey]:
        """Give the keys that sign a copy for one domain of ours, From being as it came."""
        signing = self._gateway.signing
        if not signing.sign:
            return ()
        return [
            key for key in signing.of(domain) if not self._claims(key.domain) or (self._genuine and key.kind == "rsa")
        ]

    @cached_property
    def _author(self) -> Author:
        return author_domain(self._evidence.header)

    def _claims(self, domain: str) -> bool:
        """Whether the message claims to be from the organisation of a domain of ours, as some reader may see it."""
        author, dmarc = self._author, self._evidence.found.dmarc
        if not author.certain or (not author.domain and author.claimed and not author.named):
            return True
        claimed = (author.domain,) if author.domain else author.named
        organisation = dmarc.organisation if dmarc is not None and author.domain else ""
        return any(_are_related(each, domain, organisation) for each in claimed)

    @cached_property
    def _genuine(self) -> bool:
        """Whether who the message claims to be from has sent it."""
        found, author = self._evidence.found, self._author.domain
        if not author:
            return False
        if found.dmarc is not None and found.dmarc.status is not DmarcStatus.NONE:
            return found.dmarc.status is DmarcStatus.PASS
        shown = [each.domain for each in found.dkim if is_believed(each)]
        if found.spf is not None and found.spf.authenticated_domain:
            shown.append(found.spf.authenticated_domain)
        return any(public_organisation(each) == public_organisation(author) for each in shown)


def _are_related(author: str, domain: str, organisation: str) -> bool:
    """Say whether some receiver may take both for one organisation; `organisation` is the author's by the tree walk."""
    if is_within(author, domain) or is_within(domain, author):
        return True
    if public_organisation(author) == public_organisation(domain):
        return True
    if organisation:  # a suffix with a record, as of github.io, is one for the walk unless it says psd=y
        return is_within(domain, organisation)
    return author.split(".")[-2:] == domain.split(".")[-2:]  # it was not found out: the most that a walk could join


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
