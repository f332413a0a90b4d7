"""What the files ask for, read and checked; and how another process gets exactly the same.

`read` gives a `Wanted`, or raises `Unready` with every problem found. A `Wanted` keeps what was read (`Sources`), so
that a worker can build it again without looking at files that may have changed since: `packed` and `unpacked`.
"""

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from forwarder.config import Config, ConfigError, load
from forwarder.ops import rulefiles
from forwarder.ops.certificates import Pair
from forwarder.ops.keys import KeysError, load_keys
from forwarder.ops.secrets import SecretError, srs_secrets
from forwarder.rewrite.signing_key import SigningKey, load_key
from forwarder.rewrite.srs import Srs
from forwarder.rules import RulesError, RuleSet, parse
from forwarder.session.gateway import Signing

_DAY = 86_400

Texts = tuple[tuple[str, str], ...]


class Unready(Exception):  # noqa: N818 - what is said is that it is not ready
    """What the files ask for cannot be run; `problems` has a line for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Pems:
    """Private keys as (domain, selector, PEM). `fallback` names the domain whose keys sign for those without.

    `warnings` are what is merely odd about them.
    """

    keys: tuple[tuple[str, str, bytes], ...] = ()
    fallback: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """What was read: the rules as (name, text), the secrets of SRS, the signing keys as PEM."""

    config: Config
    rules: Texts
    secrets: tuple[bytes, ...] = field(repr=False)
    keys: Pems = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the files ask for, and what it was made of."""

    config: Config
    rules: RuleSet
    srs: Srs
    signing: Signing
    sources: Sources


def read(path: Path) -> Wanted:
    """Read the configuration and what it names; raise `Unready` with the problems of all of them."""
    try:
        config = load(path)
    except ConfigError as error:
        raise Unready(error.lines()) from None
    problems = [f"{path}: {text}" for text in unsupported(config)]
    read_so_far = secrets = pems = None
    try:
        read_so_far = read_rules(config)
    except Unready as error:
        problems += error.problems
    try:
        secrets = srs_secrets(config.srs.secrets)
    except SecretError as error:
        problems.append(str(error))
    try:
        pems = read_keys(config)
    except Unready as error:
        problems += error.problems
    if read_so_far is None or secrets is None or pems is None or problems:
        raise Unready(problems)
    texts, rules = read_so_far
    return Wanted(config, rules, _srs(config, secrets), _signing(config, pems), Sources(config, texts, secrets, pems))


def with_other_rules(wanted: Wanted) -> Wanted:
    """Read the rules alone again; raise `Unready`."""
    texts, rules = read_rules(wanted.config)
    return replace(wanted, rules=rules, sources=replace(wanted.sources, rules=texts))


def with_other_keys(wanted: Wanted) -> Wanted:
    """Read the signing keys alone again; raise `Unready`."""
    pems = read_keys(wanted.config)
    return replace(wanted, signing=_signing(wanted.config, pems), sources=replace(wanted.sources, keys=pems))


def read_rules(config: Config) -> tuple[Texts, RuleSet]:
    """Read the rules that the configuration names; raise `Unready`."""
    try:
        texts = rulefiles.read_rules(config.rules)
        return texts, parse(texts, config.postmaster)
    except rulefiles.RuleFilesError as error:
        raise Unready(error.problems) from None
    except RulesError as error:
        raise Unready([str(problem) for problem in error.problems]) from None


def is_handled_here(domain: str, config: Config, rules: RuleSet) -> bool:
    """Whether mail for a domain comes to this gateway."""
    return domain in rules.domains or domain in (config.hostname, config.srs.domain)


def resend_refusal(domain: str, config: Config, rules: RuleSet) -> str:
    """Say why nothing may be resent to addresses of a domain; "" if it may."""
    if is_handled_here(domain, config, rules):
        return f"{domain} is handled here: name the mailbox where its mail goes"
    return ""


def read_keys(config: Config) -> Pems:
    """Read the keys that sign; raise `Unready`. Without `dkim.sign` and `arc.seal` none are needed."""
    if not config.dkim.sign and not config.arc.seal:
        return Pems()
    try:
        keys = load_keys(config.dkim.keys, config.srs.domain)
    except KeysError as error:
        raise Unready(error.problems) from None
    pems = tuple((each.domain, each.selector, each.pem()) for some in keys.by_domain.values() for each in some)
    return Pems(pems, keys.fallback[0].domain if keys.fallback else "", keys.warnings)


def _signing(config: Config, pems: Pems) -> Signing:
    keys: dict[str, tuple[SigningKey, ...]] = {}
    for domain, selector, pem in pems.keys:
        keys[domain] = (*keys.get(domain, ()), load_key(pem, domain, selector))
    return Signing(keys, keys.get(pems.fallback, ()), config.dkim.sign, config.arc.seal)


def packed(wanted: Wanted, pair: Pair) -> bytes:
    """Give octets from which a worker makes the same: a state of `ops.supervisor`."""
    return pickle.dumps((wanted.sources, pair), pickle.HIGHEST_PROTOCOL)


def unpacked(octets: bytes) -> tuple[Wanted, Pair]:
    """Make it again from what our own parent packed."""
    sources, pair = pickle.loads(octets)  # noqa: S301 - it comes from our parent, over a socket that nobody else has
    config = sources.config
    rules = parse(sources.rules, config.postmaster)
    return Wanted(config, rules, _srs(config, sources.secrets), _signing(config, sources.keys), sources), pair


def _srs(config: Config, secrets: tuple[bytes, ...]) -> Srs:
    return Srs(config.srs.domain, secrets, math.ceil(config.srs.max_age / _DAY))


def unsupported(config: Config) -> list[str]:
    """Say which keys ask for what this version cannot do, where doing something else instead would harm."""
    if config.delivery.smarthost is not None:
        return ["delivery.smarthost: not supported yet: remove it, mail goes to the MX of its domain"]
    return []
