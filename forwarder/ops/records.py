"""The DNS records that a gateway needs, as data and as a zone file: what `dns records` prints and `dns check` expects.

`records` makes them for a `Site`; nothing is asked and nothing can fail. `zone_file` writes them so that a name server
accepts each zone's part: names in full with the root's dot, TXT in strings of at most 255 octets, and as comments what
is no record of these zones: a PTR, which the provider sets; what is optional; a record whose address is not known.

The DMARC policy begins with p=none, and the strict one stands beside it as a comment. A newcomer often sends mail from
the domain elsewhere, by "send mail as" for example, which DKIM does not sign for the domain: p=reject would lose that
at once. np=reject costs nobody anything: no mail comes from names that do not exist. aspf=s keeps what we forward from
passing as the domain's own: SPF passes for the SRS domain, or the host, whoever wrote From, and either is mostly of the
same organisation. In the SRS domain nobody writes at all, hence its p=reject.

Left out on purpose: SOA and NS, which the zone has already, SPF for the served domains, which says who else sends for
them (that we do not know), and the policies that MTA-STS and TLSA records promise.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from textwrap import wrap

from forwarder.auth.dmarc.organisation import public_organisation

EXAMPLE_IPV4, EXAMPLE_IPV6 = "192.0.2.1", "2001:db8::1"  # RFC 5737, RFC 3849
TTL = 3600  # seconds

_TXT_OCTETS = 255  # RFC 1035 3.3: a character-string
_WIDTH = 118


class Use(Enum):
    """What is to be done with a record."""

    PUBLISH = "publish"
    PROVIDER = "ask your provider"  # whose zone it is in
    OPTIONAL = "optional"
    EXAMPLE = "put in the address"  # the one in it is an example


@dataclass(frozen=True, slots=True)
class DkimRecord:
    """The published half of a key. `note` says what is special about it, "" for one that signs.

    `needed` is False for a key that signs no more.
    """

    domain: str
    name: str
    text: str
    note: str = ""
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway as DNS sees it. Names are canonical; `addresses` are the public ones of the host, () when unknown."""

    hostname: str
    srs_domain: str
    served: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    dkim: tuple[DkimRecord, ...] = ()

    @property
    def owners(self) -> tuple[str, ...]:
        """Whom records are for: the served domains, the SRS domain, the host, each once."""
        return tuple(dict.fromkeys((*self.served, self.srs_domain, self.hostname)))


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `name` is canonical. `data` is as in a zone file, but for TXT, where it is the bare text.

    `owner` is the domain that it is for, `why` a sentence or two for the administrator.
    """

    name: str
    kind: str
    data: str
    owner: str
    why: str
    use: Use = Use.PUBLISH

    @property
    def presented(self) -> str:
        """The data as a zone file has it."""
        return quoted(self.data) if self.kind == "TXT" else self.data


@dataclass(frozen=True, slots=True)
class Zone:
    """The records that probably stand in one zone: those of one organisation."""

    name: str
    records: tuple[Record, ...] = field(default=())


def records(site: Site) -> tuple[Record, ...]:
    """Give all records, each once, in the order in which they are best published."""
    found: dict[tuple[str, str, str], Record] = {}
    for domain in site.served:
        _add(found, _domain(site, domain))
    _add(found, _host(site))
    _add(found, _srs(site))
    _add(found, (record for record in _dkim(site) if (record.name, "TXT", record.data) not in found))
    return tuple(found.values())


def zones(found: Iterable[Record]) -> tuple[Zone, ...]:
    """Sort records into zones, in the order in which these come up; what the provider sets is in the last, ""."""
    sorted_: dict[str, list[Record]] = {}
    for record in found:
        name = "" if record.use is Use.PROVIDER else public_organisation(record.owner)
        sorted_.setdefault(name, []).append(record)
    return tuple(Zone(name, tuple(sorted_[name])) for name in sorted(sorted_, key=lambda name: not name))


def zone_file(found: Sequence[Zone]) -> str:
    """Write zones as RFC 1035 5 has it."""
    return "\n".join(line for zone in found for line in _zone_lines(zone)) + "\n"


def quoted(text: str) -> str:
    """Write a text as the strings of a TXT record (RFC 1035 5.1)."""
    octets = text.encode()
    pieces = [octets[start : start + _TXT_OCTETS] for start in range(0, max(len(octets), 1), _TXT_OCTETS)]
    return " ".join('"' + "".join(map(_character, piece)) + '"' for piece in pieces)


def _character(octet: int) -> str:
    if octet in b'"\\':
        return "\\" + chr(octet)
    return chr(octet) if 0x20 <= octet < 0x7F else f"\\{octet:03d}"


def _add(found: dict[tuple[str, str, str], Record], more: Iterable[Record]) -> None:
    for record in more:
        found.setdefault((record.name, record.kind, record.data), record)


def _domain(site: Site, domain: str) -> Iterator[Record]:
    yield _mx(site, domain, f"Mail for {domain} comes here. Never a CNAME, never proxied.")
    yield from _dkim(site, domain)
    rua = f"rua=mailto:postmaster@{domain}"
    tail = f"aspf=s; {rua}" if is_lent_spf(site, domain) else rua
    yield Record(
        f"_dmarc.{domain}",
        "TXT",
        f"v=DMARC1; p=none; np=reject; {tail}",
        domain,
        "DMARC, to begin with: reports come, nothing is lost. Mail that you send from this domain elsewhere, by "
        '"send mail as" for example, would be lost under p=reject unless it is signed for the domain.',
    )
    yield Record(
        f"_dmarc.{domain}",
        "TXT",
        f"v=DMARC1; p=reject; sp=reject; np=reject; {tail}",
        domain,
        "In its place, when the reports show that all of your own mail passes: nobody else can send in your name.",
        Use.OPTIONAL,
    )
    yield Record(
        f"_smtp._tls.{domain}",
        "TXT",
        f"v=TLSRPTv1; {rua}",
        domain,
        "Big senders report when TLS with this host fails.",
        Use.OPTIONAL,
    )
    yield Record(
        f"_mta-sts.{domain}",
        "TXT",
        "v=STSv1; id=1",
        domain,
        f"Only once https://mta-sts.{domain}/.well-known/mta-sts.txt serves a policy (mode: testing first) and this "
        "host has a certificate that is valid for its name. A new id for each change.",
        Use.OPTIONAL,
    )


def is_lent_spf(site: Site, domain: str) -> bool:
    """Say whether SPF of what we forward is aligned, unless aspf=s forbids it, with a From of that domain."""
    own = public_organisation(domain)
    return any(public_organisation(each) == own for each in (site.srs_domain, site.hostname))


def _mx(site: Site, domain: str, why: str) -> Record:
    return Record(domain, "MX", f"10 {site.hostname}.", domain, why)


def _dkim(site: Site, domain: str | None = None) -> Iterator[Record]:
    for key in site.dkim:
        if domain in (None, key.domain):
            why = f"DKIM: the key that signs for {key.domain}." if not key.note else f"DKIM: {key.note}."
            yield Record(key.name, "TXT", key.text, key.domain, why)


def _host(site: Site) -> Iterator[Record]:
    host = site.hostname
    yield from _addresses(site)
    if host != site.srs_domain:
        why = "SPF of the host itself, which sends bounces in its own name (MAIL FROM:<>)."
        yield Record(host, "TXT", "v=spf1 a -all", host, why)
    for address in site.addresses or (EXAMPLE_IPV4,):
        yield Record(
            ip_address(address).reverse_pointer,
            "PTR",
            f"{host}.",
            host,
            f"Your provider sets this: the reverse name of {address} must be {host}.",
            Use.PROVIDER,
        )
    yield Record(
        f"_25._tcp.{host}",
        "TLSA",
        "3 1 1 " + "0" * 64,
        host,
        "DANE: only with DNSSEC, with the SHA-256 of the certificate's public key for the zeros, and if renewals keep "
        "that key: openssl x509 -in CERTIFICATE -pubkey -noout | openssl pkey -pubin -outform DER | openssl sha256",
        Use.OPTIONAL,
    )
    yield Record(
        public_organisation(host), "CAA", '0 issue "letsencrypt.org"', host, "Who may issue certificates.", Use.OPTIONAL
    )


def _addresses(site: Site) -> Iterator[Record]:
    host = site.hostname
    for address in site.addresses:
        why = "The address of this host." if ":" not in address else "Only with a PTR: Gmail refuses IPv6 without."
        yield Record(host, "AAAA" if ":" in address else "A", address, host, why)
    if not site.addresses:
        why = f"EXAMPLE: put the public IPv4 address of this host for {EXAMPLE_IPV4}, or give it with --ipv4."
        yield Record(host, "A", EXAMPLE_IPV4, host, why, Use.EXAMPLE)
        why = f"EXAMPLE: only if the host has an IPv6 address with a PTR; that for {EXAMPLE_IPV6}, or --ipv6."
        yield Record(host, "AAAA", EXAMPLE_IPV6, host, why, Use.EXAMPLE)


def _srs(site: Site) -> Iterator[Record]:
    domain, host = site.srs_domain, site.hostname
    yield _mx(site, domain, "Rewritten senders have this domain: bounces to them come back here.")
    if domain == host:
        own = "v=spf1 a -all"
    elif site.addresses:
        own = " ".join(["v=spf1", *(f"ip{ip_address(each).version}:{each}" for each in site.addresses), "-all"])
    else:
        own = f"v=spf1 a:{host} -all"
    yield Record(domain, "TXT", own, domain, "SPF: this host, and nobody else, sends with rewritten senders.")
    if domain != host and domain not in site.served:
        why = "Nobody writes from this domain: what claims to be from it is forged, and our SPF would make it pass."
        yield Record(f"_dmarc.{domain}", "TXT", "v=DMARC1; p=reject; sp=reject", domain, why)


def _zone_lines(zone: Zone) -> Iterator[str]:
    width = max(len(record.name) for record in zone.records) + 1
    if zone.name:
        yield f"; ---- Zone {zone.name} ----"
        yield f"$ORIGIN {zone.name}."
        yield f"$TTL {TTL}"
    else:
        yield "; ---- Not in your zones ----"
    why = ""
    for record in zone.records:
        if record.why != why:
            yield from ("", *(f"; {line}" for line in wrap(_remark(record), _WIDTH)))
        why = record.why
        mark = "" if record.use is Use.PUBLISH else "; "
        yield f"{mark}{record.name + '.':<{width}}  {record.kind:<4}  {record.presented}"
    yield ""


def _remark(record: Record) -> str:
    return f"Optional. {record.why}" if record.use is Use.OPTIONAL else record.why
