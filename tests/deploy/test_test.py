"""deploy/test in a small project of its own: what it runs, what it gives back, and its last line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = """\
[tool.ruff]
line-length = 100
[tool.mypy]
follow_imports = "skip"
[tool.pytest.ini_options]
markers = ["bench: speed"]
"""
TESTS = """\
import pytest


def test_fine() -> None:
    assert True


@pytest.mark.bench
def test_speed() -> None:
    raise AssertionError


@pytest.mark.skip(reason="no such thing here")
def test_elsewhere() -> None:
    raise AssertionError
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "a project"
    for folder in ("deploy", "forwarder", "tests"):
        (root / folder).mkdir(parents=True)
        (root / folder / "__init__.py").touch()
    for script in ("test", "environment.sh"):
        shutil.copy(ROOT / "deploy" / script, root / "deploy")
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "tests/test_it.py").write_text(TESTS)
    return root


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environ["FORWARDER_VENV"] = str(Path(sys.executable).parents[1])
    words = [str(project / "deploy/test"), *arguments]
    return subprocess.run(words, env=environ, cwd="/", capture_output=True, text=True, check=False, timeout=100)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.splitlines()[-1]


def test_it_runs_everything_and_ends_with_the_summary(project: Path) -> None:
    done = run(project)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("ruff check", "ruff format --check", "mypy", "pytest"):
        assert f"== {name}" in done.stdout
    assert "no such thing here" in done.stdout
    assert re.fullmatch(r"=+ 1 passed, 1 skipped\b.* =+", last_line(done))


def test_arguments_go_to_pytest(project: Path) -> None:
    done = run(project, "tests/test_it.py", "-m", "bench")
    assert done.returncode == 1
    assert "1 failed" in last_line(done)


def test_bad_style_and_types_fail_and_the_tests_run_all_the_same(project: Path) -> None:
    (project / "forwarder/it.py").write_text('import os\nx: int = "a"\ny = [1,2]\n')
    done = run(project)
    assert done.returncode == 1
    for what in ("ruff check .", "ruff format --check .", "mypy forwarder tests deploy"):
        assert f"failed before the tests: {what}\n" in done.stderr
    assert "1 passed" in last_line(done)
