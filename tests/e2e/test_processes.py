"""Several processes: what counts for all of them, what becomes of one that dies, and how they end together."""

import contextlib
import os
import re
import resource
import signal
import ssl
from collections import Counter
from collections.abc import Iterator

import pytest
import trustme

from tests.lab.client import Client
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.maildir import wait_for
from tests.lab.process import lives
from tests.lab.world import Host, World

RULES = "[forward.test]\nme -> inbox@hop.test\nfew -> inbox@hop.test limit 4/hour\n"
OTHER = '[forward.test]\nme -> inbox@hop.test\nfew -> reject "550 5.7.1 Not any more"\n'
MESSAGE = b"From: a@sender.test\r\nSubject: x\r\n\r\ntext\r\n"
TWO = {"workers": 2}


@pytest.fixture
def gate(loopback: World) -> Host:
    return loopback.host("mx.forward.test")


@contextlib.contextmanager
def clients_of_each(loopback: World, gateway: Gateway, gate: Host) -> Iterator[dict[int, Client]]:
    """Give a client of each of two workers, by its number. They have said EHLO."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Client(loopback, gate))
        number = _latest(gateway)
        # Whoever serves the first one stands still for a moment: so another one gets the second.
        os.kill(gateway.pid_of(number), signal.SIGSTOP)
        try:
            second = stack.enter_context(Client(loopback, gate))
            other = _latest(gateway)
        finally:
            os.kill(gateway.pid_of(number), signal.SIGCONT)
        for client in (first, second):
            client.ehlo()
        assert {number, other} == set(gateway.workers()) == {1, 2}
        yield {number: first, other: second}


def _latest(gateway: Gateway) -> int:
    """Say which worker serves the client that was greeted last."""
    number = gateway.events("connect")[-1]["worker"]
    assert isinstance(number, int)
    return number


def send(loopback: World, gate: Host, to: str = "me") -> int:
    with Client(loopback, gate) as client:
        client.ehlo()
        return client.send("a@sender.test", f"{to}@forward.test", MESSAGE).code


def test_mail_flows_through_every_worker(loopback: World, gate: Host) -> None:
    with Hop(loopback, loopback.host("hop.test")) as hop, Gateway(loopback, gate, RULES, settings=TWO) as gateway:
        assert len(gateway.workers()) == 2
        with clients_of_each(loopback, gateway, gate) as clients:
            for client in clients.values():
                assert client.send("a@sender.test", "me@forward.test", MESSAGE).code == 250
        assert len(hop.accepted) == 2
        assert {event["worker"] for event in gateway.events("delivered")} == {1, 2}


def test_a_worker_that_dies_is_replaced_and_its_clients_count_no_more(loopback: World, gate: Host) -> None:
    settings = {**TWO, "limits.connections_per_client": 2}
    with Hop(loopback, loopback.host("hop.test")), Gateway(loopback, gate, RULES, settings=settings) as gateway:
        with clients_of_each(loopback, gateway, gate):
            assert _greeting(loopback, gate) == 421
            killed = gateway.pid_of(1)
            os.kill(killed, signal.SIGKILL)
            gateway.wait_event("worker", 3)  # two at the start
            assert killed not in gateway.workers().values()
            assert len(gateway.workers()) == 2
            assert send(loopback, gate) == 250  # there is room for one again
            assert any("SIGKILL" in str(event["text"]) for event in gateway.events("alert"))
        wait_for(lambda: _greeting(loopback, gate) == 220, what="places are not given up")


def _greeting(loopback: World, gate: Host) -> int:
    with loopback.connect(gate) as client, client.makefile("rb") as incoming:
        return int(incoming.readline()[:3])


def test_when_the_parent_is_killed_nothing_of_it_is_left(loopback: World, gate: Host) -> None:
    with Hop(loopback, loopback.host("hop.test")) as hop:
        gateway = Gateway(loopback, gate, RULES, settings=TWO)
        gateway.start()
        workers = gateway.workers()
        with Client(loopback, gate) as client:
            client.ehlo()
            gateway.kill()
            assert client.closed()
        assert not any(map(lives, workers.values()))
        with gateway:
            assert send(loopback, gate) == 250
        assert len(hop.accepted) == 1


def test_a_worker_that_stands_still_goes_with_its_parent(loopback: World, gate: Host) -> None:
    gateway = Gateway(loopback, gate, RULES, settings=TWO)
    gateway.start()
    workers = gateway.workers()
    os.kill(workers[1], signal.SIGSTOP)
    gateway.kill()
    assert not any(map(lives, workers.values()))


def test_connections_are_counted_over_all_workers(loopback: World, gate: Host) -> None:
    settings = {**TWO, "limits.connections": 8, "limits.connections_per_client": 8}
    with Gateway(loopback, gate, RULES, settings=settings) as gateway, contextlib.ExitStack() as stack:
        with clients_of_each(loopback, gateway, gate) as clients:
            for _ in range(8 - len(clients)):
                stack.enter_context(Client(loopback, gate)).ehlo()
            assert [_greeting(loopback, gate) for _ in range(6)] == [421] * 6
            stack.close()
        wait_for(lambda: _greeting(loopback, gate) == 220, what="no place is given up")


def test_connections_of_one_client_are_counted_over_all_workers(loopback: World, gate: Host) -> None:
    settings = {**TWO, "limits.connections_per_client": 2}
    other = loopback.host("other.test")
    with Gateway(loopback, gate, RULES, settings=settings) as gateway, clients_of_each(loopback, gateway, gate):
        assert [_greeting(loopback, gate) for _ in range(6)] == [421] * 6
        with Client(loopback, gate, other) as client:
            client.ehlo()


def test_the_limit_of_a_rule_holds_over_all_workers(loopback: World, gate: Host) -> None:
    with Hop(loopback, loopback.host("hop.test")), Gateway(loopback, gate, RULES, settings=TWO) as gateway:
        with clients_of_each(loopback, gateway, gate) as clients:
            codes = [
                client.send("a@sender.test", "few@forward.test", MESSAGE).code
                for _ in range(3)
                for client in clients.values()
            ]
        assert codes == [250] * 4 + [450] * 2


def test_a_reload_reaches_every_worker(loopback: World, gate: Host) -> None:
    with Hop(loopback, loopback.host("hop.test")), Gateway(loopback, gate, RULES, settings=TWO) as gateway:
        done = gateway.reload(OTHER)
        assert done.status == 0, done.output
        assert verdicts(loopback, gateway, gate) == {1: 550, 2: 550}
        gateway.rules_file.write_text(RULES)
        gateway.reread()
        gateway.wait_event("reload", 2)
        assert verdicts(loopback, gateway, gate) == {1: 250, 2: 250}


def verdicts(loopback: World, gateway: Gateway, gate: Host) -> dict[int, int]:
    """Say what each worker answers to a recipient that only the rules of `RULES` have."""
    codes = {}
    with clients_of_each(loopback, gateway, gate) as clients:
        for number, client in clients.items():
            assert client.command("MAIL FROM:<a@sender.test>").code == 250
            codes[number] = client.command("RCPT TO:<few@forward.test>").code
    return codes


def test_a_reload_that_one_worker_cannot_follow_reaches_none(loopback: World, gate: Host) -> None:
    with Hop(loopback, loopback.host("hop.test")), Gateway(loopback, gate, RULES, settings=TWO) as gateway:
        poor = gateway.pid_of(2)
        soft, hard = resource.prlimit(poor, resource.RLIMIT_NOFILE)
        resource.prlimit(poor, resource.RLIMIT_NOFILE, (3, hard))  # it cannot open anything
        done = gateway.reload(OTHER)
        assert done.status == 1, done.output
        resource.prlimit(poor, resource.RLIMIT_NOFILE, (soft, hard))
        assert verdicts(loopback, gateway, gate) == {1: 250, 2: 250}
        os.kill(gateway.pid_of(1), signal.SIGKILL)  # the next one begins with the rules in force, not with the file's
        gateway.wait_event("worker", 3)
        assert verdicts(loopback, gateway, gate) == {1: 250, 2: 250}
        assert gateway.reload().status == 0
        assert verdicts(loopback, gateway, gate) == {1: 550, 2: 550}


def test_a_worker_that_is_replaced_needs_no_file(loopback: World, gate: Host) -> None:
    with Hop(loopback, loopback.host("hop.test")), Gateway(loopback, gate, RULES, settings=TWO) as gateway:
        gateway.rules_file.write_text("nonsense")
        gateway.configuration.write_text("nonsense")
        (gateway.folder / "state" / "srs.secrets").unlink()
        (gateway.folder / "state" / "self-signed.pem").unlink()
        for count, number in enumerate([1, 2]):
            os.kill(gateway.pid_of(number), signal.SIGKILL)
            gateway.wait_event("worker", 3 + count)
        with clients_of_each(loopback, gateway, gate) as clients:
            for client in clients.values():
                assert client.send("a@sender.test", "me@forward.test", MESSAGE).code == 250
                assert client.command("STARTTLS").code == 220


def test_a_renewed_certificate_reaches_workers(loopback: World, gate: Host) -> None:
    with Gateway(loopback, gate, RULES, settings=TWO) as gateway:
        file = gateway.folder / "state" / "self-signed.pem"
        before = shown(loopback, gate)
        pair = trustme.CA().issue_cert("mx.forward.test").private_key_and_cert_chain_pem.bytes()
        file.with_suffix(".new").touch(mode=0o600)
        file.with_suffix(".new").write_bytes(pair)
        file.with_suffix(".new").rename(file)
        wait_for(lambda: shown(loopback, gate) != before, what="the old certificate is still shown")
        os.kill(gateway.pid_of(1), signal.SIGKILL)
        gateway.wait_event("worker", 3)
        assert before not in [shown(loopback, gate) for _ in range(10)]


def shown(loopback: World, gate: Host) -> bytes | None:
    """Give the certificate that a client sees."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with loopback.connect(gate) as plain:
        for line in (b"", b"EHLO c.test\r\n", b"STARTTLS\r\n"):
            plain.sendall(line)
            reply = b""
            while not re.search(rb"^\d{3} [^\n]*\n\Z", reply, re.MULTILINE):
                reply += plain.recv(4096)
        with context.wrap_socket(plain) as secure:
            return secure.getpeercert(binary_form=True)


