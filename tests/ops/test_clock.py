"""The system clock keeps the port's contract."""

from datetime import timedelta

from forwarder.ops.clock import SystemClock


def test_now_is_aware_and_in_utc_and_monotonic_grows() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()
