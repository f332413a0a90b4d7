"""What DMARC will say behind us, for commands: of a message on disk, or of mail that a sender may yet send.

`of_message` goes by the message itself, as the gateway does, but for signatures of ours: without a recipient nobody
knows whose they are. `of_sender` supposes that SPF passes here and that nothing is signed by the sender, and says
where that leads: what is left to DKIM. Nothing fails: where DNS does not answer, that is said.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from forwarder.app.settings import session_settings
from forwarder.auth.dkim.choice import Candidate
from forwarder.auth.dmarc.from_header import author_domain
from forwarder.auth.dmarc.verify import DmarcStatus
from forwarder.auth.dmarc.verify import verify as verify_dmarc
from forwarder.auth.foresight import Expectation, Foresight, foresee
from forwarder.auth.results import Authentication
from forwarder.auth.spf.verify import SpfCheck, SpfResult, SpfStatus
from forwarder.cli.site import resolver_of
from forwarder.config import Config
from forwarder.model.address import Address
from forwarder.model.envelope import Peer
from forwarder.model.headers import Header, split_header
from forwarder.ops.clock import SystemClock
from forwarder.ops.keys import KeysError, load_keys
from forwarder.policy.dmarc import Enforcement
from forwarder.policy.rewriting import Action, Course, Wishes, decide
from forwarder.ports import Resolver
from forwarder.rewrite import headers
from forwarder.rewrite.author import Rewritten, Unwritable, rewrite_author
from forwarder.rewrite.survival import Change
from forwarder.session.budget import BudgetedResolver
from forwarder.session.departure import held, plainly, surviving, unwelcome
from forwarder.session.examination import DNS_SECONDS
from forwarder.session.gateway import Signing
from forwarder.session.substitutes import Substitutes

_ANYBODY = Address("somebody", "forwarder.invalid")  # RFC 2606 2


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is foreseen, and what `[rewrite]` makes of it.

    `broken` are the domains whose signatures hold here and do not survive what we do to the header.
    """

    foresight: Foresight
    course: Course
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """A message and what the checks said of it. `forged` are octet ranges, `results` is our Authentication-Results."""

    header: Header
    found: Authentication
    candidates: Sequence[Candidate]
    forged: Sequence[tuple[int, int]]
    results: bytes


def of_message(findings: Findings, hostname: str, wishes: Wishes) -> Outlook:
    """Say it of a message that may go on."""
    found = findings.found
    hand = headers.Hand(Peer(found.client, 0), found.helo, "", extended=True, smtputf8=False, tls=None)
    trace = headers.Trace(hostname, "check", SystemClock().now(), hand)
    signatures = held(findings.candidates, found)
    way = headers.Way(_ANYBODY, _ANYBODY)
    head = headers.head(trace, way, findings.results, unwelcome(signatures))
    survivors = surviving(signatures, Change(findings.header, head, findings.forged))
    foresight = foresee(found, survivors)
    rewritten = rewrite_author(findings.header, _ANYBODY)
    broken = tuple(found.dkim[n].domain for n in signatures if n not in survivors)
    return Outlook(foresight, _course(wishes, foresight, rewritten), broken)


def told_of_sender(
    config: Config, sender: Address, alias: Address
) -> tuple[Sequence[str], Mapping[str, object] | None]:
    """Ask live DNS about a sender; give what is foreseen in words and as JSON has it, or nothing without DMARC."""
    settings = session_settings(config)
    if settings.checks.dmarc is Enforcement.OFF:
        return (), None

    async def ask() -> Outlook:
        async with resolver_of(config) as resolver:
            return await of_sender(resolver, config, settings.rewriting, sender, alias)

    outlook = asyncio.run(ask())
    return tuple(sender_in_words(outlook)), fields(outlook)


async def of_sender(resolver: Resolver, config: Config, wishes: Wishes, sender: Address, alias: Address) -> Outlook:
    """Say it of mail to `alias` whose author is `sender`, if SPF passes here and the sender does not sign."""
    header = split_header(f"From: <{sender}>\r\n".encode())
    domain = author_domain(header).domain
    proven = SpfResult(SpfStatus.PASS, domain, "", "")
    unknown = SpfResult(SpfStatus.NONE, "", "", "")
    budgeted = BudgetedResolver(resolver, SystemClock(), DNS_SECONDS)
    result = await verify_dmarc(budgeted, header, SpfCheck(proven, unknown), ())
    found = Authentication("", "", sender, spf=SpfCheck(proven, unknown), dkim_checked=True, dmarc=result)
    signing = _signing(config)
    ours = frozenset(key.domain for key in signing.of(alias.domain) if signing.sign and key.kind == "rsa")
    foresight = foresee(found, (), ours)
    if result.status is DmarcStatus.PERMERROR or result.status is DmarcStatus.TEMPERROR:
        return Outlook(foresight, Course(Action.FORWARD))
    rewritten = Substitutes(signing, (alias.domain,), header).of(alias)
    return Outlook(foresight, _course(wishes, foresight, rewritten))


def _signing(config: Config) -> Signing:
    """Give what signs; nothing where the keys cannot be read, as `config check` says."""
    try:
        keys = load_keys(config.dkim.keys, config.srs.domain)
    except KeysError:
        return Signing(sign=False)
    return Signing(keys.by_domain, keys.fallback, config.dkim.sign)


def _course(wishes: Wishes, foresight: Foresight, rewritten: Rewritten | Unwritable) -> Course:
    return decide(wishes, plainly(foresight), rewritten.reason if isinstance(rewritten, Unwritable) else "")


def message_in_words(outlook: Outlook) -> Iterator[str]:
    """Tell of a message."""
    foresight = outlook.foresight
    yield f"DMARC there: {foresight.expected.value}: {foresight.reason}"
    yield from (
        f"  the signature of {domain} does not survive what is done to the header here" for domain in outlook.broken
    )
    if foresight.expected is Expectation.FAIL:
        yield f"  {_doing(outlook.course)}"


def sender_in_words(outlook: Outlook) -> Iterator[str]:
    """Tell of a sender's mail."""
    foresight = outlook.foresight
    if foresight.expected is Expectation.NONE or not foresight.passed_here:
        yield f"DMARC: {foresight.reason}"
        return
    asked = f"DMARC: {foresight.author} asks for {foresight.policy.value}"
    if foresight.expected is Expectation.PASS:
        yield f"{asked}; behind us its mail passes, if it did here: {foresight.reason}"
        return
    yield f"{asked}; behind us its mail passes only by DKIM, as SPF is lost by SRS"
    yield f"  without a signature of {foresight.author} that survives: {_doing(outlook.course)}"


def _doing(course: Course) -> str:
    match course.action:
        case Action.REWRITE:
            return "From is rewritten to an address of ours ([rewrite])"
        case Action.REFUSE:
            assert course.reply is not None
            return f"refused, {course.reply.code} {course.reply.enhanced} ([rewrite])"
    _, mark, why = course.reason.partition("From is not rewritten: ")
    return f"forwarded with From as it is{f', which cannot be rewritten: {why}' if mark else ''}"


def fields(outlook: Outlook) -> dict[str, object]:
    """Give it as JSON has it."""
    foresight = outlook.foresight
    return {
        "expected": foresight.expected.value,
        "reason": foresight.reason,
        "author": foresight.author,
        "policy": foresight.policy.value,
        "passed_here": foresight.passed_here,
        "carrier": foresight.carrier,
        "broken": list(outlook.broken),
        "action": outlook.course.action.value,
        "because": outlook.course.reason,
    }
