"""`deploy/quickstart`: a gateway at work on this machine alone, or a folder for a real one.

Without options it starts a name server, an inbox and the gateway on loopback, sends one signed letter through, shows
what was said, what arrived and what was logged, and serves until Ctrl-C. With `--domain` and `--to` it prepares an
installation and starts nothing (`deploy.demo.installation`).

Exit status: 0 fine; 1 the letter did not arrive octet for octet, or something could not be started; 2 wrong use; 130
interrupted before the end.
"""

import argparse
import asyncio
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from deploy.demo import installation
from deploy.demo.gateway import GatewayError, gateway, listening_socket
from deploy.demo.inbox import Inbox, Maildir
from deploy.demo.letter import Signed, compose, send, verifies
from deploy.demo.say import Say
from deploy.demo.setting import INBOX, SENDER, SERVED, Ports, command, key_records, table, write_configuration
from deploy.demo.zone import Zone
from forwarder.model.headers import split_header

_GATEWAY_HOST = "127.0.0.1"
_INBOX_HOST = "127.0.0.2"  # an address of its own, as the other host that it stands for
_MAX_SOCKET_FOLDER = 60  # characters: the path of a Unix socket may have 107
_LOG_WITHIN = 5.0  # seconds for the last line of the log to come through the pipe
_FULL = {f"full@{INBOX}": "552 5.2.2 This mailbox is full"}


@dataclass
class Scene:
    """Everything that is up while the demonstration runs."""

    folder: Path
    config: Path
    ports: Ports
    maildir: Maildir
    letter: Signed
    log: list[str] = field(default_factory=list)


def main() -> None:
    """Run from the command line."""
    arguments = _parser().parse_args()
    say = Say(sys.stdout)
    if arguments.domain or arguments.to:
        if not (arguments.domain and arguments.to):
            _parser().error("--domain and --to go together")
        raise SystemExit(installation.prepare(arguments.domain, arguments.to, arguments.dir, say))
    if arguments.dir:
        _parser().error("--dir goes with --domain and --to")
    raise SystemExit(asyncio.run(_run(say, once=arguments.once)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy/quickstart",
        description="Show the gateway at work on this machine alone; or, with --domain and --to, prepare a real one.",
    )
    parser.add_argument("--once", action="store_true", help="end after the first letter instead of serving on")
    parser.add_argument("--domain", metavar="D", help="the domain whose mail is to be forwarded")
    parser.add_argument("--to", metavar="A", help="the inbox that it is forwarded to")
    parser.add_argument("--dir", metavar="DIR", type=Path, help="the folder to prepare (default: forwarder-D)")
    return parser


async def _run(say: Say, *, once: bool) -> int:
    """Demonstrate; whatever was started or written is gone afterwards."""
    task = asyncio.current_task()
    assert task
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    folder = _folder()
    try:
        async with AsyncExitStack() as stack:
            return await _demonstrate(await _set_up(folder, stack, say), say, once=once)
    except asyncio.CancelledError:
        say.line("\nInterrupted.")
        return 130
    except (GatewayError, installation.CommandError, OSError) as error:
        say.problem(str(error))
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="forwarder-"))
    if len(str(folder)) <= _MAX_SOCKET_FOLDER:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="forwarder-", dir="/tmp"))


async def _set_up(folder: Path, stack: AsyncExitStack, say: Say) -> Scene:
    maildir = Maildir(folder / "inbox")
    letter = compose(SENDER, f"you@{SERVED}", datetime.now(UTC))
    names = table(letter, _GATEWAY_HOST, _INBOX_HOST)
    zone = Zone(names)
    dns = await _preferring(stack, lambda port: zone.serve(_GATEWAY_HOST, port), 5353)
    inbox = Inbox(maildir.take, _FULL, f"mx.{INBOX}")
    sink = await _preferring(stack, lambda port: inbox.serve(_INBOX_HOST, port), 2526)
    listening = stack.enter_context(listening_socket(_GATEWAY_HOST, 2525))
    ports = Ports(dns=dns, inbox=sink, gateway=listening.getsockname()[1])
    config = await asyncio.to_thread(write_configuration, folder, ports)
    zone.replace({**names, **key_records(config)})
    scene = Scene(folder, config, ports, maildir, letter)
    await stack.enter_async_context(gateway(config, listening, _hear(scene, say)))
    return scene


def _hear(scene: Scene, say: Say) -> Callable[[str], None]:
    def hear(line: str) -> None:
        scene.log.append(line)
        if say.live:
            say.quiet(line)

    return hear


