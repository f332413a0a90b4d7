"""The 171 validation cases of the third-party ARC suite."""

import pytest

from forwarder.auth.arc.verify import ArcStatus, verify
from tests.auth.arc.suite import Case, cases, parameters
from tests.auth.dkim.signer import NOW, incoming
from tests.fakes import FakeResolver


def test_the_suite_is_complete() -> None:
    assert len(cases()) == 171
    assert len({case.name for case in cases()}) == 171


@pytest.mark.parametrize("case", parameters())
async def test_case(case: Case) -> None:
    result = await verify(FakeResolver(case.zone), incoming(case.message), NOW)
    assert result.status is case.status, result
    assert bool(result.reason) == (result.status is not ArcStatus.PASS)
    assert not result.temporary
