"""Will DMARC pass at the destination, once we have forwarded the message?

`foresee` takes what was found at our door and which DKIM signatures are still good when the message leaves. SPF never
helps: SRS puts a domain of ours in the place of the sender's, so what passes behind us is not aligned with From. Only
a DKIM signature carries a message over, and "passes" is said of it only if everybody will see it so:

- it passed here, and no part of the body is outside of it (l=): whoever wrote that part is not known;
- it survives what we do to the header, as the caller found out (`rewrite.survival`);
- its d= is aligned with From (adkim=) under the tree walk of RFC 9989 4.10 and under the public suffix list, as
  receivers go by the one or the other.

A signature that we make ourselves counts in the same way: mail that claims to be from a domain that we sign for.

The alignment under the tree walk is read off the `DmarcResult`, so nothing is asked of DNS again. It says that d= of
some signature is aligned, not which: where several names below the author's organisation signed, all of them are taken
for aligned. They could differ only by a psd= record at one of these very names. A published record that was too long
to be kept whole counts as adkim=s, unless the check shows that it is not.

Nothing fails. Left out on purpose: what is done about it (`policy.rewriting`), ARC, which receivers heed as they like,
and lists or gateways behind the destination.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc.organisation import is_within, public_organisation
from forwarder.auth.dmarc.record import Alignment, Policy, parse_record
from forwarder.auth.dmarc.verify import DmarcResult, DmarcStatus
from forwarder.auth.results import Authentication
from forwarder.model.headers import Header

_DMARC_PASS = re.compile(rb";[ \t]*dmarc=pass(?![^ \t;])")  # no text of a stranger in there holds "dmarc="
_SHOWN = 3  # signatures that a reason speaks of
_CUT = "..."
_ED25519 = "ed25519-sha256"


class Expectation(Enum):
    """What DMARC will say there."""

    PASS = "pass"  # noqa: S105 - a signature carries the message over
    FAIL = "fail"  # none does
    NONE = "none"  # no policy is published for the author's domain, or DMARC is not checked here


@dataclass(frozen=True, slots=True)
class Foresight:
    """What DMARC will say at the destination. `reason` is printable ASCII in plain words, never empty.

    `carrier` is d= of the signature that carries the message, "" unless `expected` is PASS. `passed_here` says that
    DMARC passed at our door: only then is a failure there our doing. `policy` is what the author's domain asks for
    mail that fails; `author` is that domain, "" where there is none.
    """

    expected: Expectation
    reason: str
    author: str = ""
    policy: Policy = Policy.NONE
    passed_here: bool = False
    carrier: str = ""

    @property
    def matters(self) -> bool:
        """Whether the author's domain asks that something be done with mail that fails."""
        return self.policy is not Policy.NONE


def foresee(found: Authentication, surviving: Collection[int], ours: Collection[str] = ()) -> Foresight:
    """Say what DMARC will say behind us.

    `surviving` are the places in `found.dkim` of the signatures that what we do to the message leaves as they were;
    whether these passed here need not be known. `ours` are d= of the signatures that we put on it.
    """
    result = found.dmarc
    if result is None:
        return Foresight(Expectation.NONE, "DMARC is not checked here")
    if result.status is DmarcStatus.NONE:
        return Foresight(Expectation.NONE, result.reason, result.from_domain)
    aligned = _Alignment(result, found.dkim)
    carrier, reason = _carried(aligned, found.dkim, surviving, ours)
    if not carrier:
        reason = _failure(aligned, result, found.dkim, surviving)
    expected = Expectation.PASS if carrier else Expectation.FAIL
    passed_here = result.status is DmarcStatus.PASS
    return Foresight(expected, reason, result.from_domain, result.policy, passed_here, carrier)


def passed_at_our_door(ours: Header) -> bool:
    """Read in fields that this gateway has written (`auth.results`), and nobody else, whether DMARC passed here."""
    written = (*ours.all(b"authentication-results"), *ours.all(b"arc-authentication-results"))
    return any(_DMARC_PASS.search(field.value) for field in written)


