"""Which keys of ours sign a copy of a message, by the domain of the alias that it came for.

A DKIM signature says that d= answers for the message. For one that claims to be from that very organisation it would
make DMARC pass, whoever wrote it: so it is put on such mail only where it was shown to be genuine at our door. "Claims"
is what any lenient reader may see in a malformed From. With a From of ours in place it is the other way round: only
keys that make DMARC pass for it are any good (`authors_keys`).

Nothing here fails.
"""

from collections.abc import Sequence
from functools import cached_property

from forwarder.auth.dmarc.from_header import Author, author_domain
from forwarder.auth.dmarc.organisation import is_within, public_organisation
from forwarder.auth.dmarc.verify import DmarcStatus
from forwarder.auth.foresight import is_believed
from forwarder.auth.results import Authentication
from forwarder.model.headers import Header
from forwarder.rewrite.signing_key import SigningKey
from forwarder.session.gateway import Signing


def authors_keys(signing: Signing, domain: str) -> Sequence[SigningKey]:
    """Give the keys that make DMARC pass for a From at `domain`: aligned with it, and RSA, which everybody verifies."""
    if not signing.sign:
        return ()
    own = public_organisation(domain)
    return [key for key in signing.of(domain) if key.kind == "rsa" and public_organisation(key.domain) == own]


class Signatories:
    """The keys for one message, which has From as it came."""

    def __init__(self, signing: Signing, header: Header, found: Authentication) -> None:
        self._signing = signing
        self._header = header
        self._found = found
        self._known: dict[str, Sequence[SigningKey]] = {}

    def of(self, domain: str) -> Sequence[SigningKey]:
        """Give the keys that sign the copies for one domain of ours."""
        if domain not in self._known:
            keys = self._signing.of(domain) if self._signing.sign else ()
            self._known[domain] = [key for key in keys if self._may_sign(key)]
        return self._known[domain]

    def _may_sign(self, key: SigningKey) -> bool:
        return not self._claims(key.domain) or (self._genuine and key.kind == "rsa")

    @cached_property
    def _author(self) -> Author:
        return author_domain(self._header)

    def _claims(self, domain: str) -> bool:
        """Whether the message claims to be from the organisation of a domain of ours, as some reader may see it."""
        author, dmarc = self._author, self._found.dmarc
        if not author.certain or (not author.domain and author.claimed and not author.named):
            return True
        claimed = (author.domain,) if author.domain else author.named
        organisation = dmarc.organisation if dmarc is not None and author.domain else ""
        return any(_are_related(each, domain, organisation) for each in claimed)

    @cached_property
    def _genuine(self) -> bool:
        """Whether who the message claims to be from has sent it."""
        found, author = self._found, self._author.domain
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
