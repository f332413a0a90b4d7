"""`forwarder rules reload` against a real control socket."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forwarder.cli.reload import reload
from forwarder.ops.control import ControlServer

Answering = Callable[[Mapping[str, object]], None]


class Gateway:
    """Answers `rules.reload` as it is told, from a thread with a loop of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Mapping[str, object] = {}
        self.asked: list[Mapping[str, object]] = []
        self._loop = asyncio.new_event_loop()
        self._server = ControlServer(path, {"rules.reload": self._reload})
        self._loop.run_until_complete(self._server.start())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _reload(self, request: Mapping[str, object]) -> Mapping[str, object]:
        self.asked.append(request)
        return self.answer

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path / "control.sock")
    yield gateway
    gateway.close()


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(reload, ["--socket", str(path), *arguments])


def test_it_prints_what_changed(gateway: Gateway) -> None:
    gateway.answer = {"ok": True, "added": 2, "removed": 1, "changed": 0, "rules": 12, "milliseconds": 3.4}
    result = run(gateway.path)
    assert (result.exit_code, result.stdout) == (0, "+2 added −1 removed ~0 changed: 12 rules in force, after 3.4 ms\n")
    assert gateway.asked == [{"force": False}]


def test_it_names_what_changed_where_the_gateway_does(gateway: Gateway) -> None:
    gateway.answer = {"ok": True, "added": ["sales"], "added_count": 30, "removed": [], "removed_count": 0, "rules": 40}
    assert run(gateway.path, "--force").stdout.splitlines() == [
        "+30 added −0 removed ~0 changed: 40 rules in force, after ? ms",
        "  +sales",
    ]
    assert gateway.asked == [{"force": True}]


def test_problems_are_printed_and_the_old_rules_stay(gateway: Gateway) -> None:
    gateway.answer = {"ok": False, "problems": ["a.rules:3:1: loop", "a.rules:9:4: bad address"], "hint": "use --force"}
    result = run(gateway.path)
    assert result.exit_code == 1
    assert result.stdout == "a.rules:3:1: loop\na.rules:9:4: bad address\n"
    assert "old rules stay in force" in result.stderr and "use --force" in result.stderr


def test_without_a_gateway_it_says_so(tmp_path: Path) -> None:
    result = run(tmp_path / "control.sock")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the gateway is not running" in result.stderr


def test_the_configuration_says_where_the_gateway_is(gateway: Gateway) -> None:
    gateway.answer = {"ok": True}
    folder = gateway.path.parent
    text = f'hostname = "mx.example.org"\npostmaster = "me@example.com"\nrules = "{folder}"\nrun_dir = "{folder}"\n'
    (folder / "forwarder.toml").write_text(text + '[srs]\ndomain = "fwd.example.org"\n')
    result = CliRunner().invoke(reload, ["--config", str(folder / "forwarder.toml")])
    assert result.exit_code == 0, result.output
    assert gateway.asked == [{"force": False}]


def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "forwarder.toml").write_text("nonsense")
    assert CliRunner().invoke(reload, ["--config", str(tmp_path / "forwarder.toml")]).exit_code == 1
