"""`deploy/quickstart --domain D --to A` prepares a folder and starts nothing; the units are what systemd wants."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def quickstart(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "FORWARDER_VENV": str(Path(sys.executable).parents[1])}
    return subprocess.run(
        [DEPLOY / "quickstart", *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_folder_is_prepared_and_the_next_steps_are_said(tmp_path: Path) -> None:
    done = quickstart("--domain", "example.org", "--to", "me@gmail.com", "--dir", "my mail", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "my mail"
    assert {path.name for path in folder.iterdir()} >= {"forwarder.toml", "rules", "srs.secrets", "local.conf"}
    assert (folder / "srs.secrets").stat().st_mode & 0o777 == 0o600
    for expected in (
        "MX    10 mx1.example.org.",
        "v=spf1",
        "PTR",
        "port 25",
        "systemctl enable --now",
        "CAP_NET_BIND_",
    ):
        assert expected in done.stdout
    assert "\x1b" not in done.stdout
    checked = [line.strip() for line in done.stdout.splitlines() if "config check --config" in line]
    assert subprocess.run(checked[0], shell=True, check=False).returncode == 0


def test_the_trial_in_a_terminal_is_handed_the_secret(tmp_path: Path) -> None:
    """What root prepares is root's, mode 0600: the service's user could not read it."""
    done = quickstart("--domain", "example.org", "--to", "me@gmail.com", "--dir", "my mail", cwd=tmp_path)
    said = done.stdout.replace("\\\n", "")
    words = shlex.split(next(line for line in said.splitlines() if "systemd-run" in line))
    assert f"--property=LoadCredential=srs.secrets:{tmp_path / 'my mail' / 'srs.secrets'}" in words


def test_without_a_folder_it_takes_one_named_after_the_domain(tmp_path: Path) -> None:
    assert quickstart("--domain", "example.org", "--to", "me@gmail.com", cwd=tmp_path).returncode == 0
    assert (tmp_path / "forwarder-example.org" / "forwarder.toml").is_file()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    arguments = ("--domain", "example.org", "--to", "me@gmail.com", "--dir", "mail")
    assert quickstart(*arguments, cwd=tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = quickstart(*arguments, cwd=tmp_path)
    assert again.returncode == 1
    assert "exists" in again.stdout
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--domain", "example.org"), "--domain and --to go together"),
        (("--to", "me@gmail.com"), "--domain and --to go together"),
        (("--dir", "x"), "--dir goes with"),
        (("--domain", "exa mple", "--to", "me@gmail.com"), "--domain"),
        (("--domain", "example.org", "--to", "me@example.org"), "loop"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_wrong_use_is_said(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = quickstart(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def units(folder: Path, local: Path | None = None) -> list[str]:
    """Copy the units to `folder`, with a program that exists here; give their paths."""
    service = (DEPLOY / "forwarder.service").read_text()
    (folder / "forwarder.service").write_text(service.replace("/opt/forwarder/.venv/bin/forwarder", "/bin/true"))
    shutil.copy(DEPLOY / "forwarder.socket", folder)
    if local:
        (folder / "forwarder.service.d").mkdir()
        shutil.copy(local, folder / "forwarder.service.d")
    return [str(folder / "forwarder.service"), str(folder / "forwarder.socket")]


def verify(paths: list[str]) -> str:
    """Give what systemd has against units, but for the service type that older ones do not know."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False, timeout=60
    )
    lines = [line for line in done.stderr.splitlines() if "notify-reload" not in line and "forwarder" in line]
    return "\n".join(lines) or ("failed" if done.returncode else "")


@needs_systemd
def test_systemd_has_nothing_against_the_units(tmp_path: Path) -> None:
    assert verify(units(tmp_path)) == ""


@needs_systemd
def test_systemd_has_nothing_against_what_is_prepared(tmp_path: Path) -> None:
    assert (
        quickstart("--domain", "example.org", "--to", "me@gmail.com", "--dir", "50% mail", cwd=tmp_path).returncode == 0
    )
    (tmp_path / "units").mkdir()
    assert verify(units(tmp_path / "units", tmp_path / "50% mail" / "local.conf")) == ""


@needs_systemd
def test_the_service_is_as_closed_as_systemd_can_make_it(tmp_path: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", units(tmp_path)[0]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_the_service_has_no_privilege() -> None:
    settings = dict(
        line.split("=", 1)
        for line in (DEPLOY / "forwarder.service").read_text().splitlines()
        if re.match(r"[A-Z]\w+=", line)
    )
    assert settings["User"] != "root"
    assert settings["CapabilityBoundingSet"] == ""
    assert "AmbientCapabilities" not in settings
    assert settings["NoNewPrivileges"] == "yes"
    assert settings["ProtectSystem"] == "strict"
    assert settings["Type"] == "notify-reload"


def test_what_is_prepared_does_not_run_as_root(tmp_path: Path) -> None:
    assert quickstart("--domain", "example.org", "--to", "me@gmail.com", "--dir", "mail", cwd=tmp_path).returncode == 0
    local = (tmp_path / "mail" / "local.conf").read_text()
    assert re.search(r"^User=(?!root$)\S+$", local, re.MULTILINE)
