"""The rules language: parse, check, match, explain.

`parse` turns texts into a `RuleSet`; `RuleSet.resolve` says what becomes of the mail for one recipient; `compare` says
what a reload would change. Layer 1: text in, values out; README.md in the folder `rules` describes the language.
"""

from forwarder.rules.change import Change, compare
from forwarder.rules.decision import Decision, Defer, Discard, Forward, Limit, NotServed, Refuse
from forwarder.rules.parse import parse
from forwarder.rules.rule import Place, Problem, RulesError
from forwarder.rules.ruleset import RuleSet

__all__ = [
    "Change",
    "Decision",
    "Defer",
    "Discard",
    "Forward",
    "Limit",
    "NotServed",
    "Place",
    "Problem",
    "Refuse",
    "RuleSet",
    "RulesError",
    "compare",
    "parse",
]
