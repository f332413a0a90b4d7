"""The 203 cases of the third-party SPF suite: as a function, and over real DNS."""

import pytest

from forwarder.auth.spf.verify import check_host
from forwarder.net.resolver import DnsResolver
from forwarder.ports import Resolver
from tests.auth.spf.zone import Case, cases, parameters, table
from tests.fakes import FakeClock
from tests.net.nameserver import Behaviour, serving


async def judge(case: Case, resolver: Resolver) -> None:
    result = await check_host(resolver, case.host, case.domain, case.mail_from, case.helo, explain=True)
    assert result.status.value in case.results, result
    assert result.reason or result.status.value == "pass"
    if case.explanation is not None:
        assert result.explanation == case.explanation


class Everything(dict[tuple[str, str], Behaviour]):
    """One behaviour for every question."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__()
        self._behaviour = behaviour

    def get(self, key: object, default: object = None, /) -> Behaviour:
        return self._behaviour


def test_the_suite_is_complete() -> None:
    assert len(cases()) == 203
    assert len({case.scenario for case in cases()}) == 16


@pytest.mark.parametrize("case", parameters())
async def test_as_a_function(case: Case) -> None:
    await judge(case, case.zone)


@pytest.mark.parametrize("case", parameters())
async def test_over_real_dns(case: Case) -> None:
    async with serving(Everything(table(case.zone))) as server:
        resolver = DnsResolver([server.where], FakeClock(), timeout=1 if case.zone.silent else 5)
        try:
            await judge(case, resolver)
        finally:
            await resolver.close()
