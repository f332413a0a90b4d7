"""Row 53: the whole gateway dies at random under load, alone and with workers, and loses nothing."""

import pytest

from tests.kill import whole


@pytest.mark.timeout(400)
def test_deaths_of_the_whole_gateway() -> None:
    """Four deaths in one process, four with workers, of which some are theirs alone."""
    for tally in whole.campaigns(8, seed=2, lives=4):
        assert tally.problems == []
    assert tally.rounds == 8
    assert tally.acknowledged > 50
