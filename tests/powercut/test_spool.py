"""The real spool keeps its promises over every power cut that is tried; a long campaign: `python -m tests.powercut`."""

from pathlib import Path

import pytest

from tests.powercut import campaign, strace
from tests.powercut.recorder import Recording
from tests.powercut.spool_campaign import again, record, recoveries
from tests.powercut.spool_promises import check

pytestmark = pytest.mark.skipif(bool(strace.missing()), reason=strace.missing() or "strace works")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("powercut")


@pytest.fixture(scope="module")
def recording(kept: Path) -> Recording:
    return record(kept)


def test_everything_promised_survives_a_cut(recording: Recording, kept: Path) -> None:
    states = campaign.sample(recording, seed=1, size=400)
    tally = campaign.run(recording, check, states, again=again(kept / "recording"))
    assert tally.checked > 100


def test_a_cut_during_recovery_loses_nothing_either(recording: Recording, kept: Path) -> None:
    for path, recovery in recoveries(recording, kept, seed=1, size=2):
        tally = campaign.run(recovery, check, campaign.sample(recovery, seed=1, size=40), again=again(path))
        assert tally.checked > 10
