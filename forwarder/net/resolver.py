"""DNS as `ports.Resolver`: asked of recursive name servers, cached, checked.

Contract: no method raises for what DNS may answer. Whatever leaves doubt (time-out, SERVFAIL, REFUSED, malformed
messages, loops) is FAILED with a reason, which is temporary; NXDOMAIN and NODATA are told apart. A name that DNS
cannot hold (a label over 63 octets, 255 in all, an empty label) does not exist: NXDOMAIN, permanently.

- Every question has `timeout` seconds in all, over all servers, repetitions and CNAMEs.
- Identical questions at one time share one query; giving up one of them leaves the others alone.
- Positive answers are cached for their TTL within 5 seconds to 1 hour, negative ones by their SOA for at most
  5 minutes (RFC 2308 5), failures for one second. The cache is bounded in entries and in octets per entry.
- Host names in answers are canonical (`model.address`); records that hold none are dropped.

Left out on purpose: validating DNSSEC (the AD bit of the name server is passed on; it is worth as much as the way
there, so ask a local one), search lists and hosts files, and following a change of /etc/resolv.conf while running.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Generic, TypeVar

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype

from forwarder.model.address import AddressError, canonical_name, parse_ip
from forwarder.net.dns_exchange import NameServer, NoResponse, exchange, parse_nameserver
from forwarder.ports import Answer, Clock, DnsStatus, Mx

T = TypeVar("T")

RESOLV_CONF = Path("/etc/resolv.conf")

_PAYLOAD = 1232  # octets of UDP that pass everywhere (RFC 9715)
_MAX_CNAMES = 8
_MAX_RECORDS = 100
_TTL = (5, 3600)
_NEGATIVE_TTL = (5, 300)
_FAILED_TTL = 1
_MAX_CACHED_OCTETS = 8192  # of one answer; larger ones are asked for again
_IN_FLIGHT = 256  # sockets at a time

_FIRST_ROUND = 0.4  # share of the time after which everybody is asked a second time


@dataclass(frozen=True, slots=True)
class _Found(Generic[T]):
    answer: Answer[T]
    until: float


class DnsResolver:
    """Implements `ports.Resolver`. Belongs to one event loop; `close` it before the loop ends."""

    def __init__(
        self, nameservers: Sequence[NameServer], clock: Clock, *, timeout: float = 5.0, cache_entries: int = 4096
    ) -> None:
        self._nameservers = tuple(nameservers)
        self._clock = clock
        self._timeout = timeout
        self._cache_entries = cache_entries
        self._cache: OrderedDict[tuple[str, str], _Found[Any]] = OrderedDict()
        self._running: dict[tuple[str, str], asyncio.Task[Answer[Any]]] = {}
        self._sockets = asyncio.Semaphore(_IN_FLIGHT)

    async def mx(self, name: str) -> Answer[Mx]:
        """Give the MX records, in no particular order."""
        answer = await self._lookup(name, "MX", _mx)
        if answer.status is DnsStatus.NODATA and answer.reason:
            # They exist, so the fallback to A of RFC 5321 5.1 must not happen; and typing errors get corrected.
            return replace(answer, status=DnsStatus.FAILED)
        return answer

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        """Give the A records, or with `ipv6` the AAAA records, as text."""
        return await self._lookup(name, "AAAA" if ipv6 else "A", lambda record: str(ip_address(record.address)))

    async def txt(self, name: str) -> Answer[bytes]:
        """Give the TXT records, the strings of each joined."""
        return await self._lookup(name, "TXT", lambda record: b"".join(record.strings))

    async def ptr(self, address: str) -> Answer[str]:
        """Give the names that an IP address points to."""
        try:
            name = parse_ip(address).reverse_pointer
        except ValueError:
            return _impossible("not an IP address")
        return await self._lookup(name, "PTR", lambda record: _host(record.target))

    async def cname(self, name: str) -> Answer[str]:
        """Give the name that another stands for, which all other questions follow by themselves."""
        return await self._lookup(name, "CNAME", lambda record: _visible(record.target).lower())

    async def soa(self, name: str) -> Answer[str]:
        """Give the first name server of the zone that begins at a name; NODATA within a zone."""
        return await self._lookup(name, "SOA", lambda record: _visible(record.mname).lower())

    async def close(self) -> None:
        """Give up what is running; whoever waits for it is told FAILED."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _lookup(self, name: str, kind: str, read: Callable[[Any], T]) -> Answer[T]:
        key = (name.removesuffix(".").lower(), kind)
        if cached := self._cached(key):
            return cached
        task = self._running.get(key)
        if task is None:
            try:
                question = _dns_name(key[0])
            except ValueError as error:
                return _impossible(str(error))
            task = asyncio.create_task(self._ask(question, kind, read))
            self._running[key] = task
            task.add_done_callback(lambda done: self._keep(key, done))
        await asyncio.wait({task})  # unlike awaiting the task, this does not cancel it when we are cancelled
        return _failed("the gateway is stopping") if task.cancelled() else task.result()

    def _cached(self, key: tuple[str, str]) -> Answer[Any] | None:
        found = self._cache.get(key)
        if found is None:
            return None
        left = found.until - self._clock.monotonic()
        if left <= 0:
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        if left < found.answer.ttl:  # counted down once a second, not for every question
            found = _Found(replace(found.answer, ttl=int(left)), found.until)
            self._cache[key] = found
        return found.answer

    def _keep(self, key: tuple[str, str], task: "asyncio.Task[Answer[Any]]") -> None:
        del self._running[key]
        if task.cancelled() or task.exception():
            return
        answer = task.result()
        if sum(len(str(record)) for record in answer.records) <= _MAX_CACHED_OCTETS:
            self._cache[key] = _Found(answer, self._clock.monotonic() + _lifetime(answer))
            if len(self._cache) > self._cache_entries:
                self._cache.popitem(last=False)

    async def _ask(self, name: dns.name.Name, kind: str, read: Callable[[Any], T]) -> Answer[T]:
        try:
            async with asyncio.timeout(self._timeout):
                for step in range(_MAX_CNAMES):
                    found = _interpret(await self._response(name, kind), read)
                    if isinstance(found, Answer):
                        return found if step == 0 else replace(found, secure=False)  # AD spoke of the last step alone
                    name = found
        except TimeoutError:
            return _failed(f"the name servers did not answer within {self._timeout:g} s")
        except NoResponse as error:
            return _failed(str(error))
        return _failed("the chain of CNAMEs is too long or a loop")

    async def _response(self, name: dns.name.Name, kind: str) -> dns.message.Message:
        """Ask one server after another, and in a second round again those that were silent; raise `NoResponse`."""
        reason = "no name server is configured"
        silent = list(self._nameservers)
        first = self._timeout * _FIRST_ROUND / max(len(silent), 1)
        for patience in (first, None):
            for server in tuple(silent):
                try:
                    async with asyncio.timeout(patience if patience else self._timeout / len(silent)):
                        return await self._exchange(name, kind, server)
                except TimeoutError:
                    reason = f"{server} did not answer in time"
                except NoResponse as error:
                    reason = str(error)
                    silent.remove(server)
        raise NoResponse(reason)

    async def _exchange(self, name: dns.name.Name, kind: str, server: NameServer) -> dns.message.Message:
        async with self._sockets:
            query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD)
            query.flags |= dns.flags.AD  # RFC 6840 5.7: we understand AD in the response
            response = await exchange(query, server)
            if response.rcode() == dns.rcode.FORMERR:  # RFC 6891 7: perhaps it has never heard of EDNS
                response = await exchange(dns.message.make_query(name, kind), server)
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise NoResponse(f"{server} answered {dns.rcode.to_text(response.rcode())}")
        return response


