"""Third-party data that tests hold us against. It is not part of the project: where it is missing, tests skip."""

import json
import os
from functools import cache
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parent.parent.parent / "shared" / "data"


def folder() -> Path:
    """Give the folder of the data, or skip the test."""
    path = Path(os.environ.get("FORWARDER_CONFORMANCE_DATA", _BESIDE))
    if not path.is_dir():
        pytest.skip("no conformance data: set FORWARDER_CONFORMANCE_DATA to its folder")
    return path


@cache
def google_errors() -> list[tuple[str, str, str]]:
    """Give Google's published SMTP errors as code, enhanced code, text."""
    rows = json.loads((folder() / "receivers" / "google-published.json").read_text())
    return [(row[0], row[1], row[2]) for row in rows]
