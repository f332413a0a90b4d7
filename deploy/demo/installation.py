"""Prepares the folder of a real installation, and says what is left to do before mail can come.

`prepare` leaves the configuration, rules and secrets to `forwarder init`, which refuses to overwrite, and adds
`local.conf`: what makes `deploy/forwarder.service` run from that folder and this checkout. Nothing is started, and
nothing outside the folder is touched.
"""

import getpass
import os
import shlex
import subprocess
import sys
from pathlib import Path

from deploy.demo.say import Say

_DEPLOY = Path(__file__).parents[1]

_LOCAL = """\
# What forwarder.service needs to run from this folder; copy it to /etc/systemd/system/forwarder.service.d/
[Service]
DynamicUser=no
User={user}
ExecStart=
ExecStart={python} -m forwarder serve --config {config}
Environment={pythonpath}
LoadCredential=
LoadCredential={credential}
# Programs and mail may lie below /home: it can be read, and written only here.
ProtectHome=read-only
ReadWritePaths={state} {run}
"""

_STEPS = """\
Next, to go live:

 1. Publish the DNS records above; let your provider set the PTR of your address to the host name.

 2. Read {config} and the rules beside it, then look whether they are in order:
      {forwarder} config check --config {config}
      {forwarder} rules check --config {config}

 3. Run it as a service. systemd opens port 25 for it, so that it never has a privilege itself:
{user_steps}      sudo mkdir -p /etc/systemd/system/forwarder.service.d
      sudo cp {units}/forwarder.service {units}/forwarder.socket /etc/systemd/system/
      sudo cp {local} /etc/systemd/system/forwarder.service.d/
      sudo systemctl daemon-reload
      sudo systemctl enable --now forwarder.socket forwarder.service
    Or try it in this terminal first, with nothing but the right to listen on port 25:
      sudo systemd-run --pty --uid={user} --property=AmbientCapabilities=CAP_NET_BIND_SERVICE \\
        --property=Environment={pythonpath} --property=LoadCredential={credential} \\
        {python} -m forwarder serve --config {config}

 4. Open port 25 in the firewall, for example: sudo ufw allow 25/tcp
    Many providers block outgoing port 25 until you ask them; `nc -vz gmail-smtp-in.l.google.com 25` shows it.

 5. Write to yourself from elsewhere and follow it: journalctl -u forwarder -f"""


# Root prepares it for a user without rights; that user owns nothing but what the gateway keeps.
_SERVICE_USER = "forwarder"
_USER_STEPS = """\
      useradd --system --no-create-home --shell /usr/sbin/nologin forwarder
      chown -R forwarder: {state} {run}
"""


class CommandError(Exception):
    """A `forwarder` command failed; `status` is its exit status, the text what it said."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def forwarder(*arguments: str) -> str:
    """Run a `forwarder` command; give what it printed, or raise `CommandError`."""
    command = [sys.executable, "-m", "forwarder", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise CommandError((done.stderr or done.stdout).strip(), done.returncode)
    return done.stdout


def prepare(domain: str, to: str, folder: Path | None, say: Say) -> int:
    """Write the folder and print the next steps; give the exit status."""
    folder = Path(os.path.abspath(folder or f"forwarder-{domain}"))  # noqa: PTH100 - resolve() would follow links
    config = folder / "forwarder.toml"
    local = folder / "local.conf"
    try:
        printed = forwarder("init", "--domain", domain, "--to", to, "--dir", str(folder))
        local.write_text(_local(folder, config), encoding="utf-8")
    except CommandError as error:
        say.problem(str(error))
        return error.status
    except OSError as error:
        say.problem(f"{local}: {error.strerror}")
        return 1
    say.line(f"{printed.partition(_THEN)[0].rstrip()}\n")
    say.line(_steps(folder, config))
    return 0


_THEN = "\nThen:\n"  # the hints of `forwarder init` for those who run it alone; ours say more


def _local(folder: Path, config: Path) -> str:
    return _LOCAL.format(
        user=_user(),
        python=_unit_word(sys.executable),
        config=_unit_word(config),
        pythonpath=_unit_word(f"PYTHONPATH={_DEPLOY.parent}"),
        credential=_specifiers(_credential(folder)),
        state=_unit_word(folder / "state"),
        run=_unit_word(folder / "run"),
    )


def _steps(folder: Path, config: Path) -> str:
    quote = shlex.quote
    program = Path(sys.executable).with_name("forwarder")
    return _STEPS.format(
        config=quote(str(config)),
        local=quote(str(folder / "local.conf")),
        forwarder=quote(str(program)) if program.exists() else f"{quote(sys.executable)} -m forwarder",
        units=quote(str(_DEPLOY)),
        user=_user(),
        user_steps=_user_steps(folder),
        python=quote(sys.executable),
        pythonpath=quote(f"PYTHONPATH={_DEPLOY.parent}"),
        credential=quote(_credential(folder)),
    )


def _credential(folder: Path) -> str:
    """Say which secret systemd hands over: it is root's where root has prepared the folder."""
    return f"srs.secrets:{folder / 'srs.secrets'}"


def _user() -> str:
    return getpass.getuser() if os.geteuid() else _SERVICE_USER


def _user_steps(folder: Path) -> str:
    if os.geteuid():
        return ""
    return _USER_STEPS.format(state=shlex.quote(str(folder / "state")), run=shlex.quote(str(folder / "run")))


def _specifiers(text: object) -> str:
    """Write text so that systemd does not expand it (systemd.unit(5), "Specifiers")."""
    return str(text).replace("%", "%%")


def _unit_word(text: object) -> str:
    """Write one word of a setting that takes several (systemd.syntax(7), "Quoting")."""
    escaped = _specifiers(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
