"""What follows from the checks of a message: refuse it, mark it, or let it on. Pure."""

from forwarder.auth.arc.verify import ArcStatus
from forwarder.auth.dkim.verify import DkimResult
from forwarder.auth.dmarc.verify import DmarcResult
from forwarder.auth.results import Authentication
from forwarder.auth.spf.verify import SpfStatus
from forwarder.auth.trust import vouched_by
from forwarder.model.reply import Reply
from forwarder.policy.dmarc import Checked, Disposition, Verdict, decide
from forwarder.session.examination import Checks

_UNPROVEN = Reply(550, "5.7.26", "Refused, as neither SPF nor DKIM shows who sent this: publish SPF or sign with DKIM")
_UNDECIDED = Reply(451, "4.7.26", "Cannot tell yet who sent this, as DNS does not answer: try again later")
_UNSEALED = Reply(451, "4.4.3", "Cannot check the ARC seals yet, as DNS does not answer: try again later")
_LET_ON = Verdict(None, Disposition.NONE)


def judge(checks: Checks, found: Authentication) -> Verdict:
    """Decide about a message by what was found."""
    vouched = vouched_by(found.arc, checks.trusted_sealers)
    verdict = _by_dmarc(checks, found, vouched)
    if verdict.reply is not None or not checks.proof_required or found.proven or vouched:
        return verdict
    if found.undecided:
        return Verdict(_UNDECIDED, Disposition.NONE)
    return Verdict(_UNPROVEN, Disposition.REJECT)


def _by_dmarc(checks: Checks, found: Authentication, vouched: str) -> Verdict:
    result = found.dmarc
    if result is None:
        return _LET_ON
    checked = Checked(result.status.value, result.policy.value, result.from_domain, result.reason, vouched)
    verdict = decide(checks.dmarc, checked)
    if verdict.disposition is Disposition.REJECT and checks.trusted_sealers and found.arc and found.arc.temporary:
        return Verdict(
            _UNSEALED, Disposition.NONE
        )  # RFC 8617 5.2.1 fails the chain; to refuse for good is another thing
    return verdict


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
        fields["arc_reason"] = found.arc.reason if found.arc.status is ArcStatus.FAIL else None
    if found.dmarc is not None:
        fields |= _told_of_dmarc(found.dmarc)
    return fields


def _told_of_dmarc(result: DmarcResult) -> dict[str, object]:
    return {
        "author": result.from_domain or None,
        "dmarc": result.status.value,
        "dmarc_reason": result.reason or None,
        "policy": result.policy.value if result.published else None,
        "aligned": " ".join(filter(None, ("spf" * result.aligned_spf, "dkim" * result.aligned_dkim))) or None,
        "aligned_both": "yes" if result.aligned_both else None,
    }


def _told_of_signature(result: DkimResult) -> str:
    return " ".join(filter(None, (result.status.value, result.domain, result.reason)))
