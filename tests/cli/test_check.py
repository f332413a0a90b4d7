"""`forwarder check`: what is told of a message on disk, with a real name server on the loopback."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forwarder.cli import main
from tests.auth.arc.sealer import NAME as RELAY_KEY
from tests.auth.arc.sealer import chain
from tests.auth.dkim.signer import NAME, rsa_key, sign
from tests.lab.dns import Dns

CLIENT = "192.0.2.1"
MESSAGE = (
    b"From: Alice <alice@sender.test>\r\nTo: bob@ours.test\r\nSubject: hello\r\n"
    b"Authentication-Results: MX1.Ours.Test.; dmarc=pass\r\nAuthentication-Results: other.test; spf=pass\r\n"
    b"\r\nbody\r\n"
)
SIGNED = sign(MESSAGE)
CHANGED = SIGNED.replace(b"body\r\n", b"other\r\n")


@pytest.fixture(scope="module")
def dns() -> Iterator[Dns]:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(tcp.getsockname())
        with Dns(udp, tcp) as server:
            fill(server)
            yield server


def fill(server: Dns) -> None:
    server.add("sender.test.", "TXT", "v=spf1 ip4:192.0.2.0/28 -all")
    server.add("_dmarc.sender.test.", "TXT", "v=DMARC1; p=reject")
    for name in (NAME, RELAY_KEY):
        server.add(name + ".", "TXT", rsa_key().record)
    server.add("1.2.0.192.in-addr.arpa.", "PTR", "mail.sender.test.")
    server.add("mail.sender.test.", "A", CLIENT)


def run(dns: Dns, message: bytes, *options: str, **given: str) -> Result:
    """Check a message from standard input; `given` replaces the usual client, name and sender."""
    usual = {"ip": CLIENT, "helo": "mail.sender.test", "from": "alice@sender.test", "hostname": "mx1.ours.test"}
    words = [word for name, text in {**usual, **given}.items() for word in (f"--{name}", text)]
    return CliRunner().invoke(
        main,
        ["check", "-", *words, "--nameserver", dns.address, *options],
        input=message,
        env={"FORWARDER_CONFIG": "/nowhere/forwarder.toml"},
    )


def lines(result: Result) -> list[str]:
    assert not isinstance(result.exception, Exception), result.exception
    return result.stdout.splitlines()


def tree(result: Result) -> dict[str, object]:
    assert not isinstance(result.exception, Exception), result.exception
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_a_good_message(dns: Dns) -> None:
    result = run(dns, SIGNED)
    told = lines(result)
    assert result.exit_code == 0
    assert re.fullmatch(r" {15}header\.a=rsa-sha256 header\.b=\S{8,10};", told.pop(-3))
    assert told == [
        f"Message   {len(SIGNED)} octets",
        "Client    192.0.2.1 (mail.sender.test, iprev pass), HELO mail.sender.test, MAIL FROM <alice@sender.test>",
        'SPF       MAIL FROM sender.test: pass by "ip4:192.0.2.0/28"',
        "          HELO mail.sender.test: none: mail.sender.test publishes no SPF record",
        "DKIM      d=sender.test s=lab a=rsa-sha256 i=@sender.test: pass",
        "            key lab._domainkey.sender.test (rsa, 2048 bits)",
        "ARC       none: the message has no ARC sets",
        "DMARC     From sender.test: pass",
        '            policy reject, from _dmarc.sender.test: "v=DMARC1; p=reject"',
        "            organisation sender.test by the tree walk, sender.test by the public suffix list",
        "            aligned: SPF and DKIM; under both: yes",
        "Gateway   forwards it",
        "Foresight DMARC there: pass: the signature of sender.test survives and is aligned",
        "Removes   Authentication-Results: MX1.Ours.Test.; dmarc=pass",
        "Writes    Authentication-Results: mx1.ours.test;",
        "              iprev=pass (mail.sender.test) policy.iprev=192.0.2.1;",
        "              spf=pass (ip4:192.0.2.0/28) smtp.mailfrom=alice@sender.test;",
        "              dkim=pass header.d=sender.test header.i=@sender.test header.s=lab",
        "              arc=none (the message has no ARC sets);",
        "              dmarc=pass (p=reject dis=pass) header.from=sender.test policy.dmarc=reject",
    ]


def test_a_forged_message(dns: Dns) -> None:
    result = run(dns, CHANGED, ip="198.51.100.9")
    told = lines(result)
    assert result.exit_code == 1
    assert 'SPF       MAIL FROM sender.test: fail by "all": 198.51.100.9 is not allowed to send for sender.test' in told
    assert "DKIM      d=sender.test s=lab a=rsa-sha256 i=@sender.test: fail: the body was changed" in told
    assert any(line.startswith("DMARC     From sender.test: fail: nothing shows that sender.test") for line in told)
    assert "            aligned: nothing; under both: no" in told
    (verdict,) = (line for line in told if line.startswith("Gateway"))
    assert verdict.startswith("Gateway   refuses it: 550 5.7.1 Refused, as sender.test asks for by its DMARC policy")
    assert not any(line.startswith("Writes") for line in told)


def test_the_same_as_json(dns: Dns) -> None:
    found = tree(run(dns, SIGNED, "--json"))
    assert found["octets"] == len(SIGNED)
    assert found["line_ends_read_as_crlf"] is False
    assert (found["client"], found["helo"], found["from"]) == (CLIENT, "mail.sender.test", "alice@sender.test")
    assert found["iprev"] == {"status": "pass", "name": "mail.sender.test", "reason": ""}
    assert isinstance(found["spf"], dict)
    assert found["spf"]["mail_from"]["mechanism"] == "ip4:192.0.2.0/28"
    assert found["spf"]["helo"]["status"] == "none"
    assert isinstance(found["dkim"], list)
    (signature,) = found["dkim"]
    assert signature["key"] == "lab._domainkey.sender.test (rsa, 2048 bits)"
    assert (signature["status"], signature["domain"], signature["selector"]) == ("pass", "sender.test", "lab")
    assert isinstance(found["dmarc"], dict)
    assert (found["dmarc"]["status"], found["dmarc"]["policy"]) == ("pass", "reject")
    assert found["aligned_under_both"] is True
    assert (found["disposition"], found["reply"], found["override"]) == ("pass", None, "")
    assert found["foresight"] == {
        "expected": "pass",
        "reason": "the signature of sender.test survives and is aligned",
        "author": "sender.test",
        "policy": "reject",
        "passed_here": True,
        "carrier": "sender.test",
        "broken": [],
        "action": "forward",
        "because": "",
    }
    assert found["removed"] == ["Authentication-Results: MX1.Ours.Test.; dmarc=pass"]
    assert str(found["authentication_results"]).startswith("Authentication-Results: mx1.ours.test;\r\n\tiprev=pass")


def test_a_refusal_as_json(dns: Dns) -> None:
    result = run(dns, CHANGED, "--json", ip="198.51.100.9")
    found = tree(result)
    assert result.exit_code == 1
    assert found["disposition"] == "reject"
    assert str(found["reply"]).startswith("550 5.7.1 Refused, as sender.test asks")
    assert found["authentication_results"] == ""
    assert found["aligned_under_both"] is False
    assert found["foresight"] is None


def test_what_only_spf_carried_is_foreseen_to_fail(dns: Dns) -> None:
    told = lines(run(dns, MESSAGE))
    assert "Foresight DMARC there: fail: only SPF passed here, and SPF does not survive forwarding" in told
    assert "            From is rewritten to an address of ours ([rewrite])" in told
    found = tree(run(dns, MESSAGE, "--json"))["foresight"]
    assert isinstance(found, dict)
    assert (found["expected"], found["action"], found["carrier"]) == ("fail", "rewrite", "")


def test_a_signature_that_we_break_is_told(dns: Dns) -> None:
    told = lines(run(dns, sign(MESSAGE, h="from:authentication-results:authentication-results")))
    assert "            the signature of sender.test does not survive what is done to the header here" in told
    found = tree(run(dns, sign(MESSAGE, h="from:authentication-results:authentication-results"), "--json"))["foresight"]
    assert isinstance(found, dict)
    assert (found["broken"], found["expected"]) == (["sender.test"], "fail")


def test_a_signature_that_names_our_fields_survives(dns: Dns) -> None:
    told = lines(run(dns, sign(MESSAGE, h="from:delivered-to:x-forwarded-for:x-forwarded-to")))
    assert "Foresight DMARC there: pass: the signature of sender.test survives and is aligned" in told


def test_from_that_cannot_be_rewritten_is_told(dns: Dns) -> None:
    unwritable = MESSAGE.replace(b"Alice <alice@sender.test>", b"Alice <" + b"a" * 9000 + b"@sender.test>")
    told = lines(run(dns, unwritable))
    assert any("forwarded with From as it is, which cannot be rewritten: the From" in line for line in told), told


def test_lf_line_ends_are_read_as_crlf_and_said(dns: Dns) -> None:
    result = run(dns, SIGNED.replace(b"\r\n", b"\n"))
    assert result.exit_code == 0
    assert lines(result)[0] == f"Message   {len(SIGNED)} octets; its LF line ends were read as CRLF"
    assert tree(run(dns, SIGNED.replace(b"\r\n", b"\n"), "--json"))["line_ends_read_as_crlf"] is True


def test_a_file(dns: Dns, tmp_path: Path) -> None:
    file = tmp_path / "message.eml"
    file.write_bytes(SIGNED)
    options = ["--ip", CLIENT, "--helo", "x.test", "--from", "<>", "--hostname", "mx1.ours.test"]
    result = CliRunner().invoke(
        main, ["check", str(file), *options, "--nameserver", dns.address], env={"FORWARDER_CONFIG": None}
    )
    assert result.exit_code == 0, result.output
    assert "MAIL FROM <>" in result.stdout


@pytest.mark.parametrize("null", ["<>", ""])
def test_the_null_sender(dns: Dns, null: str) -> None:
    told = lines(run(dns, SIGNED, **{"from": null, "helo": "sender.test"}))
    assert 'SPF       HELO sender.test: pass by "ip4:192.0.2.0/28"' in told
    assert not any("MAIL FROM sender.test" in line for line in told)


def test_brackets_around_the_sender(dns: Dns) -> None:
    assert run(dns, SIGNED, **{"from": "<alice@sender.test>"}).exit_code == 0


def test_a_chain(dns: Dns) -> None:
    told = lines(run(dns, chain(2, MESSAGE)))
    start = told.index("ARC       pass (2 sets)")
    assert told[start + 1 : start + 3] == [
        "            set 2 sealed by relay.test",
        "            set 1 sealed by relay.test",
    ]


def test_no_policy_is_fine(dns: Dns) -> None:
    result = run(dns, b"From: a@nobody.test\r\n\r\nhi\r\n")
    assert result.exit_code == 0
    assert "DMARC     From nobody.test: none: no DMARC policy is published for nobody.test" in lines(result)


def test_no_single_author_is_not(dns: Dns) -> None:
    result = run(dns, b"From: a@sender.test\r\nFrom: b@sender.test\r\n\r\nhi\r\n")
    assert result.exit_code == 1
    assert any(line.startswith("DMARC     From (no single domain): permerror: ") for line in lines(result))


def test_a_message_that_nobody_could_relay(dns: Dns) -> None:
    result = run(dns, b"Received: by a\r\n" * 60 + SIGNED)
    assert any(line.startswith("Gateway   refuses it: 554 5.4.6 Mail loop") for line in lines(result))


def test_dns_that_does_not_answer(dns: Dns) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{silent.getsockname()[1]}"
    result = CliRunner().invoke(
        main,
        ["check", "-", "--ip", CLIENT, "--helo", "x.test", "--from", "a@sender.test", "--nameserver", where],
        input=SIGNED,
        env={"FORWARDER_CONFIG": None},
    )
    assert result.exit_code == 1
    assert any(line.startswith("Gateway   refuses it: 451 4.4.3") for line in lines(result))


def test_strangers_cannot_move_the_cursor(dns: Dns) -> None:
    evil = MESSAGE.replace(b"dmarc=pass", "dmarc=pass \x1b[2J\u202e\x07".encode())
    assert not set(run(dns, evil).stdout) & set("\x1b\u202e\x07\t\r")


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("ip", "192.0.2", "'192.0.2' is not an IP address"),
        ("helo", "a b", "not a host name"),
        ("helo", "a\r\nb", "not a host name"),
        ("from", "nonsense", "an address needs an @"),
        ("hostname", "a..b", "the domain is malformed"),
        ("nameserver", "dns.test", "address or address:port"),
    ],
)
def test_wrong_use(dns: Dns, option: str, text: str, reason: str) -> None:
    result = run(dns, SIGNED, **{option: text})
    assert result.exit_code == 2
    assert f"'--{option}'" in result.stderr
    assert reason in result.stderr


def test_a_file_that_is_not_there(dns: Dns) -> None:
    result = CliRunner().invoke(main, ["check", "/nowhere/m.eml", "--ip", CLIENT, "--helo", "x", "--from", "<>"])
    assert result.exit_code == 2
    assert "/nowhere/m.eml" in result.stderr


@pytest.mark.parametrize("missing", ["ip", "helo", "from"])
def test_what_must_be_given(missing: str) -> None:
    given = {"ip": CLIENT, "helo": "x.test", "from": "<>"}
    words = [word for name, text in given.items() if name != missing for word in (f"--{name}", text)]
    result = CliRunner().invoke(main, ["check", "-", *words], input=b"")
    assert result.exit_code == 2
    assert f"'--{missing}'" in result.stderr


@pytest.fixture
def config(tmp_path: Path, dns: Dns) -> Path:
    path = tmp_path / "forwarder.toml"
    path.write_text(
        f"""
        hostname = "mx9.configured.test"
        postmaster = "me@gmail.com"
        rules = "{tmp_path}"
        state_dir = "{tmp_path}"
        [dns]
        nameservers = ["{dns.address}"]
        [authentication]
        dmarc = "report"
        spf = false
        arc = false
        trusted_arc_sealers = []
        """
    )
    return path


def with_config(environ: dict[str, str | None], *options: str) -> Result:
    words = ["check", "-", "--ip", "198.51.100.9", "--helo", "x.test", "--from", "a@sender.test"]
    return CliRunner().invoke(main, [*words, *options], input=CHANGED, env=environ)


@pytest.mark.parametrize("by_option", [True, False])
def test_the_configuration_is_honoured(config: Path, by_option: bool) -> None:
    environ: dict[str, str | None] = {"FORWARDER_CONFIG": None if by_option else str(config)}
    result = with_config(environ, *(["--config", str(config)] if by_option else []))
    told = lines(result)
    assert result.exit_code == 1  # DMARC does not pass, even if nothing follows from it
    assert "SPF       not checked here" in told
    assert "ARC       not checked here" in told
    assert "Gateway   forwards it" in told
    assert "            although: policies are only reported here" in told
    assert "Writes    Authentication-Results: mx9.configured.test;" in told


def test_options_come_before_the_configuration(config: Path) -> None:
    told = lines(with_config({"FORWARDER_CONFIG": str(config)}, "--hostname", "mx1.ours.test"))
    assert "Writes    Authentication-Results: mx1.ours.test;" in told


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('from = "never"', "forwarded with From as it is"),
        ('from = "never"\notherwise = "reject"', "refused, 550 5.7.1 ([rewrite])"),
    ],
)
def test_what_is_done_about_it_is_as_configured(config: Path, section: str, said: str) -> None:
    text = config.read_text().replace("spf = false", "").replace('"report"', '"enforce"')
    config.write_text(f"{text}\n[rewrite]\n{section}\n")
    words = ["check", "-", "--ip", CLIENT, "--helo", "x.test", "--from", "a@sender.test", "--config", str(config)]
    result = CliRunner().invoke(main, words, input=MESSAGE)
    assert f"            {said}" in lines(result)


def test_dmarc_switched_off_is_fine(config: Path) -> None:
    config.write_text(config.read_text().replace('"report"', '"off"'))
    result = with_config({"FORWARDER_CONFIG": str(config)})
    assert result.exit_code == 0
    assert "DMARC     not checked here" in lines(result)


def test_a_configuration_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    result = with_config({"FORWARDER_CONFIG": None}, "--config", str(tmp_path / "none.toml"))
    assert result.exit_code == 1
    assert "none.toml" in result.stderr


def test_without_a_configuration_the_machine_gives_the_name(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.cli.check.socket.gethostname", lambda: "Box.Home.Test")
    words = [
        "check",
        "-",
        "--ip",
        CLIENT,
        "--helo",
        "x.test",
        "--from",
        "alice@sender.test",
        "--nameserver",
        dns.address,
    ]
    told = lines(CliRunner().invoke(main, words, input=SIGNED, env={"FORWARDER_CONFIG": "/nowhere/forwarder.toml"}))
    assert "Writes    Authentication-Results: box.home.test;" in told
