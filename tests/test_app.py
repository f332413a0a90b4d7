"""The composition root: what is read, what is refused, and what a reload may change."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from forwarder.app import Service, Unready, custody, open_sockets, read
from forwarder.app.crew import Alone
from forwarder.app.front import Front
from forwarder.delivery.runner import Runner
from forwarder.ports import SpoolError
from tests.fakes import RecordingLog

RULES = "[ours.example]\nme -> me@inbox.example\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.rules").write_text(RULES)
    secrets = tmp_path / "srs.secrets"
    secrets.write_text("a secret for the tests only\n")
    secrets.chmod(0o600)
    write(tmp_path / "forwarder.toml")
    return tmp_path / "forwarder.toml"


def write(path: Path, more: str = "", hostname: str = "mx.ours.example") -> None:
    folder = path.parent
    path.write_text(f'''
hostname = "{hostname}"
postmaster = "me@inbox.example"
rules = "{folder}/a.rules"
state_dir = "{folder}"
run_dir = "{folder}/run"
workers = 1
[listen]
smtp = ["127.0.0.1:0"]
[dns]
nameservers = ["127.0.0.1:9"]
{more}
''')


def problems(path: Path) -> list[str]:
    with pytest.raises(Unready) as caught:
        read(path)
    return list(caught.value.problems)


def test_everything_that_is_wrong_is_told_at_once(path: Path) -> None:
    write(path, '[delivery]\nsmarthost = "smtp://mail.example:587"')
    (path.parent / "a.rules").write_text("[ours.example]\nme -> nowhere\n")
    (path.parent / "srs.secrets").chmod(0o644)
    smarthost, rules, secrets = problems(path)
    assert smarthost.startswith(f"{path}: delivery.smarthost: not supported yet")
    assert rules.startswith(f"{path.parent}/a.rules:2:7: ")
    assert "srs.secrets" in secrets


def test_a_wrong_configuration_is_told_with_its_file(path: Path) -> None:
    write(path, "[delivery]\nport = 0")
    (problem,) = problems(path)
    assert problem.startswith(f"{path}: delivery.port: 0: ")


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[Service, RecordingLog]]:
    log = RecordingLog()
    wanted = read(path)
    (path.parent / "run").mkdir(mode=0o700)
    service = Service(path, wanted, log)
    task = asyncio.create_task(service.run(open_sockets(wanted.config)))
    while not log.named("started"):
        await asyncio.sleep(0.01)
    try:
        yield service, log
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        assert log.named("stopped") == [{"cut_off": 0}]


def front(service: Service) -> Front:
    """What serves clients where there is one process."""
    assert isinstance(service._crew, Alone)
    return service._crew.front


async def hang_up(log: RecordingLog) -> dict[str, object]:
    """Send SIGHUP to ourselves; give what the log says of the reload."""
    before = len(log.named("reload"))
    os.kill(os.getpid(), signal.SIGHUP)
    while len(log.named("reload")) == before:
        await asyncio.sleep(0.01)
    return log.named("reload")[before]


async def test_hang_up_reloads_the_configuration(path: Path) -> None:
    async with running(path) as (service, log):
        write(path, "[limits]\nrecipients = 200", hostname="mx2.ours.example")
        assert (await hang_up(log))["outcome"] == "done"
        settings = front(service).gateway.settings
        assert (settings.recipients, settings.hostname) == (200, "mx2.ours.example")


async def test_hang_up_applies_the_limits_of_the_listener_and_another_certificate(path: Path) -> None:
    pair = trustme.CA().issue_cert("mx.ours.example")
    pair.private_key_and_cert_chain_pem.write_to_path(path.parent / "pair.pem")
    (path.parent / "pair.pem").chmod(0o600)
    async with running(path) as (service, log):
        before = service._certificate.current()
        write(path, '[limits]\nerrors = 3\nline_length = 998\n[tls]\ncertificate = "pair.pem"\nkey = "pair.pem"')
        assert (await hang_up(log))["outcome"] == "done"
        options = front(service).options
        assert (options.limits.errors, options.limits.line_length) == (3, 998)
        assert options.tls is not None
        assert options.tls() is service._certificate.current() is not before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[limits]\nrecipients = 1", "limits.recipients"),
        ('[log]\nlevel = "debug"', "log: changed: restart the gateway"),
        ('[tls]\ncertificate = "missing.pem"\nkey = "missing.pem"', "missing.pem"),
        ('[delivery]\nsmarthost = "smtp://mail.example:587"', "delivery.smarthost"),
    ],
)
async def test_a_reload_that_cannot_be_whole_changes_nothing(path: Path, more: str, said: str) -> None:
    async with running(path) as (service, log):
        before = front(service).gateway
        (path.parent / "a.rules").write_text(RULES + "you -> you@inbox.example\n")
        write(path, more, hostname="mx2.ours.example")
        event = await hang_up(log)
        assert (event["outcome"], said in str(event["text"])) == ("refused", True)
        assert front(service).gateway is before


async def test_a_rules_file_that_shrank_is_loaded_only_by_force(path: Path) -> None:
    rules = path.parent / "a.rules"
    rules.write_text("[ours.example]\n" + "".join(f"u{n} -> me@inbox.example\n" for n in range(20)))
    async with running(path) as (service, log):
        rules.write_text(RULES)
        answer = await service.reload_rules({})
        assert not answer["ok"]
        assert "--force" in str(answer["problems"])
        assert (await hang_up(log))["outcome"] == "refused"
        assert front(service).gateway.rules.total == 20
        assert (await service.reload_rules({"force": True}))["ok"]
        assert front(service).gateway.rules.total == 1
        assert log.named("reload")[-1]["removed"] == 20


async def test_a_queue_that_cannot_be_read_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custody, "_AGAIN", 0.0)
    loads, loaded = [0], asyncio.Event()
    start = Runner.start

    async def at_the_third_time(runner: Runner) -> None:
        loads[0] += 1
        if loads[0] < 3:
            raise SpoolError("the disk is away")
        await start(runner)
        loaded.set()

    monkeypatch.setattr(Runner, "start", at_the_third_time)
    async with running(path) as (_, log):
        await asyncio.wait_for(loaded.wait(), 30)
    texts = [str(alert["text"]) for alert in log.named("alert") if "loaded" in str(alert["text"])]
    assert len(texts) == 2
    assert "the disk is away" in texts[0]
