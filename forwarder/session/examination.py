"""The checks of one message: who sent it, by SPF, DKIM, ARC and DMARC.

    feed(octets)…  while the content arrives: the body is hashed, and what DNS will be asked is asked ahead
    finish()       → Authentication
    cancel()       instead, when the message is not going to be accepted

Everything that needs DNS runs side by side and within one budget of time. Nothing that a message or DNS may hold makes
it raise. Left out on purpose: what follows from the findings (`policy.dmarc`).
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from forwarder.auth import iprev
from forwarder.auth.arc import verify as arc
from forwarder.auth.arc.record import key_names as arc_key_names
from forwarder.auth.dkim import verify as dkim
from forwarder.auth.dkim.choice import Candidate
from forwarder.auth.dkim.choice import key_names as dkim_key_names
from forwarder.auth.dmarc import verify as dmarc
from forwarder.auth.dmarc.from_header import author_domain
from forwarder.auth.dmarc.organisation import TreeWalks
from forwarder.auth.incoming import Incoming
from forwarder.auth.results import Authentication
from forwarder.auth.spf import verify as spf
from forwarder.auth.spf.verify import SpfCheck, SpfResult, SpfStatus
from forwarder.model.address import Address
from forwarder.model.headers import Header
from forwarder.policy.dmarc import Enforcement
from forwarder.ports import Clock, Resolver
from forwarder.rewrite import sign
from forwarder.session.budget import BudgetedResolver

DNS_SECONDS = 15.0  # for one message: senders wait for minutes, but not for strangers' name servers
_UNCHECKED = SpfResult(SpfStatus.NONE, "", "", "SPF is not checked here")


@dataclass(frozen=True, slots=True)
class Checks:
    """What is checked, and what follows: the section `authentication` of the configuration."""

    spf: bool = True
    dkim: bool = True
    arc: bool = True
    dmarc: Enforcement = Enforcement.ENFORCE
    trusted_sealers: frozenset[str] = frozenset()
    proof_required: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """Whose message it is said to be. `sender` None is the null sender."""

    client: str
    helo: str
    sender: Address | None
    receiver: str


class Examination:
    """Begin it when the content begins to arrive."""

    def __init__(self, checks: Checks, question: Question, resolver: Resolver, clock: Clock, header_limit: int) -> None:
        self._checks = checks
        self._question = question
        self._resolver = BudgetedResolver(resolver, clock, DNS_SECONDS)
        self._now = int(clock.now().timestamp())
        self._incoming = Incoming(header_limit, also=(sign.BODY,))
        self._iprev = asyncio.create_task(iprev.check(self._resolver, question.client))
        self._spf = asyncio.create_task(self._check_spf()) if checks.spf else None
        self._ahead: list[asyncio.Task[object]] | None = None

    @property
    def header(self) -> Header | None:
        """The header section, once it has come; None where it is too long."""
        return self._incoming.header

    @property
    def candidates(self) -> Sequence[Candidate]:
        """The signatures that were checked, one for each result."""
        return self._incoming.signatures

    @property
    def body_hash(self) -> bytes:
        """The SHA-256 of the relaxed body, once `finish` has returned: what our own signatures are over."""
        digest = self._incoming.body_digest(sign.BODY)
        assert digest is not None
        return digest.digest

    def feed(self, octets: bytes) -> None:
        """Take content as it arrives."""
        self._incoming.feed(octets)
        if self._ahead is None and self._incoming.header is not None:
            self._ahead = [asyncio.create_task(each) for each in self._asked_ahead(self._incoming.header)]

    def cancel(self) -> None:
        """Give up: nobody will ask for the findings."""
        for task in (self._iprev, self._spf, *(self._ahead or ())):
            if task is not None:
                task.cancel()

    async def finish(self) -> Authentication:
        """Give what was found; the content is complete. If this is cancelled, so is all that was asked."""
        try:
            return await self._finish()
        finally:
            self.cancel()

    async def _finish(self) -> Authentication:
        self._incoming.finish()
        self._resolver.renew()  # the time that the sender took is not DNS's
        for task in self._ahead or ():
            await task
        named = await self._iprev
        spf_check = await self._spf if self._spf is not None else None
        self._resolver.renew()  # nor shall a stranger's HELO use up what the signatures need
        signatures = await dkim.verify(self._resolver, self._incoming, self._now) if self._checks.dkim else ()
        author = None
        if self._checks.dmarc is not Enforcement.OFF and self._incoming.header is not None:
            found = spf_check or SpfCheck(_UNCHECKED, _UNCHECKED)
            author = await dmarc.verify(self._resolver, self._incoming.header, found, signatures)
        chain = await arc.verify(self._resolver, self._incoming, self._now) if self._checks.arc else None
        return Authentication(
            client=self._question.client,
            helo=self._question.helo,
            sender=self._question.sender,
            iprev=named,
            spf=spf_check,
            dkim=signatures,
            dkim_checked=self._checks.dkim,
            arc=chain,
            dmarc=author,
        )

    def _check_spf(self) -> Coroutine[Any, Any, SpfCheck]:
        asked = self._question
        return spf.check(self._resolver, asked.client, asked.helo, asked.sender, receiver=asked.receiver, now=self._now)

    def _asked_ahead(self, header: Header) -> Iterator[Coroutine[Any, Any, object]]:
        """Give the questions for keys and policies: the checks themselves then find the answers in the cache."""
        names = set(dkim_key_names(self._incoming.signatures)) if self._checks.dkim else set()
        names |= set(arc_key_names(header)) if self._checks.arc else set()
        for name in sorted(names):
            yield self._resolver.txt(name)
        author = author_domain(header).domain
        if author and self._checks.dmarc is not Enforcement.OFF:
            yield TreeWalks(self._resolver).walk(author)
