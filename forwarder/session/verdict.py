"""What follows from the checks of a message: refuse it, mark it, or let it on. Pure."""

from forwarder.auth.dkim.verify import DkimResult
from forwarder.auth.results import Authentication
from forwarder.auth.spf.verify import SpfStatus
from forwarder.auth.trust import vouched_by
from forwarder.model.reply import Reply
from forwarder.policy.dmarc import Checked, Disposition, Verdict, decide
from forwarder.session.examination import Checks

_UNPROVEN = Reply(550, "5.7.26", "Refused, as neither SPF nor DKIM shows who sent this: publish SPF or sign with DKIM")
_UNDECIDED = Reply(451, "4.7.26", "Cannot tell yet who sent this, as DNS does not answer: try again later")
_LET_ON = Verdict(None, Disposition.NONE)


def judge(checks: Checks, found: Authentication) -> Verdict:
    """Decide about a message by what was found."""
    verdict = _by_dmarc(checks, found)
    if verdict.reply is None and checks.proof_required and not found.proven:
        reply = _UNDECIDED if found.undecided else _UNPROVEN
        return Verdict(reply, Disposition.REJECT)
    return verdict


def _by_dmarc(checks: Checks, found: Authentication) -> Verdict:
    result = found.dmarc
    if result is None:
        return _LET_ON
    vouched = vouched_by(found.arc, checks.trusted_sealers)
    return decide(
        checks.dmarc,
        Checked(result.status.value, result.policy.value, result.from_domain, result.reason, vouched),
    )


def told(found: Authentication, verdict: Verdict) -> dict[str, object]:
    """Give the fields of the event `authenticated`."""
    fields: dict[str, object] = {"disposition": verdict.disposition.value, "override": verdict.override or None}
    if found.iprev is not None:
        fields["iprev"] = found.iprev.status.value
    if found.spf is not None:
        identity = found.spf.mail_from if found.sender else found.spf.helo
        failed = identity.status is not SpfStatus.PASS
        fields["spf"] = f"{identity.status.value} {identity.reason}" if failed else identity.status.value
    if found.dkim_checked:
        fields["dkim"] = "; ".join(map(_told_of_signature, found.dkim)) or "none"
    if found.arc is not None:
        fields["arc"] = found.arc.status.value
    if found.dmarc is not None:
        fields["dmarc"] = found.dmarc.status.value
        fields["policy"] = found.dmarc.policy.value if found.dmarc.published else None
    return fields


def _told_of_signature(result: DkimResult) -> str:
    return " ".join(filter(None, (result.status.value, result.domain, result.reason)))
