"""What DMARC's result does to a message (RFC 9989 5.3.6, 5.4).

`decide` is a table in the form of code. Under `enforce`:

| result | policy | trusted sealer vouches | reply | disposition |
|---|---|---|---|---|
| pass | any | any | none | pass |
| none | any | any | none | none |
| fail | none | any | none | none |
| fail | quarantine | no | none: forwarded and marked | quarantine |
| fail | reject | no | 550 5.7.1 | reject |
| fail | quarantine, reject | yes | none | none |
| temperror | none, quarantine | any | none | none |
| temperror | reject | no | 451 4.4.3 | none |
| temperror | reject | yes | none | none |
| permerror | none | any | none | none |
| permerror | reject | any | 550 5.7.1 | reject |

- temperror: to accept would let forgers in while DNS is down, to refuse would lose mail; 451 does neither, and is given
  only where "reject" is still possible.
- permerror: the message has no single author domain. An ARC seal cannot vouch for an author who is not there. The
  policy is none where From names nobody, as in poor bounces and mail of machines: refusing that is the inbox's choice.
- An SPF permerror is no reason of its own: what DMARC makes of it is in the result.

`report` and `off` never refuse and never mark. Values are plain so that this layer's parts stay apart: those of
`auth.dmarc`'s enums. Left out on purpose: finding out whether a sealer is trusted, and writing down what was decided.
"""

from dataclasses import dataclass
from enum import Enum

from forwarder.model.reply import Reply


class Enforcement(Enum):
    """What the operator wants (`authentication.dmarc`)."""

    ENFORCE = "enforce"  # apply the policies of others
    REPORT = "report"  # write the result down, and no more
    OFF = "off"


class Disposition(Enum):
    """What was done because of DMARC (in the words of RFC 9990)."""

    NONE = "none"  # nothing
    PASS = "pass"  # noqa: S105 - nothing, as the message passed
    QUARANTINE = "quarantine"  # forwarded, and marked as suspicious
    REJECT = "reject"  # refused


@dataclass(frozen=True, slots=True)
class Checked:
    """What DMARC found: `result` "none", "pass", "fail", "temperror" or "permerror"; `policy` "none", "quarantine" or
    "reject", the one to apply. `domain` is the author's, "" where there is none. `reason` is printable ASCII.

    `vouched_by` is the trusted ARC sealer that says DMARC passed before the message was changed, "" without one.
    """

    result: str
    policy: str
    domain: str
    reason: str
    vouched_by: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reply` refuses the message, None lets it on. `override` says why a policy was not applied, "" if it was."""

    reply: Reply | None
    disposition: Disposition
    override: str = ""


def decide(enforcement: Enforcement, checked: Checked) -> Verdict:
    """Decide about one message."""
    if enforcement is Enforcement.OFF:
        return Verdict(None, Disposition.NONE)
    if checked.result == "pass":
        return Verdict(None, Disposition.PASS)
    verdict = _RULES[checked.result](checked)
    if enforcement is Enforcement.ENFORCE:
        return verdict
    applied = verdict.reply is not None or verdict.disposition is not Disposition.NONE
    return Verdict(None, Disposition.NONE, "policies are only reported here" if applied else verdict.override)


def _let_on(_: Checked) -> Verdict:
    return Verdict(None, Disposition.NONE)


def _failed(checked: Checked) -> Verdict:
    if checked.policy == "none":
        return Verdict(None, Disposition.NONE)
    if checked.vouched_by:  # RFC 9989 5.4: what else is known counts
        return _vouched(checked)
    if checked.policy == "quarantine":
        return Verdict(None, Disposition.QUARANTINE)
    opening = f"Refused, as {checked.domain} asks for by its DMARC policy (reject)"
    return Verdict(Reply(550, "5.7.1", f"{opening}\n{_sentence(checked.reason)}"), Disposition.REJECT)


def _undecided(checked: Checked) -> Verdict:
    if checked.policy != "reject":
        return Verdict(None, Disposition.NONE)
    if checked.vouched_by:
        return _vouched(checked)
    opening = f"Cannot tell yet whether {checked.domain} sent this, try again later"
    return Verdict(Reply(451, "4.4.3", f"{opening}\n{_sentence(checked.reason)}"), Disposition.NONE)


def _authorless(checked: Checked) -> Verdict:
    if checked.policy == "none":
        return Verdict(None, Disposition.NONE)
    opening = "Refused, as the message does not say for certain whom it is from (RFC 5322 3.6.2)"
    return Verdict(Reply(550, "5.7.1", f"{opening}\n{_sentence(checked.reason)}"), Disposition.REJECT)


def _vouched(checked: Checked) -> Verdict:
    return Verdict(None, Disposition.NONE, f"{checked.vouched_by} vouches for it by ARC")


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]


_RULES = {"none": _let_on, "fail": _failed, "temperror": _undecided, "permerror": _authorless}
