"""The defaults that the standard asks for."""

import pytest

from forwarder.delivery.settings import Timeouts
from forwarder.smtp.client import Stage


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [
        (Stage.GREETING, 300),
        (Stage.EHLO, 300),
        (Stage.MAIL, 300),
        (Stage.RCPT, 300),
        (Stage.DATA, 120),
        (Stage.CONTENT, 180),
        (Stage.DOT, 600),
        (Stage.LONE_DOT, 600),
    ],
)
def test_time_outs_are_those_of_rfc_5321(stage: Stage, seconds: float) -> None:
    assert Timeouts().of(stage) == seconds


def test_every_stage_has_a_time_out() -> None:
    assert all(Timeouts().of(stage) > 0 for stage in Stage)
    assert Timeouts().connect <= 30
