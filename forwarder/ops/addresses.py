"""Which (address, port) pairs are ourselves: mail must not be sent there, it would only come back.

A wild card stands for every address of this machine, as Linux lists them; where it cannot be asked, for the loopback
addresses alone. What is missed here is caught by the loop mark and the count of Received lines.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address
from pathlib import Path

_IPV4 = Path("/proc/net/fib_trie")
_IPV6 = Path("/proc/net/if_inet6")
_LOCAL = re.compile(r"([0-9.]+)\n\s*/32 host LOCAL")


def own_addresses(
    listening: Iterable[tuple[str, int]], ipv4: Path = _IPV4, ipv6: Path = _IPV6
) -> frozenset[tuple[str, int]]:
    """Give the pairs that lead to us, wild cards spelt out."""
    found = set()
    for address, port in listening:
        if address == "0.0.0.0":  # noqa: S104 - recognised, not bound
            found |= {(one, port) for one in _ipv4_addresses(ipv4)}
        elif address == "::":
            found |= {(one, port) for one in _ipv6_addresses(ipv6)}
        else:
            found.add((address, port))
    return frozenset(found)


def _ipv4_addresses(source: Path) -> set[str]:
    return {"127.0.0.1", *_LOCAL.findall(_read(source))}


def _ipv6_addresses(source: Path) -> set[str]:
    lines = (line.split() for line in _read(source).splitlines())
    return {"::1", *(str(IPv6Address(int(words[0], 16))) for words in lines if words)}


def _read(source: Path) -> str:
    try:
        return source.read_text()
    except OSError:
        return ""
