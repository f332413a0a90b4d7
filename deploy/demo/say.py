"""What the demonstration prints: plain lines, with colour on a terminal only (and not where NO_COLOR is set)."""

import os
from typing import TextIO

_BOLD, _GREEN, _RED, _DIM, _PLAIN = "\x1b[1m", "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


class Say:
    """Prints at once. `live` says whether log lines are to be shown as they come."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._coloured = output.isatty() and "NO_COLOR" not in os.environ
        self.live = False

    def line(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._output, flush=True)

    def title(self, text: str) -> None:
        """Print the heading of a step."""
        self.line(f"\n{self._in(_BOLD, text)}")

    def added(self, text: str) -> None:
        """Print a header line that the gateway put in front."""
        self.line(self._in(_GREEN, f"  + {text}"))

    def quiet(self, text: str) -> None:
        """Print what matters less."""
        self.line(self._in(_DIM, text))

    def problem(self, text: str) -> None:
        """Print what went wrong."""
        self.line(f"\n{self._in(_RED, text)}")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._coloured else text
