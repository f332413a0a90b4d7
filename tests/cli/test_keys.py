"""`forwarder keys`: making, listing and rotating, step by step, with a clock that is moved."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.demo.zone import Zone
from forwarder.cli import main
from forwarder.ops import rotation
from forwarder.ops.control import ControlServer
from forwarder.ops.keys import load_keys
from tests.fakes import FakeClock

START = datetime(2026, 11, 23, 9, tzinfo=UTC)
CLOCK = FakeClock(START)
ED = "--type=ed25519"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    CLOCK.time = START
    monkeypatch.setattr("forwarder.cli.keys.SystemClock", lambda: CLOCK)
    return CLOCK


@pytest.fixture
def zone() -> Zone:
    return Zone({})


@pytest.fixture
def config(tmp_path: Path, zone: Zone) -> Iterator[Path]:
    (tmp_path / "a.rules").write_text("[example.org, example.com]\n* -> me@gmail.com\n")
    with zone.in_thread() as (host, port):
        file = tmp_path / "forwarder.toml"
        file.write_text(
            'hostname = "mx1.example.org"\npostmaster = "me@gmail.com"\n'
            f'rules = "{tmp_path}/a.rules"\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n'
            f'[srs]\ndomain = "fwd.example.org"\n[dns]\nnameservers = ["{host}:{port}"]\ntimeout = "2s"\n'
        )
        yield file


def run(config: Path, *arguments: str, answer: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["keys", *arguments, "--config", str(config)], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "PRIVATE" not in result.output
    for path in config.parent.rglob("*.pem"):  # not a line of a private key
        assert not any(line in result.output for line in path.read_text().splitlines()[1:-1])
    return result


def keys(config: Path, *arguments: str) -> list[dict[str, object]]:
    return json.loads(run(config, "list", "--json", *arguments).stdout)["keys"]  # type: ignore[no-any-return]


def states(config: Path) -> dict[str, object]:
    return {str(each["selector"]): each["state"] for each in keys(config) if each["domain"] == "example.org"}


def record(output: str) -> tuple[str, str]:
    """Give name and text of the record that is to be published."""
    match = re.search(r'^  (\S+)\.  TXT  ("[^\n]*")$', output, re.MULTILINE)
    assert match is not None, output
    return match[1], match[2].replace('" "', "").strip('"')


def signing(config: Path) -> list[str]:
    loaded = load_keys(config.parent / "state" / "keys")
    return [key.selector for key in loaded.for_domain("example.org")]


def test_all_steps_of_a_rotation(config: Path, zone: Zone, clock: FakeClock) -> None:
    made = run(config, "generate", "--domain", "example.org", ED)
    assert made.exit_code == 0
    assert "forwarder dns check --domain example.org" in made.stdout
    old, old_text = record(made.stdout)
    assert old == "e20261123._domainkey.example.org"
    zone.replace({old: {"TXT": [old_text]}})
    assert signing(config) == ["e20261123"]

    clock.advance(86_400)
    published = run(config, "rotate", "--yes")
    assert published.exit_code == 0
    name, text = record(published.stdout)
    assert name == "e20261124._domainkey.example.org"
    assert "does not sign yet" in published.stdout
    assert "when it is live: forwarder keys rotate --domain example.org" in published.stdout
    assert signing(config) == ["e20261123"]

    refused = run(config, "rotate", "--yes")
    assert refused.exit_code == 1
    assert "e20261124 does not sign yet: its record: missing" in refused.stdout
    assert f'should be: {name}. TXT "{text}"' in refused.stdout
    assert signing(config) == ["e20261123"]

    zone.replace({old: {"TXT": [old_text]}, name: {"TXT": [old_text]}})
    clock.advance(60)
    refused = run(config, "rotate", "--yes")
    assert refused.exit_code == 1
    assert "different" in refused.stdout
    assert f'there:     "{old_text}"' in refused.stdout
    assert "p= is another key" in refused.stdout

    zone.replace({old: {"TXT": [old_text]}, name: {"TXT": [text]}})
    switched = run(config, "rotate", "--yes")
    assert switched.exit_code == 0
    assert "e20261124 signs in place of e20261123; keep e20261123._domainkey.example.org. until 2026-12-01" in (
        switched.stdout
    )
    assert "the gateway was not told" in switched.stdout
    assert "the gateway is not running" in switched.stdout
    assert signing(config) == ["e20261124"]
    assert states(config) == {"e20261123": "retired", "e20261124": "signing"}

    waiting = run(config, "rotate")
    assert (waiting.exit_code, "nothing to do until 2026-12-01" in waiting.stdout) == (0, True)
    assert states(config) == {"e20261123": "retired", "e20261124": "signing"}

    clock.time = datetime(2026, 12, 2, tzinfo=UTC)
    removed = run(config, "rotate", "--yes")
    assert "now delete its record: e20261123._domainkey.example.org. TXT" in removed.stdout
    assert states(config) == {"e20261124": "signing"}
    assert not (config.parent / "state/keys/example.org/e20261123.pem").exists()


def test_force_switches_without_the_record(config: Path) -> None:
    run(config, "generate", "--domain", "example.org", ED)
    run(config, "rotate", "--yes")
    assert run(config, "rotate", "--yes", "--force").exit_code == 0
    assert signing(config) == ["e20261123-2"]


def test_it_asks_first(config: Path) -> None:
    run(config, "generate", "--domain", "example.org", ED)
    refused = run(config, "rotate", answer="n\n")
    assert refused.exit_code == 1
    assert "make a new ed25519 key" in refused.stdout
    assert list(states(config)) == ["e20261123"]
    assert run(config, "rotate", answer="y\n").exit_code == 0
    assert len(states(config)) == 2
    assert run(config, "rotate", "--json").exit_code == 2


def test_how_long_mail_may_be_on_its_way(config: Path) -> None:
    config.write_text(config.read_text() + '[delivery]\nexpire = "10d"\n')
    run(config, "generate", "--domain", "example.org", ED)
    run(config, "rotate", "--yes")
    run(config, "rotate", "--yes", "--force")
    (until,) = [each["until"] for each in keys(config) if each["until"]]
    assert until == (START + timedelta(days=12)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_rotate_as_json(config: Path) -> None:
    run(config, "generate", ED)
    tree = json.loads(run(config, "rotate", "--yes", "--json", "--domain", "example.org").stdout)
    assert tree["gateway"] is None
    (step,) = tree["steps"]
    assert set(step) == {"domain", "type", "action", "selector", "replaces", "done", "until", "record", "text"}
    assert (step["domain"], step["type"], step["action"], step["selector"], step["done"]) == (
        "example.org",
        "ed25519",
        "make",
        "e20261123-2",
        True,
    )
    assert step["record"]["name"] == "e20261123-2._domainkey.example.org."
    assert len(keys(config)) == 3  # the other domain is left alone


def test_rotate_without_keys(config: Path) -> None:
    nothing = run(config, "rotate", "--yes")
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert "forwarder keys generate" in nothing.stderr
    assert not (config.parent / "state").exists()
    run(config, "generate", "--domain", "example.org", ED)
    assert "there is no key of example.com" in run(config, "rotate", "--yes", "--domain", "example.com").stderr


def test_generate_for_every_domain_without_a_key(config: Path) -> None:
    run(config, "generate", "--domain", "example.org", ED)
    both = run(config, "generate", ED)
    assert "example.com" in both.stdout
    assert {each["domain"] for each in keys(config)} == {"example.org", "example.com"}
    again = run(config, "generate", ED)
    assert (again.exit_code, "every served domain has a key" in again.stdout) == (0, True)
    assert len(keys(config)) == 2


def test_generate_rsa(config: Path) -> None:
    made = run(config, "generate", "--domain", "EXAMPLE.org", "--bits", "3072", "--selector", "mine")
    assert made.exit_code == 0
    (key,) = keys(config)
    assert (key["type"], key["bits"], key["selector"], key["state"]) == ("rsa", 3072, "mine", "signing")
    assert record(made.stdout)[1].startswith("v=DKIM1; k=rsa; p=MII")
    assert (config.parent / "state/keys/example.org/mine.pem").stat().st_mode & 0o777 == 0o600


def test_a_further_key_waits(config: Path) -> None:
    run(config, "generate", "--domain", "example.org", ED)
    further = run(config, "generate", "--domain", "example.org", ED, "--selector", "next")
    assert "it does not sign yet" in further.stdout
    assert states(config) == {"e20261123": "signing", "next": "published"}


def test_nothing_is_overwritten(config: Path) -> None:
    run(config, "generate", "--domain", "example.org", ED, "--selector", "mine")
    before = (config.parent / "state/keys/example.org/mine.pem").read_bytes()
    again = run(config, "generate", "--domain", "example.com", "--domain", "example.org", ED, "--selector", "mine")
    assert again.exit_code == 1
    assert "nothing was written, as this exists already" in again.stderr
    assert (config.parent / "state/keys/example.org/mine.pem").read_bytes() == before
    assert not (config.parent / "state/keys/example.com").exists()


@pytest.mark.parametrize(
    "arguments",
    [("--domain", "a..b"), ("--selector", "../x"), ("--bits", "1024"), ("--type", "dsa"), ("--domain", "a/b.org")],
)
def test_wrong_use(config: Path, arguments: tuple[str, ...]) -> None:
    assert run(config, "generate", *arguments).exit_code == 2
    assert not (config.parent / "state").exists()


def test_generate_and_list_as_json(config: Path) -> None:
    (made,) = json.loads(run(config, "generate", "--domain", "example.org", ED, "--json").stdout)["keys"]
    assert made == keys(config)[0]
    assert set(made) == {
        *("domain", "selector", "type", "bits", "state", "created", "since", "until", "next", "file", "record"),
    }
    assert (made["created"], made["since"], made["until"], made["bits"]) == (
        "2026-11-23T09:00:00Z",
        "2026-11-23T09:00:00Z",
        None,
        None,
    )
    assert made["record"]["name"] == "e20261123._domainkey.example.org."


def test_list_says_what_comes_next_and_what_dns_has(config: Path, zone: Zone, clock: FakeClock) -> None:
    assert "no keys" in run(config, "list").stdout
    name, text = record(run(config, "generate", "--domain", "example.org", ED).stdout)
    zone.replace({name: {"TXT": [text]}})
    listed = run(config, "list", "--check")
    assert listed.exit_code == 0
    assert re.search(r"e20261123 +ed25519 +signing +since 2026-11-23\n    next: .*\n    DNS:  ok\n", listed.stdout)
    run(config, "rotate", "--yes")
    listed = run(config, "list", "--check")
    assert listed.exit_code == 1
    assert "DNS:  missing: add: e20261123-2._domainkey.example.org. TXT" in listed.stdout
    assert keys(config, "--check")[1]["dns"]["status"] == "missing"  # type: ignore[index]
    run(config, "rotate", "--yes", "--force")
    clock.advance(86_400)
    assert "keep its record until 2026-11-30; after that" in run(config, "list").stdout
    clock.advance(86_400 * 7)
    assert "delete its record; `forwarder keys rotate --domain example.org` removes the key" in (
        run(config, "list").stdout
    )
    assert run(config, "list", "--domain", "example.com").stdout.startswith("no keys")


def test_a_key_that_cannot_be_used_is_told(config: Path) -> None:
    run(config, "generate", "--domain", "example.org", ED)
    path = config.parent / "state/keys/example.org/e20261123.pem"
    path.chmod(0o644)
    for command in (("list",), ("rotate", "--yes"), ("generate", ED)):
        told = run(config, *command)
        assert (told.exit_code, told.stdout) == (1, "")
        assert told.stderr.startswith(f"{path}: expected a file that its owner alone can read")


def test_a_step_that_fails_is_told_and_others_are_taken(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config, "generate", ED)
    real = rotation._create

    def full(path: Path, octets: bytes) -> None:
        if path.parent.name == "example.com":
            raise OSError(28, "No space left on device", str(path))
        real(path, octets)

    monkeypatch.setattr(rotation, "_create", full)
    told = run(config, "rotate", "--yes")
    assert told.exit_code == 1
    assert "No space left on device" in told.stdout
    assert "example.org: e20261123-2 is made" in told.stdout


class Gateway:
    """Answers keys.reload at the control socket, from a thread."""

    def __init__(self, path: Path, answer: Mapping[str, object]) -> None:
        self.asked = 0
        self._path, self._reply = path, answer
        self._loop = asyncio.new_event_loop()
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))

    async def _main(self) -> None:
        server = ControlServer(self._path, {"keys.reload": self._answer})
        await server.start()
        self._ready.set()
        await self._end.wait()
        await server.close()

    async def _answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        self.asked += 1
        return self._reply

    def __enter__(self) -> "Gateway":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()


def test_the_running_gateway_is_told_of_a_switch_only(config: Path) -> None:
    with Gateway(config.parent / "run" / "control.sock", {"ok": True}) as gateway:
        run(config, "generate", "--domain", "example.org", ED)
        run(config, "rotate", "--yes")
        assert gateway.asked == 0
        switched = run(config, "rotate", "--yes", "--force")
        assert gateway.asked == 1
    assert switched.exit_code == 0
    assert "the gateway has read its keys again" in switched.stdout


def test_a_gateway_that_refuses_is_told(config: Path) -> None:
    answer = {"ok": False, "problems": ["keys/x: no key"]}
    run(config, "generate", "--domain", "example.org", ED)
    run(config, "rotate", "--yes")
    with Gateway(config.parent / "run" / "control.sock", answer):
        switched = run(config, "rotate", "--yes", "--force")
    assert switched.exit_code == 1
    assert "the gateway goes on with the keys that it had:\nkeys/x: no key" in switched.stdout