def test_sigterm_drains_every_worker(loopback: World, gate: Host) -> None:
    with Hop(loopback, loopback.host("hop.test")) as hop, Gateway(loopback, gate, RULES, settings=TWO) as gateway:
        workers = gateway.workers()
        with clients_of_each(loopback, gateway, gate) as clients:
            for client in clients.values():
                for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<me@forward.test>"):
                    assert client.command(line).code == 250
                assert client.command("DATA").code == 354
            gateway.terminate()
            gateway.wait_event("stopping")
            wait_for(lambda: _refused(loopback, gate), what="somebody still listens")
            for client in clients.values():
                client.write(MESSAGE + b".\r\n")
                assert client.read().code == 250
        assert gateway.wait_end() == 0
        assert gateway.events("stopped")[0]["cut_off"] == 0
        assert not any(map(lives, workers.values()))
        assert len(hop.accepted) == 2


def _refused(loopback: World, gate: Host) -> bool:
    try:
        loopback.connect(gate).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_signals_of_a_terminal_are_the_parents(loopback: World, gate: Host) -> None:
    gateway = Gateway(loopback, gate, RULES, settings=TWO)
    with gateway:
        workers = gateway.workers()
        for pid in workers.values():
            os.kill(pid, signal.SIGHUP)
            os.kill(pid, signal.SIGINT)
        assert gateway.reload().status == 0  # they have answered since
        assert gateway.workers() == workers
        assert gateway.process is not None
        os.killpg(gateway.process.pid, signal.SIGINT)
        assert gateway.wait_end() == 0
        assert not any(map(lives, workers.values()))


def test_restarts_under_load_leave_no_process_behind(loopback: World, gate: Host) -> None:
    with Hop(loopback, loopback.host("hop.test")) as hop, Gateway(loopback, gate, RULES, settings=TWO) as gateway:
        seen = Counter[int]()
        for round_ in range(3):
            for pid in gateway.workers().values():
                seen[pid] += 1
                os.kill(pid, signal.SIGKILL)
            gateway.wait_event("worker", 4 + 2 * round_)
            assert send(loopback, gate) == 250
        assert not any(map(lives, seen))
        assert gateway.zombies() == []
        assert len(hop.accepted) == 3
