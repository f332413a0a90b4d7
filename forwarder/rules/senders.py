"""The `from` part of a rule: which envelope senders it is for.

`bob@shop.com` is one mailbox, `*@shop.com` everybody at exactly that domain, `*@*.shop.com` everybody at any name
below it (not at `shop.com` itself), `<>` the null sender of bounces; `*` and `?` may stand anywhere in either part.
A sender's local part is compared without case. Nothing but `<>` matches the null sender. Parsing raises
`AddressError` with the reason.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from forwarder.model.address import Address, AddressError, canonical_name, parse_domain, parse_mailbox
from forwarder.rules.expression import Expression, compile_expression
from forwarder.rules.names import fold, glob_expression, is_glob

NULL = "<>"
_DOMAIN_GLOB = re.compile(r"[a-z0-9_.*?-]+")
_LOCAL_GLOB = re.compile(r'[^\s"@<>,;:\\()\[\]]+')


@dataclass(frozen=True, slots=True)
class SenderPattern:
    """One alternative. `text` is its canonical spelling; a part that is None is compared by its expression."""

    text: str
    local: str | None
    domain: str | None
    local_glob: Expression | None = field(default=None, compare=False)
    domain_glob: Expression | None = field(default=None, compare=False)

    def matches(self, sender: Address | None) -> bool:
        """Whether this is the sender; None is the null sender."""
        if sender is None or self.text == NULL:
            return sender is None and self.text == NULL
        return _same(sender.domain, self.domain, self.domain_glob) and _same(
            fold(sender.local), self.local, self.local_glob
        )


@dataclass(frozen=True, slots=True)
class Senders:
    """All alternatives of one rule, in the order written."""

    patterns: tuple[SenderPattern, ...]

    def __str__(self) -> str:
        """Write them as a rule does, canonically."""
        return ", ".join(pattern.text for pattern in self.patterns)

    def matches(self, sender: Address | None) -> bool:
        """Whether any alternative is the sender."""
        return any(pattern.matches(sender) for pattern in self.patterns)


@lru_cache(maxsize=4_096)  # the same few senders stand in many rules
def parse_sender(text: str) -> SenderPattern:
    """Read one alternative; raise `AddressError`."""
    if text == NULL:
        return SenderPattern(NULL, None, None)
    if text.startswith("<"):
        raise AddressError("write the sender without angle brackets")
    if "@" not in text:
        raise AddressError(f"write a sender as name@domain, or *@{text} for everybody there")
    local, _, domain = text.rpartition("@")
    if not local:
        raise AddressError(f"write *@{domain} for everybody there")
    if not is_glob(text):
        address = parse_mailbox(text)
        return SenderPattern(str(Address(fold(address.local), address.domain)), fold(address.local), address.domain)
    return _glob(local, domain)


def _glob(local: str, domain: str) -> SenderPattern:
    if not local.startswith('"') and not _LOCAL_GLOB.fullmatch(local):
        raise AddressError("the part before the @ is malformed")
    local = fold(local) if is_glob(local) else fold(parse_mailbox(f"{local}@x.example").local)
    domain = _domain_glob(domain) if is_glob(domain) else parse_domain(domain)
    return SenderPattern(
        f"{local}@{domain}",
        None if is_glob(local) else local,
        None if is_glob(domain) else domain,
        compile_expression(glob_expression(local, tags=False)) if is_glob(local) else None,
        compile_expression(glob_expression(domain, tags=False)) if is_glob(domain) else None,
    )


def _domain_glob(text: str) -> str:
    """Give a domain with wildcards in canonical form; its labels without wildcards may be U-labels."""
    labels = text.removesuffix(".").split(".")
    domain = ".".join(label.lower() if is_glob(label) else canonical_name(label) for label in labels)
    if not _DOMAIN_GLOB.fullmatch(domain):
        raise AddressError("a domain with wildcards is written in letters, digits, - . * ?")
    return domain


def _same(value: str, exact: str | None, glob: Expression | None) -> bool:
    return value == exact if glob is None else glob.fullmatch(value) is not None
