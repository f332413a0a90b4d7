"""Every sample in the folder `rules` is sound, has cases, and meets them."""

from pathlib import Path

import pytest

from forwarder.model.address import Address
from forwarder.ops.rulefiles import read_rules
from forwarder.rules import parse
from forwarder.rules.cases import parse_cases, run_cases
from tests.rules.made import TODAY

FOLDER = Path(__file__).parents[2] / "rules"
SAMPLES = sorted(FOLDER.glob("*.rules"))
POSTMASTER = Address("postmaster", "example.net")


def test_there_are_samples_and_each_has_cases() -> None:
    names = {path.stem for path in SAMPLES}
    assert names >= {"personal", "family", "business", "catchall-with-rejects", "idn", "regex", "migration"}
    assert {path.stem for path in FOLDER.glob("*.cases")} == names


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_meets_its_cases(path: Path) -> None:
    rules = parse(read_rules(path), POSTMASTER)
    file = path.with_suffix(".cases")
    cases = parse_cases(file.name, file.read_text())
    assert len(cases) >= 5
    assert [f"{f.case.place}: {f.case.text}: got {f.got}" for f in run_cases(rules, cases, TODAY)] == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_cases_follow_every_rule_of_the_sample(path: Path) -> None:
    rules = parse(read_rules(path), POSTMASTER)
    cases = parse_cases("c", path.with_suffix(".cases").read_text())
    followed = {
        place
        for case in cases
        for place in getattr(rules.resolve(case.recipient, case.sender, case.day or TODAY), "path", ())
    }
    lines = {place.line for place in followed}
    written = {rule.place.line for table in rules.tables.values() for rule in table.rules()}
    assert written <= lines, sorted(written - lines)


def test_the_example_of_the_reference_does_what_its_cases_say() -> None:
    """The remarks at the right of the page are cut off: two spaces and a word after a whole rule."""
    page = (FOLDER / "README.md").read_text()
    blocks = [block for block in page.split("\n\n") if block.startswith("    ")]
    rules = next(block for block in blocks if "[example.org, example.net]" in block)
    cases = next(block for block in blocks if "=> me@corp.example" in block)
    text = "\n".join(_without_remark(line) for line in rules.splitlines())
    parsed = parse([("README.md", text)], POSTMASTER)
    expected = parse_cases("README.md", "\n".join(_without_remark(line) for line in cases.splitlines()))
    assert len(expected) == 8
    assert run_cases(parsed, expected, TODAY) == ()


def _without_remark(line: str) -> str:
    arrow = max(line.find("->"), line.find("=>"), line.find("]"))
    target = line[arrow:].lstrip()
    return line[:arrow] + target.partition("  ")[0]
