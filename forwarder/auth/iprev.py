"""iprev: does the client's address have a name that points back to it? (RFC 8601 2.7.3, 3)

Contract: `check` never raises for what DNS may say and asks at most `1 + MAX_NAMES` questions. A name is given only
when it is confirmed: an unconfirmed one is whatever the owner of the address wished to write.

Left out on purpose: comparing the name with what HELO said, which proves nothing.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from forwarder.model.address import client_ip, parse_ip
from forwarder.ports import DnsStatus, Resolver

MAX_NAMES = 3  # RFC 8601 3 asks for a limit; honest clients have one name


class IprevStatus(Enum):
    """What the check came to (RFC 8601 2.7.3)."""

    NONE = "none"  # the client has no IP address
    PASS = "pass"  # noqa: S105 - a name of the address leads back to it
    FAIL = "fail"  # it has names, and none of them leads back
    TEMPERROR = "temperror"  # DNS did not answer; later it may
    PERMERROR = "permerror"  # the address has no name


@dataclass(frozen=True, slots=True)
class IprevResult:
    """`name` is the confirmed name, canonical, or ""; `reason` is empty only for a pass."""

    status: IprevStatus
    name: str
    reason: str


async def check(resolver: Resolver, ip: str) -> IprevResult:
    """Find the client's name and follow it back. An IPv4-mapped address is an IPv4 address."""
    try:
        address = client_ip(ip)
    except ValueError:
        return IprevResult(IprevStatus.NONE, "", "the client has no IP address")
    names = await resolver.ptr(str(address))
    if names.status is DnsStatus.FAILED:
        return IprevResult(IprevStatus.TEMPERROR, "", f"DNS did not answer for the name of {address}: {names.reason}")
    if not names.records:
        return IprevResult(IprevStatus.PERMERROR, "", f"{address} has no reverse name")
    return await _follow_back(resolver, address, names.records[:MAX_NAMES])


async def _follow_back(resolver: Resolver, address: IPv4Address | IPv6Address, names: tuple[str, ...]) -> IprevResult:
    unanswered = ""
    for name in names:
        answer = await resolver.addresses(name, ipv6=address.version == 6)
        if any(_is_same(record, address) for record in answer.records):
            return IprevResult(IprevStatus.PASS, name, "")
        if answer.status is DnsStatus.FAILED:
            unanswered = answer.reason
    if unanswered:  # the one that did not answer may have led back
        return IprevResult(IprevStatus.TEMPERROR, "", f"DNS did not answer for a reverse name: {unanswered}")
    return IprevResult(IprevStatus.FAIL, "", f"no reverse name of {address} leads back to it")


def _is_same(record: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return parse_ip(record) == address
    except ValueError:
        return False
