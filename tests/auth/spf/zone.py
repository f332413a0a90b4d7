"""The third-party SPF suite: its cases, and each scenario's zone as a resolver and as a table for a name server.

Conventions of the suite: records of type SPF stand for TXT unless the name has TXT; `TXT: NONE` suppresses them; a
bare `TIMEOUT` means that whatever the name has no records for is never answered; a list of results: any of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from typing import Any

import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.txtbase
import dns.rrset
import pytest
import yaml
from dns.rdtypes.ANY.MX import MX

from forwarder.ports import Answer, DnsStatus, Mx
from tests.conformance import folder

MAX_CNAMES = 8
KINDS = ("TXT", "A", "AAAA", "MX", "PTR", "CNAME")

Record = str | bytes | Mx


@dataclass(frozen=True)
class ZoneResolver:
    """Answers from `{name: {type: records}}`; what a name in `silent` has no records for is never answered."""

    names: dict[str, dict[str, list[Any]]]
    silent: frozenset[str] = frozenset()
    asked: list[tuple[str, str]] = field(default_factory=list)

    def look(self, name: str, kind: str) -> tuple[DnsStatus, list[Any]]:
        for _ in range(MAX_CNAMES):
            here = self.names.get(name, {})
            if found := here.get(kind):
                return DnsStatus.FOUND, found
            if name in self.silent:
                return DnsStatus.FAILED, []
            if "CNAME" not in here:
                exists = any(known == name or known.endswith("." + name) for known in self.names)
                return (DnsStatus.NODATA if exists else DnsStatus.NXDOMAIN), []
            name = here["CNAME"][0]
        return DnsStatus.FAILED, []

    def _answer(self, name: str, kind: str) -> Answer[Any]:
        self.asked.append((name, kind))
        status, records = self.look(name, kind)
        return Answer(status, tuple(records), "it is silent" if status is DnsStatus.FAILED else "")

    async def mx(self, name: str) -> Answer[Mx]:
        return self._answer(name, "MX")

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        return self._answer(name, "AAAA" if ipv6 else "A")

    async def txt(self, name: str) -> Answer[bytes]:
        return self._answer(name, "TXT")

    async def ptr(self, address: str) -> Answer[str]:
        return self._answer(ip_address(address).reverse_pointer, "PTR")


@dataclass(frozen=True)
class Case:
    """One case: who connects, what is said, which results are right. `explanation` is None where it does not matter."""

    name: str
    scenario: str
    zone: ZoneResolver
    helo: str
    host: str
    mail_from: str
    results: tuple[str, ...]
    explanation: str | None

    @property
    def domain(self) -> str:
        """The domain of the identity: that of HELO for the null sender."""
        return self.mail_from.rpartition("@")[2] or self.helo

    def __str__(self) -> str:
        return f"{self.scenario}-{self.name}".replace(" ", "_")


@cache
def cases() -> tuple[Case, ...]:
    """Give all cases of the suite, or skip."""
    path = folder() / "spf" / "rfc7208-tests.yml"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the conformance data")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open("rb") as file:
        return tuple(case for scenario in yaml.load_all(file, loader) for case in _cases(scenario))


def parameters() -> list[Any]:
    """Give the cases for `parametrize`; where there are none, one that skips and says why."""
    try:
        return [pytest.param(case, id=str(case)) for case in cases()]
    except pytest.skip.Exception as reason:
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=str(reason)))]


def _cases(scenario: dict[str, Any]) -> list[Case]:
    zone = _zone(scenario["zonedata"])
    found = []
    for name, test in scenario["tests"].items():
        results = test["result"] if isinstance(test["result"], list) else [test["result"]]
        explanation = test.get("explanation")
        found.append(
            Case(
                str(name),
                scenario["description"],
                ZoneResolver(zone.names, zone.silent),
                str(test["helo"]),
                str(test["host"]),
                test["mailfrom"],
                tuple(results),
                "" if explanation == "DEFAULT" else explanation,
            )
        )
    return found


def _zone(data: dict[str, list[Any]]) -> ZoneResolver:
    names: dict[str, dict[str, list[Any]]] = {}
    for name, entries in data.items():
        kinds = names.setdefault(str(name).lower(), {})
        pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
        has_txt = any(kind == "TXT" for kind, _ in pairs)
        for kind, value in pairs:
            if (kind == "SPF" and has_txt) or (kind, value) == ("TXT", "NONE"):
                continue
            wanted = "TXT" if kind == "SPF" else kind
            kinds.setdefault(wanted, []).append(_record(wanted, value))
    return ZoneResolver(names, frozenset(str(name).lower() for name, entries in data.items() if "TIMEOUT" in entries))


def _record(kind: str, value: Any) -> Record:
    if kind == "TXT":
        return "".join(value).encode("latin-1")
    if kind == "MX":
        return Mx(int(value[0]), value[1].lower().removesuffix("."))
    return str(value).lower().removesuffix(".")


def table(zone: ZoneResolver) -> Callable[[dns.message.Message, str], Sequence[bytes]]:
    """Give a behaviour for `tests.net.nameserver` that answers any question as the zone does."""

    def answer(query: dns.message.Message, transport: str) -> Sequence[bytes]:
        question = query.question[0]
        response = dns.message.make_response(query, recursion_available=True)
        name = b".".join(question.name.labels[:-1]).decode("latin-1").lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        for _ in range(MAX_CNAMES):
            alias = zone.names.get(name, {}).get("CNAME")
            if alias is None:
                break
            response.answer.append(dns.rrset.from_rdata(_name(name), 300, _wire("CNAME", alias[0])))
            name = alias[0]
        status, records = zone.look(name, kind)
        if status is DnsStatus.FAILED and name in zone.silent:
            return []
        if records:
            response.answer.append(dns.rrset.from_rdata_list(_name(name), 300, [_wire(kind, r) for r in records]))
        elif status is DnsStatus.NXDOMAIN:
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text(".", 300, "IN", "SOA", "ns.test. owner.test. 1 2 3 4 5"))
        return [response.to_wire(max_size=65535)]

    return answer


def _name(text: str) -> dns.name.Name:
    """Give the name whose labels are what stands between the dots, spaces and all."""
    return dns.name.Name([*text.encode("latin-1").split(b"."), b""]) if text else dns.name.root


def _wire(kind: str, record: Any) -> dns.rdata.Rdata:
    rdclass, rdtype = dns.rdataclass.IN, dns.rdatatype.from_text(kind)
    if kind == "TXT":
        pieces = [record[start : start + 255] for start in range(0, max(len(record), 1), 255)]
        return dns.rdtypes.txtbase.TXTBase(rdclass, rdtype, pieces)
    if kind == "MX":
        return MX(rdclass, rdtype, record.preference, _name(record.host))  # type: ignore[no-untyped-call]
    return dns.rdata.from_text(rdclass, rdtype, f"{record}." if kind in ("PTR", "CNAME") else record)