def is_believed(signature: DkimResult) -> bool:
    """Say whether a signature speaks for the whole message as it came."""
    return signature.status is DkimStatus.PASS and not signature.body_extended


class _Alignment:
    """Which domains are aligned with the author's."""

    __slots__ = ("_relaxed", "_result")

    def __init__(self, result: DmarcResult, signatures: Sequence[DkimResult]) -> None:
        self._result = result
        self._relaxed = _is_relaxed(result, signatures)

    def by_check(self, domain: str) -> bool:
        """Say whether the check at our door took a signature of that domain for aligned."""
        return self._result.aligned_dkim and self.by_walk(domain)

    def by_walk(self, domain: str) -> bool:
        """Compare under the tree walk (RFC 9989 4.10.2)."""
        if domain == self._result.from_domain:
            return bool(domain)
        organisation = self._result.organisation
        return self._relaxed and bool(organisation) and is_within(domain, organisation)

    def by_list(self, domain: str) -> bool:
        """Compare what is aligned under the tree walk under the public suffix list as well."""
        author = self._result.from_domain
        return domain == author or public_organisation(domain) == public_organisation(author)


def _is_relaxed(result: DmarcResult, signatures: Sequence[DkimResult]) -> bool:
    """Read adkim=; where the record was cut, it shows in what the check took for aligned."""
    if result.published.endswith(_CUT):
        itself = any(is_believed(each) and each.domain == result.from_domain for each in signatures)
        return result.aligned_dkim and not itself
    record = parse_record(result.published.encode())
    return record is not None and record.dkim is Alignment.RELAXED


def _carried(
    aligned: _Alignment, signatures: Sequence[DkimResult], surviving: Collection[int], ours: Collection[str]
) -> tuple[str, str]:
    """Give d= of the best signature that carries the message, and why; "" where none does."""
    good = [each for n, each in enumerate(signatures) if n in surviving and is_believed(each)]
    carriers = [each for each in good if aligned.by_check(each.domain) and aligned.by_list(each.domain)]
    for each in carriers:
        if each.algorithm != _ED25519:
            return each.domain, f"the signature of {each.domain} survives and is aligned"
    for domain in sorted(ours):
        if aligned.by_walk(domain) and aligned.by_list(domain):
            return domain, f"our own signature of {domain} is aligned"
    if carriers:  # RFC 8463: by the standard it passes; the biggest receivers verify RSA alone
        return carriers[0].domain, f"only an Ed25519 signature of {carriers[0].domain} survives, which not all can read"
    return "", ""


def _failure(
    aligned: _Alignment, result: DmarcResult, signatures: Sequence[DkimResult], surviving: Collection[int]
) -> str:
    """Say why nothing carries the message over."""
    if result.status is not DmarcStatus.PASS:
        return f"it does not pass here either: {result.reason}"
    told = "; ".join(islice(_obstacles(aligned, result.from_domain, signatures, surviving), _SHOWN))
    if not result.aligned_spf:
        return told or "no signature that is aligned survives"
    lost = "SPF does not survive forwarding"
    return f"{told}; and {lost}" if told else f"only SPF passed here, and {lost}"


def _obstacles(
    aligned: _Alignment, author: str, signatures: Sequence[DkimResult], surviving: Collection[int]
) -> Iterator[str]:
    """Say of each signature that passed here what keeps it from carrying the message."""
    for n, each in enumerate(signatures):
        name = f"the signature of {each.domain}"
        if each.status is not DkimStatus.PASS:
            continue
        if each.body_extended:
            yield f"{name} leaves out the end of the body (l=)"
        elif not aligned.by_check(each.domain):
            yield f"{name} is not aligned with {author}"
        elif not aligned.by_list(each.domain):
            yield f"{name} does not align with {author} under the public suffix list"
        elif n not in surviving:
            yield f"{name} does not survive what is done to the header here"
