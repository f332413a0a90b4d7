"""What follows from findings, as a table; and what the log is told of them."""

from dataclasses import replace

import pytest

from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc.record import Policy
from forwarder.auth.dmarc.verify import DmarcResult, DmarcStatus
from forwarder.auth.iprev import IprevResult, IprevStatus
from forwarder.auth.results import Authentication
from forwarder.auth.spf.verify import SpfCheck, SpfResult, SpfStatus
from forwarder.model.address import parse_mailbox
from forwarder.policy.dmarc import Disposition, Enforcement, Verdict
from forwarder.session.examination import Checks
from forwarder.session.verdict import judge, told

SEALER = "relay.test"
SEALED = ArcResult(ArcStatus.PASS, 1, sealer=SEALER, authentication_results=b"relay.test; dmarc=pass", from_signed=True)
NOTHING = Authentication("192.0.2.1", "mail.a.test", parse_mailbox("a@a.test"))
TRUSTING = Checks(trusted_sealers=frozenset({SEALER}))


def spf(status: SpfStatus) -> SpfCheck:
    passed = status is SpfStatus.PASS
    result = SpfResult(status, "a.test", "ip4:192.0.2.1", "" if passed else "the reason for SPF")
    return SpfCheck(result, SpfResult(SpfStatus.NONE, "mail.a.test", "", "the reason for HELO"))


def dkim(status: DkimStatus) -> tuple[DkimResult, ...]:
    return (DkimResult(status, "a.test", reason="" if status is DkimStatus.PASS else "the reason for DKIM"),)


def dmarc(status: DmarcStatus, policy: Policy) -> DmarcResult:
    return DmarcResult(status, "a.test", policy, published="v=DMARC1", reason="the reason for DMARC")


def summary(verdict: Verdict) -> tuple[str, str]:
    """Give the reply's codes ("" without one) and the disposition."""
    reply = f"{verdict.reply.code} {verdict.reply.enhanced}" if verdict.reply else ""
    return reply, verdict.disposition.value


PASS, FAIL, TEMP, PERM, NONE = (
    DmarcStatus.PASS, DmarcStatus.FAIL, DmarcStatus.TEMPERROR, DmarcStatus.PERMERROR, DmarcStatus.NONE,
)  # fmt: skip
TABLE = [
    # status, policy: under enforce; with a sealer that is trusted
    (PASS, Policy.REJECT, ("", "pass"), ("", "pass")),
    (NONE, Policy.NONE, ("", "none"), ("", "none")),
    (FAIL, Policy.NONE, ("", "none"), ("", "none")),
    (FAIL, Policy.QUARANTINE, ("", "quarantine"), ("", "none")),
    (FAIL, Policy.REJECT, ("550 5.7.1", "reject"), ("", "none")),
    (TEMP, Policy.NONE, ("", "none"), ("", "none")),
    (TEMP, Policy.QUARANTINE, ("", "none"), ("", "none")),
    (TEMP, Policy.REJECT, ("451 4.4.3", "none"), ("", "none")),
    (PERM, Policy.NONE, ("", "none"), ("", "none")),
    (PERM, Policy.REJECT, ("550 5.7.1", "reject"), ("550 5.7.1", "reject")),
]


@pytest.mark.parametrize(("status", "policy", "alone", "vouched"), TABLE)
def test_dmarc(status: DmarcStatus, policy: Policy, alone: tuple[str, str], vouched: tuple[str, str]) -> None:
    found = replace(NOTHING, dmarc=dmarc(status, policy))
    sealed = replace(found, arc=SEALED)
    assert summary(judge(Checks(), found)) == alone
    assert summary(judge(Checks(), sealed)) == alone  # sealed by somebody whom nobody named
    assert summary(judge(TRUSTING, found)) == alone
    assert summary(judge(TRUSTING, sealed)) == vouched
    for mode in (Enforcement.REPORT, Enforcement.OFF):
        assert judge(replace(TRUSTING, dmarc=mode), found).reply is None


def test_an_override_names_the_sealer() -> None:
    found = replace(NOTHING, dmarc=dmarc(FAIL, Policy.REJECT), arc=SEALED)
    assert judge(TRUSTING, found).override == "relay.test vouches for it by ARC"


def test_a_report_says_what_was_not_done() -> None:
    found = replace(NOTHING, dmarc=dmarc(FAIL, Policy.REJECT))
    assert judge(Checks(dmarc=Enforcement.REPORT), found) == Verdict(
        None, Disposition.NONE, "policies are only reported here"
    )


def test_without_dmarc_everything_is_let_on() -> None:
    assert judge(Checks(), NOTHING) == Verdict(None, Disposition.NONE)


REFUSED, LATER, LET_ON = ("550 5.7.26", "reject"), ("451 4.7.26", "none"), ("", "none")
PROOF = [
    (spf(SpfStatus.PASS), (), LET_ON),
    (None, dkim(DkimStatus.PASS), LET_ON),
    (spf(SpfStatus.FAIL), dkim(DkimStatus.PASS), LET_ON),
    (spf(SpfStatus.TEMPERROR), dkim(DkimStatus.PASS), LET_ON),
    (None, dkim(DkimStatus.FAIL) + dkim(DkimStatus.PASS), LET_ON),
    (None, (), REFUSED),
    (spf(SpfStatus.NONE), (), REFUSED),
    (spf(SpfStatus.FAIL), dkim(DkimStatus.FAIL), REFUSED),
    (spf(SpfStatus.PERMERROR), dkim(DkimStatus.PERMERROR), REFUSED),
    (spf(SpfStatus.TEMPERROR), (), LATER),
    (spf(SpfStatus.FAIL), dkim(DkimStatus.TEMPERROR), LATER),
]