def system_nameservers(path: Path = RESOLV_CONF) -> tuple[NameServer, ...]:
    """Give the name servers of a resolv.conf; 127.0.0.1 where it names none, as the C library does."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    servers = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                servers.append(parse_nameserver(words[1]))
            except ValueError:
                continue
    return tuple(servers[:3]) or (NameServer("127.0.0.1"),)


def _interpret(response: dns.message.Message, read: Callable[[Any], T]) -> Answer[T] | dns.name.Name:
    """Give what a response says, or the name at which its chain of CNAMEs leaves off."""
    assert isinstance(response, dns.message.QueryMessage)
    try:
        chain = response.resolve_chaining()
    except Exception as error:  # too long, answers beside NXDOMAIN, or no question: all the server's fault
        return _failed(f"the response of the name server makes no sense ({type(error).__name__})")
    secure = bool(response.flags & dns.flags.AD)
    if chain.answer is not None:
        return _records(chain.answer, read, secure=secure, ttl=_within(chain.minimum_ttl, _TTL))
    has_soa = any(records.rdtype == dns.rdatatype.SOA for records in response.authority)
    ttl = _within(chain.minimum_ttl if has_soa else 0, _NEGATIVE_TTL)  # RFC 2308 5: no SOA, no caching
    if response.rcode() == dns.rcode.NXDOMAIN:
        return Answer(DnsStatus.NXDOMAIN, secure=secure, ttl=ttl)
    if chain.cnames and not has_soa:
        return chain.canonical_name  # a server that does not recurse for us leaves the rest of the way to us
    return Answer(DnsStatus.NODATA, secure=secure, ttl=ttl)


def _records(records: Iterable[dns.rdata.Rdata], read: Callable[[Any], T], *, secure: bool, ttl: int) -> Answer[T]:
    values: dict[T, None] = {}
    for record in list(records)[:_MAX_RECORDS]:
        try:
            values[read(record)] = None
        except (AddressError, ValueError):
            continue
    if not values:
        return Answer(DnsStatus.NODATA, (), "none of its records is usable", secure, ttl)
    return Answer(DnsStatus.FOUND, tuple(values), "", secure, ttl)


def _mx(record: Any) -> Mx:
    return Mx(record.preference, "" if record.exchange == dns.name.root else _exchange(record.exchange))  # RFC 7505 3


def _exchange(name: dns.name.Name) -> str:
    """Give a mail exchanger, also one that is no host name: SPF asks for it (RFC 7208 5.4), and it has no address."""
    text = _visible(name)
    try:
        return canonical_name(text)
    except AddressError:
        return text.lower()


def _host(name: dns.name.Name) -> str:
    return canonical_name(_visible(name))


def _visible(name: dns.name.Name) -> str:
    text = b".".join(name.labels).decode("ascii").removesuffix(".")
    if any(b"." in label for label in name.labels) or not all("!" <= character <= "~" for character in text):
        raise ValueError("a dot within a label would read as another name, and a control character as anything")
    return text


def _dns_name(name: str) -> dns.name.Name:
    """Give a name for the question. Labels are taken as they are: SPF macros put local parts into them."""
    try:
        return dns.name.Name([*name.encode("ascii").split(b"."), b""])
    except UnicodeEncodeError:
        raise ValueError("a name in DNS is ASCII") from None
    except dns.exception.DNSException:
        raise ValueError("DNS cannot hold such a name") from None


def _lifetime(answer: Answer[Any]) -> int:
    return _FAILED_TTL if answer.status is DnsStatus.FAILED else answer.ttl


def _within(ttl: int, bounds: tuple[int, int]) -> int:
    return min(max(ttl, bounds[0]), bounds[1])


def _failed(reason: str) -> Answer[Any]:
    return Answer(DnsStatus.FAILED, reason=reason)


def _impossible(reason: str) -> Answer[Any]:
    return Answer(DnsStatus.NXDOMAIN, reason=reason)
