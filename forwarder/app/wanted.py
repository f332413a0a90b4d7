"""What the files ask for, read and checked; and how another process gets exactly the same.

`read` gives a `Wanted`, or raises `Unready` with every problem found. A `Wanted` keeps what was read (`Sources`), so
that a worker can build it again without looking at files that may have changed since: `packed` and `unpacked`.
"""

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forwarder.config import Config, ConfigError, load
from forwarder.ops import rulefiles
from forwarder.ops.certificates import Pair
from forwarder.ops.secrets import SecretError, srs_secrets
from forwarder.rewrite.srs import Srs
from forwarder.rules import RulesError, RuleSet, parse

_DAY = 86_400

Texts = tuple[tuple[str, str], ...]


class Unready(Exception):  # noqa: N818 - what is said is that it is not ready
    """What the files ask for cannot be run; `problems` has a line for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Sources:
    """What was read: the rules as (name, text), the secrets of SRS."""

    config: Config
    rules: Texts
    secrets: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the files ask for, and what it was made of."""

    config: Config
    rules: RuleSet
    srs: Srs
    sources: Sources


def read(path: Path) -> Wanted:
    """Read the configuration and what it names; raise `Unready` with the problems of all of them."""
    try:
        config = load(path)
    except ConfigError as error:
        raise Unready(error.lines()) from None
    problems = [f"{path}: {text}" for text in unsupported(config)]
    read_so_far = secrets = None
    try:
        read_so_far = read_rules(config)
    except Unready as error:
        problems += error.problems
    try:
        secrets = srs_secrets(config.srs.secrets)
    except SecretError as error:
        problems.append(str(error))
    if read_so_far is None or secrets is None or problems:
        raise Unready(problems)
    texts, rules = read_so_far
    return Wanted(config, rules, _srs(config, secrets), Sources(config, texts, secrets))


def with_other_rules(wanted: Wanted) -> Wanted:
    """Read the rules alone again; raise `Unready`."""
    texts, rules = read_rules(wanted.config)
    return Wanted(wanted.config, rules, wanted.srs, Sources(wanted.config, texts, wanted.sources.secrets))


def read_rules(config: Config) -> tuple[Texts, RuleSet]:
    """Read the rules that the configuration names; raise `Unready`."""
    try:
        texts = rulefiles.read_rules(config.rules)
        return texts, parse(texts, config.postmaster)
    except rulefiles.RuleFilesError as error:
        raise Unready(error.problems) from None
    except RulesError as error:
        raise Unready([str(problem) for problem in error.problems]) from None


def packed(wanted: Wanted, pair: Pair) -> bytes:
    """Give octets from which a worker makes the same: a state of `ops.supervisor`."""
    return pickle.dumps((wanted.sources, pair), pickle.HIGHEST_PROTOCOL)


def unpacked(octets: bytes) -> tuple[Wanted, Pair]:
    """Make it again from what our own parent packed."""
    sources, pair = pickle.loads(octets)  # noqa: S301 - it comes from our parent, over a socket that nobody else has
    config = sources.config
    rules = parse(sources.rules, config.postmaster)
    return Wanted(config, rules, _srs(config, sources.secrets), sources), pair


def _srs(config: Config, secrets: tuple[bytes, ...]) -> Srs:
    return Srs(config.srs.domain, secrets, math.ceil(config.srs.max_age / _DAY))


def unsupported(config: Config) -> list[str]:
    """Say which keys ask for what this version cannot do, where doing something else instead would harm."""
    if config.delivery.smarthost is not None:
        return ["delivery.smarthost: not supported yet: remove it, mail goes to the MX of its domain"]
    return []
