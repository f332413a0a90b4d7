"""deploy/environment.sh makes the virtual environment once, again when needed, and says what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in [*(ROOT / "deploy").iterdir(), ROOT / ".ci/run"] if path.is_file())

# Stands in for .venv/bin/python: notes what pip is asked, and fails if told so.
FAKE = """\
#!/bin/sh
case "$*" in
    "-m pip --version") exit 0 ;;
    *"pip install"*) echo "$*" >>"{notes}"; exit $(cat "{status}") ;;
esac
exec "{python}" "$@"
"""


class Checkout:
    """A checkout of its own, in a folder whose name has spaces, with a fake environment."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a check out"
        (self.root / "deploy").mkdir(parents=True)
        for name in ("deploy/environment.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        self.notes, self.status = folder / "notes", folder / "status"
        self.status.write_text("0")
        python = self.root / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(FAKE.format(notes=self.notes, status=self.status, python=sys.executable))
        python.chmod(0o755)

    def prepare(self, purpose: str = "run", **environ: str) -> subprocess.CompletedProcess[str]:
        script = f'. "$1/deploy/environment.sh"; prepare_environment {purpose}; echo "python is $python"'
        words = ["bash", "-euo", "pipefail", "-c", script, "quickstart", str(self.root)]
        clean = {name: value for name, value in os.environ.items() if name != "FORWARDER_VENV"}
        return subprocess.run(
            words, env={**clean, **environ}, cwd="/", capture_output=True, text=True, check=False, timeout=60
        )

    @property
    def installs(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_it_installs_once_for_each_purpose(checkout: Checkout) -> None:
    for _ in range(2):
        done = checkout.prepare()
        assert done.returncode == 0, done.stderr
        assert f"python is {checkout.root}/.venv/bin/python" in done.stdout
    assert len(checkout.installs) == 1
    assert checkout.installs[0].endswith("--editable .")
    assert checkout.prepare("test").returncode == 0
    assert checkout.installs[1].endswith("--editable .[test,uvloop]")


def test_what_the_tests_need_is_enough_for_the_gateway(checkout: Checkout) -> None:
    assert checkout.prepare("test").returncode == 0
    assert checkout.prepare("run").returncode == 0
    assert len(checkout.installs) == 1


def test_new_dependencies_are_installed(checkout: Checkout) -> None:
    checkout.prepare()
    with (checkout.root / "pyproject.toml").open("a") as file:
        file.write("# another dependency\n")
    checkout.prepare()
    assert len(checkout.installs) == 2


def test_an_installation_that_failed_is_begun_again(checkout: Checkout) -> None:
    checkout.status.write_text("1")
    done = checkout.prepare()
    assert done.returncode == 1
    assert "could not be installed" in done.stderr
    checkout.status.write_text("0")
    assert checkout.prepare().returncode == 0
    assert len(checkout.installs) == 2


def test_a_given_environment_is_used_as_it_is(checkout: Checkout) -> None:
    given = str(Path(sys.executable).parents[1])
    done = checkout.prepare(FORWARDER_VENV=given)
    assert f"python is {given}/bin/python" in done.stdout
    assert not checkout.installs


def test_a_given_environment_that_is_none_is_said(checkout: Checkout) -> None:
    done = checkout.prepare(FORWARDER_VENV="/nowhere")
    assert done.returncode == 1
    assert "FORWARDER_VENV names /nowhere" in done.stderr


def test_the_checkout_comes_before_what_is_installed(checkout: Checkout) -> None:
    (checkout.root / "forwarder").mkdir()
    (checkout.root / "forwarder/__init__.py").touch()
    script = (
        '. "$1/deploy/environment.sh"; prepare_environment run; "$python" -c "import forwarder as f; print(f.__file__)"'
    )
    words = ["bash", "-c", script, "quickstart", str(checkout.root)]
    environ = {**os.environ, "FORWARDER_VENV": str(Path(sys.executable).parents[1])}
    done = subprocess.run(words, env=environ, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == str(checkout.root / "forwarder/__init__.py")


def only(folder: Path, *programs: str, **scripts: str) -> str:
    """Make a PATH of some programs of the system and some scripts."""
    folder.mkdir()
    for program in programs:
        found = shutil.which(program)
        assert found
        (folder / program).symlink_to(found)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_a_machine_without_python_is_told_what_to_install(checkout: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(checkout.root / ".venv")
    path = only(tmp_path / "bin", "bash", "sh", "dirname", "basename", "cksum", python3="exit 1")
    done = checkout.prepare(PATH=path)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_a_machine_without_venv_is_told_what_to_install(checkout: Checkout, tmp_path: Path) -> None:
    shutil.rmtree(checkout.root / ".venv")
    python = f'case "$*" in "-m "*) exit 1;; esac\nexec "{sys.executable}" "$@"'
    path = only(tmp_path / "bin", "bash", "sh", "dirname", "basename", "cksum", "rm", python3=python)
    done = checkout.prepare(PATH=path)
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr
    assert not (checkout.root / ".venv").exists()


def test_help_explains_itself() -> None:
    environ = {**os.environ, "FORWARDER_VENV": str(Path(sys.executable).parents[1])}
    for name in ("test", "quickstart"):
        words = [str(ROOT / "deploy" / name), "--help"]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0
        assert f"deploy/{name}" in done.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_scripts_are_clean() -> None:
    scripts = [path for path in SCRIPTS if path.suffix == ".sh" or path.read_bytes().startswith(b"#!/usr/bin/env bash")]
    assert len(scripts) >= 4
    done = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path", ROOT, *scripts],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
