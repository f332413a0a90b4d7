"""The machine's clocks, as `ports.Clock` wants them."""

import time
from datetime import UTC, datetime


class SystemClock:
    """The time of day as the machine has it (it may jump), and the monotonic clock (it may not)."""

    def now(self) -> datetime:
        """Give the time of day, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Give seconds that only grow."""
        return time.monotonic()
