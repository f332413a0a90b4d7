"""DMARC policy records: `v=DMARC1; p=reject; …` (RFC 9989 4.7, 4.8).

`parse_record` is total: octets are a record, or they are not (None). Whatever is wrong after the version is ignored
or takes its default (RFC 9989 4.8); whether enough is left to apply anything is `DmarcRecord.usable`. Names of tags
and values are read in any case, as their ABNF has it; the version is exact, and nothing may come before it. Of a tag
that is there twice the first counts. Time is linear, and what is longer than `MAX_OCTETS` is no record.

Left out on purpose: pct, rf and ri, which are history, and whether a report may be sent where rua= says.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

MAX_OCTETS = 4096  # a record of 500 octets is long
_KEPT = 512  # records read before, at most MAX_OCTETS each
_SHOWN = 400  # characters of a record in logs

_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")  # RFC 9989 4.8: dmarc-version
_TAG = re.compile(r"([A-Za-z]+)[ \t]*=[ \t]*([ -~]+)")  # RFC 9989 4.8: dmarc-tag
# RFC 3986 4.3 without the comma and "!", which RFC 9989 4.8 wants encoded; the size behind "!" is obsolete.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:[^\s,!<>\"\\^`{|}]+)(?:![0-9]+[kmgtKMGT]?)?")
_MAILBOX_URI = re.compile(r"mailto:[^@?]+@[^@?]+(?:\?.*)?", re.IGNORECASE)  # RFC 6068 2, as far as reports need it


class Policy(Enum):
    """What a domain wishes for mail that only claims to be its own (RFC 9989 4.7: p)."""

    NONE = "none"  # nothing in particular
    QUARANTINE = "quarantine"  # it is suspicious
    REJECT = "reject"  # it is not the domain's


class Alignment(Enum):
    """How near an authenticated domain must be to the author's (RFC 9989 4.7: adkim, aspf)."""

    RELAXED = "r"  # of the same organisation
    STRICT = "s"  # the same name


class Psd(Enum):
    """What a record says about its place in the tree (RFC 9989 4.7: psd)."""

    YES = "y"  # a public suffix: who registers below it is somebody else
    NO = "n"  # an organisation of its own
    UNKNOWN = "u"  # whatever the tree walk finds


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """One policy record. `subdomains` is sp=, `nonexistent` is np=, None where they are not given.

    `usable` is False when RFC 9989 4.10.1 applies no DMARC: the record says no valid policy and wants no reports.
    `text` is the record for people: printable ASCII, one line, cut. `options` is fo=; URIs come without a size.
    """

    text: str
    usable: bool
    policy: Policy
    subdomains: Policy | None
    nonexistent: Policy | None
    dkim: Alignment
    spf: Alignment
    psd: Psd
    testing: bool
    options: frozenset[str]
    aggregate: tuple[str, ...]
    failure: tuple[str, ...]


def select_record(records: Iterable[bytes]) -> DmarcRecord | None:
    """Give the one policy record among the TXT records of a name; several cancel each other (RFC 9989 4.10, 2)."""
    found = [record for octets in records if (record := parse_record(octets)) is not None]
    return found[0] if len(found) == 1 else None


def parse_record(octets: bytes) -> DmarcRecord | None:
    """Read a TXT record, its strings joined (RFC 9989 4.5); None for what is no policy record."""
    return _parse(octets) if len(octets) <= MAX_OCTETS else None


@lru_cache(_KEPT)
def _parse(octets: bytes) -> DmarcRecord | None:
    version = _VERSION.match(octets)
    if version is None:  # RFC 9989 4.7: v
        return None
    tags = _tags(octets[version.end() :].decode("ascii", "replace"))
    aggregate = _uris(tags.get("rua", ""))
    policies = {tag: _policy(tags[tag]) for tag in ("p", "sp", "np") if tag in tags}
    if None in policies.values():  # RFC 9989 4.10.1: it is as if the record said p=none, and no more
        policies = {}
    return DmarcRecord(
        text=_shown(octets),
        usable="p" in policies or bool(aggregate),  # RFC 9989 4.10.1
        policy=policies.get("p") or Policy.NONE,
        subdomains=policies.get("sp"),
        nonexistent=policies.get("np"),
        dkim=_alignment(tags.get("adkim", "")),
        spf=_alignment(tags.get("aspf", "")),
        psd=_psd(tags.get("psd", "")),
        testing=tags.get("t", "").lower() == "y",
        options=_options(tags.get("fo", "")),
        aggregate=aggregate,
        failure=_uris(tags.get("ruf", "")),
    )


def _tags(text: str) -> Mapping[str, str]:
    tags: dict[str, str] = {}
    for part in text.split(";"):
        if match := _TAG.fullmatch(part.strip(" \t")):
            tags.setdefault(match[1].lower(), match[2].rstrip(" "))
    return tags


def _policy(value: str) -> Policy | None:
    try:
        return Policy(value.lower())
    except ValueError:
        return None


def _alignment(value: str) -> Alignment:
    return Alignment.STRICT if value.lower() == "s" else Alignment.RELAXED


def _psd(value: str) -> Psd:
    return {"y": Psd.YES, "n": Psd.NO}.get(value.lower(), Psd.UNKNOWN)


def _options(value: str) -> frozenset[str]:
    """Read fo=; what breaks its rules is the default (RFC 9989 4.7)."""
    options = value.lower().split(":")
    valid = set(options) <= set("01ds") and len(set(options)) == len(options) and not {"0", "1"} <= set(options)
    return frozenset(options) if valid else frozenset("0")


def _uris(value: str) -> tuple[str, ...]:
    matches = [_URI.fullmatch(part.strip(" \t")) for part in value.split(",")]
    return tuple(match[1] for match in matches if match and _is_reachable(match[1]))


def _is_reachable(uri: str) -> bool:
    return not uri.lower().startswith("mailto:") or _MAILBOX_URI.fullmatch(uri) is not None


def _shown(octets: bytes) -> str:
    text = re.sub(r"[^ -~]", "?", octets[:_SHOWN].decode("ascii", "replace"))
    return text if len(octets) <= _SHOWN else text + "..."