async def _preferring(
    stack: AsyncExitStack, serve: Callable[[int], AbstractAsyncContextManager[tuple[str, int]]], port: int
) -> int:
    """Serve on that port, or on a free one where it is taken; give the port."""
    try:
        return (await stack.enter_async_context(serve(port)))[1]
    except OSError:
        return (await stack.enter_async_context(serve(0)))[1]


async def _demonstrate(scene: Scene, say: Say, *, once: bool) -> int:
    ports = scene.ports
    say.title("1  A small world, on this machine alone")
    say.line(f"  name server  127.0.0.1:{ports.dns}   knows {SERVED}, {SENDER} and {INBOX}")
    say.line(f"  gateway      127.0.0.1:{ports.gateway}   is the MX of {SERVED}")
    say.line(f"  inbox        127.0.0.2:{ports.inbox}   is the MX of {INBOX}; keeps its mail in {scene.maildir.folder}")
    say.title(f"2  {SENDER} sends a letter to you@{SERVED}")
    server = (_GATEWAY_HOST, ports.gateway)
    dialogue = await send(server, f"ada@{SENDER}", f"you@{SERVED}", scene.letter.octets)
    for line in dialogue.lines:
        say.line(f"  {line}")
    if not dialogue.accepted:
        return _failed(scene, say, "The letter was not accepted.")
    messages = scene.maildir.messages()
    if len(messages) != 1:
        return _failed(scene, say, f"{len(messages)} letters lie in the inbox instead of one.")
    arrived = messages[0].read_bytes()
    if problem := _examine(arrived, scene, say):
        return _failed(scene, say, problem)
    await _show_log(arrived, scene, say)
    if once:
        return 0
    return await _serve_on(scene, say)


def _examine(arrived: bytes, scene: Scene, say: Say) -> str:
    """Show what lies in the inbox; give what is wrong with it, or ""."""
    original = scene.letter.octets
    envelope = scene.maildir.envelope(scene.maildir.messages()[0])
    recipients = envelope["to"]
    assert isinstance(recipients, list)
    say.title(f"3  What lies in the inbox of {', '.join(recipients)}")
    say.line(f"  envelope sender: {envelope['from']}")
    if not arrived.endswith(original):
        return "What arrived does not end with the octets that were sent."
    ours = arrived[: len(arrived) - len(original)]
    if not ours or split_header(ours).size != len(ours):
        return "What stands before the letter is not made of header lines."
    for line in ours.decode("ascii", "backslashreplace").splitlines():
        say.added(line)
    header = split_header(original)
    for line in original[: header.size].decode("ascii", "backslashreplace").splitlines():
        say.line(f"    {line}")
    if not verifies(arrived, scene.letter):
        return "The sender's DKIM signature does not verify any more."
    say.line("    …")
    say.line(f"  + the gateway's own lines. Below them all {len(original)} octets are as they were sent,")
    say.line("    and the sender's DKIM signature verifies.")
    return ""


async def _show_log(arrived: bytes, scene: Scene, say: Say) -> None:
    found = re.search(rb"\sid\s+([0-9A-Za-z]{8,})", arrived)
    name = found[1].decode() if found else ""
    say.title(f"4  What the log says of it{f' (id {name})' if name else ''}")
    for _ in range(int(_LOG_WITHIN / 0.05)):
        if any(name in line and "accepted" in line for line in scene.log):
            break
        await asyncio.sleep(0.05)
    for line in scene.log:
        if name in line:
            say.quiet(f"  {line}")


async def _serve_on(scene: Scene, say: Say) -> int:
    port = scene.ports.gateway
    forwarder = command(scene.config)
    rules = scene.folder / "rules" / "demo.rules"
    say.title("5  Try it: it serves until Ctrl-C")
    say.line("  a letter of your own, and one to a mailbox whose server refuses (the true answer comes back):")
    say.line(f"    swaks --server 127.0.0.1:{port} --from me@{SENDER} --to hello@{SERVED}")
    say.line(f"    swaks --server 127.0.0.1:{port} --from me@{SENDER} --to full@{SERVED}")
    say.line("  where an address leads, and why:")
    say.line(f"    {forwarder} rules explain news-weekly@{SERVED}")
    say.line("  other rules, without a restart (edit the file first):")
    say.line(f"    {forwarder} rules check && {forwarder} rules reload     # {rules}")
    say.line("  the real thing, on port 25:")
    say.line("    deploy/quickstart --domain example.org --to you@gmail.com")
    say.line("")
    say.live = True
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say.live = False
        say.line("\nStopping; nothing is left behind.")
    return 0


def _failed(scene: Scene, say: Say, why: str) -> int:
    for line in scene.log:
        say.quiet(f"  {line}")
    say.problem(why)
    return 1


if __name__ == "__main__":
    main()
