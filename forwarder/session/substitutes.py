"""A From of ours in the place of the author's: whether an alias can have one, and what it is.

It must help: a key has to sign that makes DMARC pass for it (`session.signatories`), and the domain must be one that
we serve, so that somebody reads what is answered: an SRS address stands for a stranger. Then it is `rewrite.author`'s,
with the postmaster where the alias itself cannot stand in a header.

Nothing here fails. Each alias is worked out once.
"""

from collections.abc import Container

from forwarder.model.address import Address
from forwarder.model.headers import Header
from forwarder.rewrite.author import Rewritten, Unwritable, rewrite_author
from forwarder.session.gateway import Signing
from forwarder.session.signatories import authors_keys


class Substitutes:
    """Those of one message; `served` are the domains of the rules."""

    def __init__(self, signing: Signing, served: Container[str], header: Header) -> None:
        self._signing = signing
        self._served = served
        self._header = header
        self._known: dict[Address, Rewritten | Unwritable] = {}

    def of(self, alias: Address) -> Rewritten | Unwritable:
        """Give what is done to the header, or why From has to stay."""
        if alias not in self._known:
            self._known[alias] = self._made(alias)
        return self._known[alias]

    def _made(self, alias: Address) -> Rewritten | Unwritable:
        if alias.domain not in self._served:
            return Unwritable(f"{alias.domain} is no domain of yours")
        if not authors_keys(self._signing, alias.domain):
            return Unwritable(f"no key signs for {alias.domain} that all receivers take for its own")
        return rewrite_author(self._header, alias, Address("postmaster", alias.domain))