@pytest.mark.parametrize(("by_spf", "by_dkim", "expected"), PROOF)
@pytest.mark.parametrize("mode", Enforcement)
def test_proof(
    by_spf: SpfCheck | None, by_dkim: tuple[DkimResult, ...], expected: tuple[str, str], mode: Enforcement
) -> None:
    found = replace(NOTHING, spf=by_spf, dkim=by_dkim)
    assert summary(judge(Checks(dmarc=mode, proof_required=True), found)) == expected
    assert summary(judge(Checks(dmarc=mode), found)) == LET_ON


def test_proof_does_not_hide_what_dmarc_says() -> None:
    found = replace(NOTHING, dmarc=dmarc(FAIL, Policy.REJECT))
    assert summary(judge(Checks(proof_required=True), found)) == ("550 5.7.1", "reject")
    proven = replace(found, dkim=dkim(DkimStatus.PASS), dmarc=dmarc(FAIL, Policy.QUARANTINE))
    assert summary(judge(Checks(proof_required=True), proven)) == ("", "quarantine")


def test_a_seal_that_dns_left_open_defers_what_would_be_refused() -> None:
    """Only where somebody trusts a sealer at all: the chain itself fails (RFC 8617 5.2.1)."""
    open_chain = ArcResult(ArcStatus.FAIL, 1, "DNS did not answer", temporary=True)
    found = replace(NOTHING, dmarc=dmarc(FAIL, Policy.REJECT), arc=open_chain)
    trusting = Checks(trusted_sealers=frozenset({"lists.test"}))
    assert summary(judge(trusting, found)) == ("451 4.4.3", "none")
    assert summary(judge(Checks(), found)) == ("550 5.7.1", "reject")
    broken = replace(found, arc=replace(open_chain, temporary=False))
    assert summary(judge(trusting, broken)) == ("550 5.7.1", "reject")


def test_a_trusted_sealer_is_proof_enough() -> None:
    found = replace(NOTHING, arc=SEALED, dmarc=dmarc(FAIL, Policy.REJECT))
    checks = Checks(trusted_sealers=frozenset({SEALED.sealer}), proof_required=True)
    assert judge(checks, found).reply is None


def test_the_log_is_told_everything() -> None:
    found = replace(
        NOTHING,
        iprev=IprevResult(IprevStatus.PASS, "mail.a.test", ""),
        spf=spf(SpfStatus.PASS),
        dkim=dkim(DkimStatus.PASS) + dkim(DkimStatus.FAIL),
        dkim_checked=True,
        arc=SEALED,
        dmarc=replace(dmarc(PASS, Policy.REJECT), aligned_dkim=True, aligned_both=True, reason=""),
    )
    assert told(found, judge(Checks(), found)) == {
        "disposition": "pass",
        "override": None,
        "iprev": "pass",
        "spf": "pass",
        "dkim": "pass a.test; fail a.test the reason for DKIM",
        "arc": "pass",
        "arc_reason": None,
        "author": "a.test",
        "dmarc": "pass",
        "dmarc_reason": None,
        "policy": "reject",
        "aligned": "dkim",
        "aligned_both": "yes",
    }


def test_the_log_is_told_why_and_of_the_identity_that_counts() -> None:
    found = replace(NOTHING, spf=spf(SpfStatus.FAIL))
    assert told(found, judge(Checks(), found))["spf"] == "fail the reason for SPF"
    bounce = replace(found, sender=None)
    assert told(bounce, judge(Checks(), bounce))["spf"] == "none the reason for HELO"


def test_the_log_is_told_why_a_chain_or_a_policy_failed() -> None:
    found = replace(NOTHING, arc=ArcResult(ArcStatus.FAIL, 1, "a seal is wrong"), dmarc=dmarc(FAIL, Policy.REJECT))
    fields = told(found, judge(Checks(), found))
    assert (fields["arc"], fields["arc_reason"]) == ("fail", "a seal is wrong")
    assert (fields["author"], fields["dmarc"], fields["dmarc_reason"]) == ("a.test", "fail", "the reason for DMARC")
    assert (fields["aligned"], fields["aligned_both"]) == (None, None)


def test_the_log_is_told_of_no_signature() -> None:
    found = replace(NOTHING, dkim_checked=True)
    assert told(found, judge(Checks(), found))["dkim"] == "none"


def test_the_log_is_told_nothing_of_what_was_not_checked() -> None:
    assert told(NOTHING, judge(Checks(), NOTHING)) == {"disposition": "none", "override": None}


def test_a_policy_is_told_only_where_there_is_one() -> None:
    found = replace(NOTHING, dmarc=replace(dmarc(NONE, Policy.NONE), published=""))
    assert told(found, judge(Checks(), found))["policy"] is None
