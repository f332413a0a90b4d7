"""What DMARC's result does to a message."""

import pytest

from forwarder.model.reply import Reply
from forwarder.policy.dmarc import Checked, Disposition, Enforcement, Verdict, decide

ENFORCE, REPORT, OFF = Enforcement.ENFORCE, Enforcement.REPORT, Enforcement.OFF
REASON = "nothing shows that example.com sent it (SPF: fail for evil.example; DKIM: no signature)"
LET_ON = Verdict(None, Disposition.NONE)
REFUSED = Verdict(
    Reply(
        550,
        "5.7.1",
        "Refused, as example.com asks for by its DMARC policy (reject)\n"
        "Nothing shows that example.com sent it (SPF: fail for evil.example; DKIM: no signature)",
    ),
    Disposition.REJECT,
)
LATER = Verdict(
    Reply(
        451,
        "4.4.3",
        "Cannot tell yet whether example.com sent this, try again later\n"
        "Nothing shows that example.com sent it (SPF: fail for evil.example; DKIM: no signature)",
    ),
    Disposition.NONE,
)
AUTHORLESS = Verdict(
    Reply(
        550,
        "5.7.1",
        "Refused, as the message does not say for certain whom it is from (RFC 5322 3.6.2)\n"
        "Nothing shows that example.com sent it (SPF: fail for evil.example; DKIM: no signature)",
    ),
    Disposition.REJECT,
)
VOUCHED = Verdict(None, Disposition.NONE, "lists.example vouches for it by ARC")
MARKED = Verdict(None, Disposition.QUARANTINE)
PASSED = Verdict(None, Disposition.PASS)
ONLY_REPORTED = Verdict(None, Disposition.NONE, "policies are only reported here")


@pytest.mark.parametrize(
    ("result", "policy", "sealer", "enforced", "reported"),
    [
        ("pass", "reject", "", PASSED, PASSED),
        ("pass", "none", "", PASSED, PASSED),
        ("none", "none", "", LET_ON, LET_ON),
        ("fail", "none", "", LET_ON, LET_ON),
        ("fail", "none", "lists.example", LET_ON, LET_ON),
        ("fail", "quarantine", "", MARKED, ONLY_REPORTED),
        ("fail", "quarantine", "lists.example", VOUCHED, VOUCHED),
        ("fail", "reject", "", REFUSED, ONLY_REPORTED),
        ("fail", "reject", "lists.example", VOUCHED, VOUCHED),
        ("temperror", "none", "", LET_ON, LET_ON),
        ("temperror", "quarantine", "", LET_ON, LET_ON),
        ("temperror", "reject", "", LATER, ONLY_REPORTED),
        ("temperror", "reject", "lists.example", VOUCHED, VOUCHED),
        ("permerror", "none", "", Verdict(None, Disposition.NONE), Verdict(None, Disposition.NONE)),
        ("permerror", "reject", "", AUTHORLESS, ONLY_REPORTED),
        ("permerror", "reject", "lists.example", AUTHORLESS, ONLY_REPORTED),
    ],
)
def test_table(result: str, policy: str, sealer: str, enforced: Verdict, reported: Verdict) -> None:
    checked = Checked(result, policy, "example.com", REASON, sealer)
    assert decide(ENFORCE, checked) == enforced
    assert decide(REPORT, checked) == reported
    assert decide(OFF, checked) == LET_ON


def test_every_result_and_policy_of_the_check_has_a_rule() -> None:
    from forwarder.auth.dmarc.record import Policy
    from forwarder.auth.dmarc.verify import DmarcStatus

    for status in DmarcStatus:
        for policy in Policy:
            assert decide(ENFORCE, Checked(status.value, policy.value, "example.com", REASON)) is not None


def test_the_modes_are_those_of_the_configuration() -> None:
    from forwarder.config.schema import DmarcMode

    assert [mode.value for mode in Enforcement] == [mode.value for mode in DmarcMode]
