import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.demo.zone import Trouble
from forwarder.cli import main
from tests.lab.dns import Dns
from tests.rewrite.judges import rsa

RULES = """\
[example.org]
shop from *@shop.com -> s@m.com
shop  -> team@example.org
team  -> a@m.com via [192.0.2.7]:25, b@m.com via [192.0.2.7]:25
list  -> me@m.com limit 20/hour
party -> me@m.com until 2027-01-31
gone  -> reject "550 5.7.1 Gone"
/x(.)/ -> \\1@m.com
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "my.rules"
    file.write_text(RULES.replace("a@m.com via [192.0.2.7]:25, b@", "a@m.com, b@"))
    return file


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["rules", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_group_lists_its_commands_reload_included() -> None:
    result = CliRunner().invoke(main, ["rules", "--help"])
    for name in ("check", "show", "explain", "test", "reload"):
        assert f"\n  {name}" in result.output


def test_check_counts(rules: Path) -> None:
    for arguments in ((rules,), ("--rules", rules)):
        result = run("check", *arguments)
        assert (result.exit_code, result.output) == (0, f"{rules}: fine: 7 rules for 1 domain\n")


def test_check_tells_every_problem(tmp_path: Path) -> None:
    (tmp_path / "1.rules").write_text("[a.org]\nx -> y\nx -> y@z.com oops\n")
    (tmp_path / "2.rules").write_text("[b.org]\nq -> nobody\n")
    result = run("check", tmp_path)
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in result.output.splitlines()] == [
        f"{tmp_path}/1.rules:2:6",
        f"{tmp_path}/1.rules:3:14",
        f"{tmp_path}/2.rules:2:6",
    ]


def test_check_of_what_is_not_there(tmp_path: Path) -> None:
    result = run("check", tmp_path / "none")
    assert (result.exit_code, result.output) == (1, f"{tmp_path}/none: no such file or directory\n")


def test_wrong_use(rules: Path) -> None:
    assert run("check", rules, "--rules", rules).exit_code == 2
    assert run("check", rules, "--postmaster", "nobody").exit_code == 2
    assert run("explain", "nobody", "--rules", rules).exit_code == 2
    assert run("explain", "a@b.com", "--from", "x", "--rules", rules).exit_code == 2
    assert run("explain", "a@b.com", "--on", "x", "--rules", rules).exit_code == 2
    assert run("test", "--rules", rules).exit_code == 2


def test_show(rules: Path) -> None:
    lines = run("show", "--rules", rules).output.splitlines()
    assert lines[0] == "[example.org]"
    assert [line.split()[0] for line in lines[1:]] == ["shop", "shop", "team", "list", "party", "gone", "/x(.)/"]
    assert f"{rules}:2: shop from *@shop.com -> s@m.com" in lines[1]


def test_show_as_json(rules: Path) -> None:
    shown = json.loads(run("show", "--rules", rules, "--json", "--postmaster", "p@m.com").output)
    assert shown["postmaster"] == "p@m.com"
    first = shown["domains"]["example.org"][0]
    assert (first["pattern"], first["from"], first["place"]) == ("shop", "*@shop.com", f"{rules}:2")
    assert shown["domains"]["example.org"][3]["limit"] == {"count": 20, "seconds": 3600}
    assert shown["domains"]["example.org"][4]["until"] == "2027-01-31"


def test_explain_tells_which_rule_and_why_no_other(rules: Path) -> None:
    result = run("explain", "Shop+x@example.org", "--from", "a@b.com", "--rules", rules)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "Shop+x@example.org",
        "  exactly shop+x: no rule",
        f"  shop: from does not match: {rules}:2: shop from *@shop.com -> s@m.com",
        f"  shop: taken: {rules}:3: shop  -> team@example.org",
        "  team@example.org",
        f"    team: taken: {rules}:4: team  -> a@m.com, b@m.com via [192.0.2.7]:25",
        "so: forward to a@m.com via [192.0.2.7]:25",
        "so: forward to b@m.com via [192.0.2.7]:25",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("list@example.org",), "at most 20 messages in 3600 s"),
        (("party@example.org", "--on", "2027-01-31"), "taken (until 2027-01-31)"),
        (("party@example.org", "--on", "2027-02-01"), "taken, but it has expired (until 2027-01-31)"),
        (("gone@example.org",), "so: reject 550 5.7.1 Gone"),
        (("shop@example.org", "--from", "A@shop.com"), "so: forward to s@m.com"),
        (("shop@example.org", "--from", "<>"), "so: forward to a@m.com"),
        (("xy@example.org",), "so: forward to y@m.com"),
        (("nobody@example.org",), "so: reject 550 5.1.1"),
        (("nobody@example.org",), "1 glob or expression: no rule"),
        (("abuse@example.org", "--postmaster", "p@m.com"), "so: forward to p@m.com"),
        (("postmaster", "--postmaster", "p@m.com"), "so: forward to p@m.com"),
    ],
)
def test_explain(rules: Path, arguments: tuple[str, ...], expected: str) -> None:
    result = run("explain", *arguments, "--rules", rules)
    assert result.exit_code == 0
    assert expected in result.output


def test_explain_of_another_domain_is_a_problem(rules: Path) -> None:
    result = run("explain", "a@example.com", "--rules", rules)
    assert (result.exit_code, result.output) == (1, "not served: no section names this domain\n")


def test_explain_as_json(rules: Path) -> None:
    told = json.loads(run("explain", "shop@example.org", "--rules", rules, "--json").output)
    assert told["decision"] == "forward"
    assert told["destinations"] == [
        {"address": "a@m.com", "via": "[192.0.2.7]:25"},
        {"address": "b@m.com", "via": "[192.0.2.7]:25"},
    ]
    assert [step["address"] for step in told["steps"]] == ["shop@example.org", "team@example.org"]
    assert (
        json.loads(run("explain", "gone@example.org", "--rules", rules, "--json").output)["reply"] == "550 5.7.1 Gone"
    )


def test_cases(rules: Path, tmp_path: Path) -> None:
    good, bad, broken = tmp_path / "good.cases", tmp_path / "bad.cases", tmp_path / "broken.cases"
    good.write_text("gone@example.org => 550\nlist@example.org => me@m.com\n")
    bad.write_text("# one\ngone@example.org => discard\n")
    broken.write_text("gone@example.org -> discard\n")
    result = run("test", good, "--rules", rules)
    assert (result.exit_code, result.output) == (0, "2 passed, 0 failed\n")
    result = run("test", good, bad, broken, tmp_path / "none", "--rules", rules)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == f"{bad}:2: gone@example.org => discard: got reject 550 5.7.1 Gone"
    assert lines[1].startswith(f"{broken}:1:1: a case is written")
    assert lines[2] == f"{tmp_path}/none: No such file or directory"
    assert lines[3] == "2 passed, 3 failed"


def test_no_case_at_all_is_no_success(rules: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.cases"
    empty.write_text("# nothing\n")
    assert run("test", empty, "--rules", rules).exit_code == 1


@pytest.fixture(scope="module")
def dns() -> Iterator[Dns]:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(tcp.getsockname())
        with Dns(udp, tcp) as server:
            server.add("_dmarc.strict.example.", "TXT", "v=DMARC1; p=reject")
            server.add("_dmarc.mild.example.", "TXT", "v=DMARC1; p=none")
            server.add("_dmarc.example.org.", "TXT", "v=DMARC1; p=reject")
            server.trouble("_dmarc.silent.example.", Trouble.SERVFAIL)
            yield server


@pytest.fixture
def config(rules: Path, tmp_path: Path, dns: Dns) -> Path:
    secrets = tmp_path / "srs.secrets"
    secrets.write_text("a-secret-that-is-long-enough-for-anything\n")
    secrets.chmod(0o600)
    path = tmp_path / "forwarder.toml"
    path.write_text(
        f'hostname = "mx.example.org"\npostmaster = "me@gmail.com"\nrules = "{rules}"\nstate_dir = "{tmp_path}"\n'
        f'run_dir = "{tmp_path}"\n[srs]\ndomain = "fwd.example.org"\nsecrets = "srs.secrets"\n'
        f'[dns]\nnameservers = ["{dns.address}"]\n'
    )
    return path


@pytest.fixture
def key(tmp_path: Path) -> None:
    """Put a key where the configuration looks for it."""
    place = tmp_path / "keys" / "example.org"
    place.mkdir(mode=0o700, parents=True)
    file = place / "s1.pem"
    file.touch(mode=0o600)
    file.write_bytes(rsa().pem())


LOST = "DMARC: strict.example asks for reject; behind us its mail passes only by DKIM, as SPF is lost by SRS"


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("sender", "rewrite", "said"),
    [
        (
            "a@strict.example",
            "",
            [LOST, "without a signature of strict.example that survives: From is rewritten to an address of ours"],
        ),
        ("a@strict.example", 'from = "never"', [LOST, "survives: forwarded with From as it is"]),
        ("a@strict.example", 'from = "never"\notherwise = "reject"', [LOST, "survives: refused, 550 5.7.1"]),
        ("a@mild.example", "", ["mild.example asks for none", "survives: forwarded with From as it is"]),
        ("a@mild.example", 'from = "always"', ["survives: From is rewritten"]),
        ("a@nobody.example", "", ["DMARC: no DMARC policy is published for nobody.example"]),
        ("a@silent.example", "", ["DNS did not answer for _dmarc.silent.example"]),
        (
            "a@example.org",
            "",
            ["asks for reject; behind us its mail passes", "our own signature of example.org is aligned"],
        ),
    ],
)
def test_explain_foresees_dmarc(config: Path, sender: str, rewrite: str, said: list[str]) -> None:
    config.write_text(f"{config.read_text()}[rewrite]\n{rewrite}\n")
    told = run("explain", "list@example.org", "--from", sender, "--config", config).output
    for each in said:
        assert each in told
    found = json.loads(run("explain", "list@example.org", "--from", sender, "--config", config, "--json").output)
    assert found["foresight"]["action"] in ("forward", "rewrite", "refuse")


def test_explain_foresees_that_nothing_can_be_rewritten_without_a_key(config: Path) -> None:
    told = run("explain", "list@example.org", "--from", "a@strict.example", "--config", config).output
    assert "From as it is, which cannot be rewritten: no key signs for example.org" in told


@pytest.mark.parametrize("words", [("list@example.org",), ("gone@example.org", "--from", "a@strict.example")])
def test_explain_asks_dns_of_forwarded_mail_with_a_sender_alone(config: Path, dns: Dns, words: tuple[str, ...]) -> None:
    before = len(dns.asked)
    assert "DMARC" not in run("explain", *words, "--config", config).output
    assert len(dns.asked) == before


def test_all_commands_work_on_the_configured_rules(rules: Path, tmp_path: Path, config: Path) -> None:
    secrets = tmp_path / "srs.secrets"
    assert run("check", "--config", config).exit_code == 0
    told = run("explain", "list@example.org", "--from", "a@b.example", "--config", config)
    assert "sender: SRS0=" in told.output
    assert "@fwd.example.org" in told.output
    assert "null sender stays" in run("explain", "list@example.org", "--from", "<>", "--config", config).output
    assert "so: forward to me@gmail.com" in run("explain", "abuse@example.org", "--config", config).output
    secrets.unlink()
    assert "cannot be told" in run("explain", "list@example.org", "--from", "a@b.example", "--config", config).output


def test_a_configuration_with_problems(tmp_path: Path) -> None:
    assert run("check", "--config", tmp_path / "none").exit_code == 1
