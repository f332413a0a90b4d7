"""The real spool keeps its promises over every power cut that is tried; a long campaign: `python -m tests.powercut`."""

from pathlib import Path

import pytest

from tests.powercut import campaign, strace
from tests.powercut.recorder import Recording
from tests.powercut.replayer import states
from tests.powercut.spool_campaign import again, making, record, recoveries
from tests.powercut.spool_promises import check

pytestmark = pytest.mark.skipif(bool(strace.missing()), reason=strace.missing() or "strace works")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("powercut")


@pytest.fixture(scope="module")
def recording(kept: Path) -> Recording:
    return record("live", kept)


def test_everything_promised_survives_a_cut(recording: Recording, kept: Path) -> None:
    wanted = campaign.sample(recording, seed=1, size=300, first_cut=making(recording))
    tally = campaign.run(recording, check, wanted, again=again(kept / "recording"))
    assert tally.checked > 100


def test_a_cut_during_recovery_loses_nothing_either(recording: Recording, kept: Path) -> None:
    for path, recovery in recoveries(recording, kept, seed=1, size=2):
        tally = campaign.run(recovery, check, campaign.sample(recovery, seed=1, size=40), again=again(path))
        assert tally.checked > 10


def test_what_is_damaged_is_in_the_spool_or_in_quarantine(tmp_path: Path) -> None:
    recording = record("damage", tmp_path)
    wanted = campaign.sample(recording, seed=1, size=80, first_cut=making(recording))
    assert campaign.run(recording, check, wanted, again=again(tmp_path / "recording")).checked > 30


def test_a_cut_while_a_spool_is_made_does_not_keep_it_from_opening(recording: Recording, kept: Path) -> None:
    made = states(making(recording), seed=1, rounds=3)
    campaign.run(recording, check, made, again=again(kept / "recording"))
