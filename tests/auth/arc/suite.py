"""The third-party ARC suite, as data."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import yaml

from forwarder.auth.arc.verify import ArcStatus
from tests.conformance import folder


@dataclass(frozen=True, slots=True)
class Case:
    """A message, what is published, and what is to come out."""

    name: str
    message: bytes
    zone: dict[tuple[str, str], list[str]]
    status: ArcStatus


@cache
def cases() -> tuple[Case, ...]:
    """Give all validation cases; skip where the suite is missing."""
    path = folder() / "arc" / "arc-draft-validation-tests.yml"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the conformance data")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open("rb") as file:
        return tuple(
            _case(name, test, scenario["txt-records"])
            for scenario in yaml.load_all(file, loader)
            for name, test in scenario["tests"].items()
        )


def _case(name: str, test: dict[str, Any], records: dict[str, str]) -> Case:
    # Three have no result: they end in a seal that says cv=fail, or have one in their midst.
    status = ArcStatus((test["cv"].strip() or "fail").lower())
    zone = {(owner, "TXT"): [record] for owner, record in records.items()}
    return Case(name, test["message"].replace("\n", "\r\n").encode(), zone, status)


def parameters() -> list[Any]:
    """Give the cases for parametrisation; without the suite, one that skips."""
    try:
        return [pytest.param(case, id=case.name) for case in cases()]
    except pytest.skip.Exception as missing:
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=str(missing)))]
