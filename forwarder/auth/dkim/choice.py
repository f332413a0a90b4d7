"""Which of a message's signatures are checked: ten at most, those that may matter to DMARC first.

A message may carry any number of signatures, and each costs a DNS question and a public-key operation (RFC 6376
8.4, 8.5). The first `EXAMINED` fields from the top are read; the rest, and what is not among the chosen, is not spoken
of in any result. Nothing fails: what is not a signature is chosen as the `SignatureError` that says why.

Left out on purpose: who the author really is. The domains taken from From only put the signatures in order, so a guess
will do; whether a signature is aligned is for DMARC to say.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forwarder.auth.dkim.record import Signature, SignatureError, parse_signature
from forwarder.model.address import AddressError, canonical_name
from forwarder.model.headers import Field, Header

CHECKED = 10
EXAMINED = 200
_AUTHORS = 20
_LOOKED_AT = 10_000  # octets of a From field

_AUTHOR_DOMAIN = re.compile(r"@([^\s<>(),;:\"@\[\]]+)")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One DKIM-Signature field and what it was read as."""

    field: Field
    signature: Signature | SignatureError


def choose(header: Header) -> tuple[Candidate, ...]:
    """Give the signatures to check: of the domain in From, then of its relatives, then others; the topmost first."""
    candidates = [Candidate(field, _read(field)) for field in header.all(b"dkim-signature")[:EXAMINED]]
    if len(candidates) > CHECKED:
        authors = _author_domains(header)
        candidates.sort(key=lambda candidate: _distance(candidate.signature, authors))
    return tuple(candidates[:CHECKED])


def key_names(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Give the names whose TXT records hold the keys, for asking ahead; each once."""
    read = (candidate.signature for candidate in candidates)
    return tuple(dict.fromkeys(each.key_name for each in read if isinstance(each, Signature)))


def _read(field: Field) -> Signature | SignatureError:
    try:
        return parse_signature(field.value)
    except SignatureError as error:
        return error


def _author_domains(header: Header) -> list[list[str]]:
    """Give the domains in From, each as its labels from the right."""
    found = []
    for field in header.all(b"from")[:_AUTHORS]:
        for text in _AUTHOR_DOMAIN.findall(field.value[:_LOOKED_AT].decode(errors="replace"))[:_AUTHORS]:
            try:
                found.append(canonical_name(text).split(".")[::-1])
            except AddressError:
                continue
    return found[:_AUTHORS]


def _distance(signature: Signature | SignatureError, authors: Sequence[list[str]]) -> int:
    """Say 0 for a domain in From, 1 for one that may be of the same organisation, 2 for any other."""
    if isinstance(signature, SignatureError):
        return 2
    labels = signature.domain.split(".")[::-1]
    if labels in authors:
        return 0
    # The part in common must be more than a top-level domain; an ancestor of From may be one itself (RFC 9989 psd=y).
    return 1 if any(labels[:2] == author[:2] or labels == author[: len(labels)] for author in authors) else 2
