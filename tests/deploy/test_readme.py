"""What README.md tells users to type exists, its rules are rules and its links lead somewhere."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from forwarder.cli import main
from forwarder.config import as_tree, parse
from forwarder.model.address import parse_mailbox
from forwarder.rules import parse as parse_rules

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Programs of the system: nothing to look up in the project but the files that they are given.
SYSTEM = {"apt-get", "python3", "ln", "cp", "systemctl", "journalctl"}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def console() -> list[str]:
    """Give the commands of the console blocks."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    assert all(re.match(r"[$#] ", line) for line in lines), lines
    return [line[2:] for line in lines]


def inline() -> list[str]:
    """Give the commands in running text and tables, metavariables and all."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL))
    short = [f"forwarder {span}" for span in spans if re.match(r"(config|rules|srs) [a-z]+\b", span)]
    return [span for span in spans if span.startswith(("forwarder ", "deploy/quickstart", "deploy/test"))] + short


def check_forwarder(words: list[str]) -> None:
    """Find the command that the words name and every option that they give it."""
    command: click.Command = main
    context = click.Context(main)
    rest = list(words)
    while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z]+", rest[0]):
        found = command.get_command(context, rest[0])
        assert found is not None, f"there is no command {shlex.join(words)}"
        command, context = found, click.Context(found)
        rest.pop(0)
    known = {option for parameter in command.params for option in parameter.opts}
    for word in rest:
        if option := re.match(r"\[?(--[a-z-]+)", word):
            assert option[1] in known, f"forwarder {shlex.join(words)}: no option {option[1]}"


def check_script(words: list[str]) -> None:
    script = ROOT / words[0]
    assert os.access(script, os.X_OK)
    text = script.read_text() + (ROOT / "deploy/demo/quickstart.py").read_text()
    for word in words[1:]:
        if word.startswith("--"):
            assert word in text, f"{words[0]} has no {word}"


def check_system(words: list[str]) -> None:
    assert words[0] in SYSTEM, f"who checks {shlex.join(words)}?"
    for word in words[1:]:
        if word.startswith("/opt/forwarder/") and ".venv" not in word:
            assert (ROOT / word.removeprefix("/opt/forwarder/")).exists(), word
        if word.endswith((".service", ".socket")):
            assert (ROOT / "deploy" / Path(word).name).exists(), word


@pytest.mark.parametrize("line", sorted({*console(), *inline()}))
def test_what_is_to_be_typed_exists(line: str) -> None:
    words = shlex.split(line.replace("…", "x"))
    if words[0] == "forwarder":
        check_forwarder(words[1:])
    elif words[0].startswith("deploy/"):
        check_script(words)
    elif words[:2] == [".venv/bin/python", "-m"]:
        done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif words[0] == "/opt/forwarder/.venv/bin/pip":
        assert words[1:] == ["install", "/opt/forwarder"]
    else:
        check_system(words)


def test_the_rules_are_rules() -> None:
    (text,) = blocks("rules")
    rules = parse_rules([("README.md", text)], parse_mailbox("me@gmail.com"))
    assert rules.total == sum(line.partition("->")[0].count(",") + 1 for line in text.splitlines() if "->" in line)


def test_the_configuration_keys_exist() -> None:
    tree = as_tree(parse('hostname = "mx1.example.org"\npostmaster = "a@b.example"\nrules = "/r"\n', "x"))
    named = re.findall(r"`(limits|delivery|authentication|srs|tls|dns|listen)\.([a-z_]+)[` =]", README)
    assert named
    for section, key in named:
        table = tree[section]
        assert isinstance(table, dict)
        assert key in table or f"{section}.{key}" == "srs.secrets"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


def test_named_modules_exist() -> None:
    for name in re.findall(r"-m (tests\.[\w.]+)", README):
        assert importlib.util.find_spec(name)
