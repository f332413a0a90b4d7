"""What is done about a message that would fail DMARC at the destination: forward, rewrite From, refuse.

`decide` is a table in the form of code. Mail that passes untouched, that has no policy, or that did not pass at our
door is forwarded as it is: the first needs nothing, the second risks nothing, and the third is not ours to improve
(`policy.dmarc` has decided about it). For the rest, by what the author's domain asks for:

| `rewrite.from` | policy none | policy quarantine, reject |
|---|---|---|
| never | forward | otherwise |
| when-needed | forward | rewrite |
| always | rewrite | rewrite |

"Otherwise" is `rewrite.otherwise`: forward as it is, and the destination's answer is the sender's; or 550 5.7.1 with
the advice to sign with DKIM. It also takes the place of rewriting where From cannot be rewritten: a policy of none then
means to forward.

The defaults are "when-needed" and "forward". Who runs a gateway wants the mail: left alone, such a message is refused
by Gmail (550 5.7.26) or ends up as spam, and its sender could do nothing about it at once. It is the only mail whose
octets are touched, and From then says the truth about who sent it. To refuse is for those who want no From but the
author's; what the destination would take after all is not lost by "forward".

Values are plain so that this layer's parts stay apart: those of `auth.foresight`.
"""

from dataclasses import dataclass
from enum import Enum

from forwarder.model.reply import Reply


class Rewriting(Enum):
    """When From is rewritten (`rewrite.from`)."""

    NEVER = "never"
    WHEN_NEEDED = "when-needed"  # the author's domain asks for mail that fails to be refused or marked
    ALWAYS = "always"  # whenever it would fail


class Otherwise(Enum):
    """What becomes of mail that would fail, where From is not rewritten (`rewrite.otherwise`)."""

    FORWARD = "forward"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator wants: the section `rewrite` of the configuration."""

    rewriting: Rewriting = Rewriting.WHEN_NEEDED
    otherwise: Otherwise = Otherwise.FORWARD


class Action(Enum):
    """What to do with the message."""

    FORWARD = "forward"  # From as it is
    REWRITE = "rewrite"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What DMARC will say there: `expected` "pass", "fail" or "none"; `policy` "none", "quarantine" or "reject".

    `author` is the author's domain and `reason` says why it will be so; printable ASCII.
    """

    expected: str
    policy: str
    passed_here: bool
    author: str
    reason: str


@dataclass(frozen=True, slots=True)
class Course:
    """`reply` is there for REFUSE. `reason` says why in plain words, "" where nothing had to be decided."""

    action: Action
    reason: str = ""
    reply: Reply | None = None


def decide(wishes: Wishes, foreseen: Foreseen, hindrance: str = "") -> Course:
    """Decide about one message; `hindrance` says why From cannot be rewritten, "" when it can."""
    if foreseen.expected != "fail" or not foreseen.passed_here:
        return Course(Action.FORWARD)
    matters = foreseen.policy != "none"
    wanted = wishes.rewriting is Rewriting.ALWAYS or (matters and wishes.rewriting is Rewriting.WHEN_NEEDED)
    if wanted and not hindrance:
        return Course(Action.REWRITE, foreseen.reason)
    reason = f"{foreseen.reason}; From is not rewritten: {hindrance}" if wanted else foreseen.reason
    if matters and wishes.otherwise is Otherwise.REJECT:
        return Course(Action.REFUSE, reason, _refusal(foreseen))
    return Course(Action.FORWARD, reason)


def _refusal(foreseen: Foreseen) -> Reply:
    why = foreseen.reason[:1].upper() + foreseen.reason[1:]
    return Reply(
        550,
        "5.7.1",
        f"Forwarded, this would fail the DMARC policy of {foreseen.author} ({foreseen.policy})\n"
        f"{why}\n"
        f"Sign your mail with DKIM for {foreseen.author}",
    )
