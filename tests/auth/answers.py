"""A resolver that says anything at all, for properties that must hold whatever DNS answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st

from forwarder.ports import Answer, DnsStatus, Mx

NAMES = ("a.example", "b.a.example", "c.example", "example", "", ".", "a..b", "x" * 64 + ".example", "ü.example", "\0")
_MANY = 13  # more than any limit admits

names = st.one_of(st.sampled_from(NAMES), st.text(max_size=20))
addresses = st.one_of(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]), st.ip_addresses().map(str), names)


@dataclass
class RandomResolver:
    """Asks `choose` for the answer to each question, the same for the same question."""

    choose: Callable[[str, str], Answer[Any]]
    asked: list[tuple[str, str]] = field(default_factory=list)
    _known: dict[tuple[str, str], Answer[Any]] = field(default_factory=dict)

    def _answer(self, name: str, kind: str) -> Answer[Any]:
        self.asked.append((name, kind))
        if (name, kind) not in self._known:
            self._known[name, kind] = self.choose(name, kind)
        return self._known[name, kind]

    async def mx(self, name: str) -> Answer[Mx]:
        return self._answer(name, "MX")

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        return self._answer(name, "AAAA" if ipv6 else "A")

    async def txt(self, name: str) -> Answer[bytes]:
        return self._answer(name, "TXT")

    async def ptr(self, address: str) -> Answer[str]:
        return self._answer(ip_address(address).reverse_pointer, "PTR")


def answers(kind: str, texts: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[Answer[Any]]:
    """Answers of any status with records of a type; `texts` makes the TXT records."""
    records: dict[str, st.SearchStrategy[Any]] = {
        "TXT": texts if texts is not None else st.binary(max_size=40),
        "MX": st.builds(Mx, st.integers(0, 65535), names),
        "PTR": names,
        "A": addresses,
        "AAAA": addresses,
    }
    some = st.lists(records[kind], min_size=1, max_size=_MANY).map(tuple)
    nothing: list[Answer[Any]] = [Answer(DnsStatus.NODATA), Answer(DnsStatus.NXDOMAIN)]
    failed: Answer[Any] = Answer(DnsStatus.FAILED, reason="no answer")
    return st.one_of(st.builds(Answer, st.just(DnsStatus.FOUND), some), st.sampled_from([*nothing, failed]))
