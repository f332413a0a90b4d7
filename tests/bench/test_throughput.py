"""The measuring script works: a few messages through it. What it measures is not judged here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.plain_postfix import why_not

ROOT = Path(__file__).parents[2]
SMALL = ("--messages", "20", "--rounds", "1", "--connections", "3", "--big", "300000")


def throughput(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tests.bench.throughput", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize("system", ["forwarder", pytest.param("postfix", marks=pytest.mark.postfix)])
def test_it_prints_rates_and_costs(system: str) -> None:
    if system == "postfix" and (reason := why_not()):
        pytest.skip(f"no Postfix here: {reason}")
    done = throughput(*SMALL, "--only", system)
    assert done.returncode == 0, done.stdout + done.stderr
    cost = r"[\d.]+ ms CPU a message(?: \([\d.]+ \+ [\d.]+\))?"  # of all processes; of the first and of the others
    rates = re.findall(rf"^  {system} +\d+ msg/s \(\d+ to \d+\) +{cost}$", done.stdout, re.MULTILINE)
    assert len(rates) == 2
    assert re.search(rf"^  {system} +[\d.]+ s, [\d.]+ s CPU, -?[\d.]+ MB more", done.stdout, re.MULTILINE)


def test_what_is_not_done_in_time_is_said() -> None:
    done = throughput("--messages", "20000", "--rounds", "1", "--only", "forwarder", "--seconds", "1")
    assert done.returncode == 1
    assert "not everything was sent after 1.0 s" in done.stderr
    assert "Traceback" not in done.stderr
