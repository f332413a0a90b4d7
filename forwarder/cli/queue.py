"""`forwarder queue list|show|retry|hold|release|bounce|delete|resend`: the messages that wait in the spool.

Works while the gateway runs and while it is down (`cli.queue_access`). Every command first asks which messages are
meant, and then works on them by their ids in portions, so that a queue of any length can be listed and acted on.

Refused with exit status 2: a call that names nothing, an id that fits several messages, `--all` beside anything else,
and `bounce` or `delete` without `--yes` where nobody can be asked. Exit status 1: something that was meant could not
be found or was left as it was; the output says why.
"""

import base64
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, TypedDict, TypeVar, Unpack

import click
import msgspec

from forwarder.cli.config import config_option, load_or_exit
from forwarder.cli.queue_access import Ask, Unreachable, asking
from forwarder.cli.queue_output import Message, Report, Table, as_json, counted, header_lines, result, story
from forwarder.model.address import AddressError, parse_mailbox
from forwarder.ops.clock import SystemClock
from forwarder.ops.log import escape

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = 1000  # messages in one request: their ids stay well within what the control socket takes
_PORTIONS = {"bounce": 50, "resend": 50}  # these read and write each message
_PORTION = 500

_Value = TypeVar("_Value")
_Function = Callable[..., None]


class _Choice(TypedDict, total=False):
    """The options that say which messages are meant, and where the gateway is; None or empty unless given."""

    path: "Path"
    ids: tuple[str, ...]
    to: str | None
    domain: str | None
    sender: str | None
    state: str | None
    everything: bool
    json: bool


class _Failure(Exception):  # noqa: N818 - it is the end of the command, not of the program
    """The command ends here with `status`."""

    def __init__(self, status: int, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.status = status
        self.problems = problems


_JSON = click.option("--json", is_flag=True, help="As JSON.")
_STATE = click.option("--state", type=click.Choice(["queued", "held"]), help="Only what is in this state.")
_FROM = click.option("--from", "sender", metavar="A", help="Only what came from this envelope sender; <> for none.")
_DOMAIN = click.option("--domain", metavar="D", help="Only for this domain, of ours or of a destination.")
_TO = click.option("--to", metavar="A", help="Only for this address, of ours or of a destination.")
_ALL = click.option("--all", "everything", is_flag=True, help="Every message in the queue.")
_YES = click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")
_IDS = click.argument("ids", nargs=-1, metavar="[ID]...")


def _options(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    every: tuple[Callable[[_Function], _Function], ...] = (*options, config_option)

    def decorate(function: _Function) -> _Function:
        for option in reversed(every):
            function = option(function)
        return function

    return decorate


_choosing = _options(_IDS, _TO, _DOMAIN, _FROM, _STATE, _ALL, _JSON)


@click.group
def command() -> None:
    """List the messages that wait, and decide about them.

    ID is the id of a message, or at least 4 characters of its beginning.
    """


@command.command("list")
@_options(_IDS, _TO, _DOMAIN, _FROM, _STATE, _JSON)
def list_messages(**choice: Unpack[_Choice]) -> None:
    """List messages, oldest first, a line for each recipient."""
    config = load_or_exit(choice["path"])
    with _reporting(choice), asking(config) as ask:
        ids, unknown = _select(ask, _request(choice))
        pages = _pages(ask, choice, ids)
        if choice["json"]:
            _print_json(pages)
        else:
            _print_table(pages, filtered=bool(_request(choice)))
        _end([f"{id}: no such message in the queue" for id in unknown])


@command.command
@click.argument("id")
@click.option("--headers", is_flag=True, help="The header lines as well, ours first.")
@click.option("--content", is_flag=True, help="Only the exact octets that the first open recipient is to get.")
@_options(_JSON)
def show(id: str, headers: bool, content: bool, **choice: Unpack[_Choice]) -> None:
    """Tell everything about one message: what happened, what comes next, what you can do."""
    if content and (headers or choice["json"]):
        raise click.UsageError("--content writes the message and nothing else: leave out --headers and --json")
    if content and _is_terminal(sys.stdout):
        raise click.UsageError("--content can hold anything that moves a terminal: send it to a file, > FILE")
    config = load_or_exit(choice["path"])
    with _reporting(choice), asking(config) as ask:
        answer = _answer(ask, {"verb": "show", "ids": [id], "headers": headers})
        if choice["json"]:
            click.echo(as_json(answer["message"], indent=2))
            return
        message = _read(answer["message"], Message)
        if content:
            _write_content(ask, message)
            return
        for line in story(message, SystemClock().now(), config.delivery.expire):
            click.echo(line)
        if headers:
            click.echo()
            for line in header_lines(message.headers):
                click.echo(line)


@command.command
@_choosing
def retry(**choice: Unpack[_Choice]) -> None:
    """Try queued messages now."""
    _act("retry", choice)


@command.command
@_choosing
def hold(**choice: Unpack[_Choice]) -> None:
    """Keep queued messages and try nothing until they are released."""
    _act("hold", choice)


@command.command
@_choosing
def release(**choice: Unpack[_Choice]) -> None:
    """Queue held messages again, due now. Their time in the queue begins anew."""
    _act("release", choice)


@command.command
@_YES
@_choosing
def bounce(yes: bool, **choice: Unpack[_Choice]) -> None:
    """Give messages up and tell their senders, where these may be told."""
    _act("bounce", choice, None if yes else "Return {} to the sender?")


@command.command
@_YES
@_choosing
def delete(yes: bool, **choice: Unpack[_Choice]) -> None:
    """Give messages up and tell nobody."""
    _act("delete", choice, None if yes else "Delete {} for good, telling nobody?")


@command.command
@click.option("--to", "resend_to", required=True, metavar="ADDRESS", help="Where to send them.")
@_options(_IDS, _DOMAIN, _FROM, _STATE, _ALL, _JSON)
def resend(resend_to: str, **choice: Unpack[_Choice]) -> None:
    """Send messages to another address in place of where they could not be delivered."""
    try:
        parse_mailbox(resend_to)
    except AddressError as error:
        raise click.UsageError(f'--to: "{escape(resend_to)}" is not an address: {error}') from None
    _act("resend", choice, resend_to=resend_to)


def _act(verb: str, choice: _Choice, question: str | None = None, **more: str) -> None:
    """Select, ask whether it is meant where `question` says so, act. The spool is not kept open while somebody thinks.

    `question` has a place for how many messages it would be.
    """
    request = _request(choice)
    if not request:
        raise click.UsageError("say which messages are meant: ids, --to, --domain, --from, --state or --all")
    config = load_or_exit(choice["path"])
    with _reporting(choice):
        with asking(config) as ask:
            ids, unknown = _select(ask, {**request, "for": verb})
        if question and ids:
            _confirm(question.format(counted(len(ids), "message")))
        narrowed = {key: value for key, value in request.items() if key not in ("ids", "all")}
        report = Report(verb, unknown=unknown)
        if ids:
            with asking(config) as ask:
                _perform(ask, report, {**narrowed, **more, "verb": verb}, ids)
        _tell(report, choice, nothing=not ids and not unknown)


def _request(choice: _Choice) -> dict[str, object]:
    """Give what was given of a selection; nothing when nothing was. An empty text is given: the desk refuses it."""
    given = {
        "ids": list(choice.get("ids", ())) or None,
        "to": choice.get("to"),
        "domain": choice.get("domain"),
        "from": choice.get("sender"),
        "state": choice.get("state"),
        "all": choice.get("everything") or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _select(ask: Ask, request: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Give the ids of what is meant and the ids that name nothing; the request goes in portions of its ids."""
    given = request.get("ids")
    portions = list(_portions(given, _PAGE)) if isinstance(given, list) else [None]
    ids: dict[str, None] = {}
    unknown: list[str] = []
    for portion in portions:
        one = {**request, "ids": portion} if portion is not None else request
        answer = _answer(ask, {**one, "verb": "select"})
        ids |= dict.fromkeys(_read(answer["ids"], list[str]))
        unknown += _read(answer["unknown"], list[str])
    return list(ids), unknown


def _pages(ask: Ask, choice: _Choice, ids: Sequence[str]) -> Iterator[list[object]]:
    """Give the messages in portions. What has been delivered since it was selected is left out."""
    narrowed = {key: value for key, value in _request(choice).items() if key != "ids"}
    for portion in _progress(ids, _PAGE, "listed", shown=not _is_terminal(sys.stdout)):
        answer = _answer(ask, {**narrowed, "verb": "list", "ids": portion})
        yield _read(answer["messages"], list[object])


def _perform(ask: Ask, report: Report, request: Mapping[str, object], ids: Sequence[str]) -> None:
    for portion in _progress(ids, _PORTIONS.get(report.verb, _PORTION), "done"):
        try:
            answer = _answer(ask, {**request, "ids": portion})
        except _Failure as failure:
            if report.empty:
                raise
            report.problems += failure.problems  # what was done so far is told as well
            return
        report.changed += _read(answer["changed"], int)
        report.skipped += _read(answer["skipped"], list[dict[str, object]])
        report.new += _read(answer["new"], list[str])
        gone = _read(answer["unknown"], list[str])
        report.skipped += [{"id": id, "address": None, "reason": "gone meanwhile"} for id in gone]


def _portions(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def _progress(ids: Sequence[str], size: int, label: str, *, shown: bool = True) -> Iterator[list[str]]:
    """Give ids in portions and show on a terminal how far it is, where there is more than one portion."""
    if not shown or len(ids) <= size or not _is_terminal(sys.stderr):
        yield from _portions(ids, size)
        return
    with click.progressbar(length=len(ids), label=label, show_pos=True, file=sys.stderr) as bar:
        for portion in _portions(ids, size):
            yield portion
            bar.update(len(portion))


def _confirm(question: str) -> None:
    if not _somebody_is_there():
        raise _Failure(2, f"{question} Nobody can be asked here: give --yes if it is meant.")
    if not click.confirm(question, err=True):
        raise _Failure(1, "Nothing was changed.")


def _somebody_is_there() -> bool:
    return _is_terminal(sys.stdin)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def _answer(ask: Ask, request: Mapping[str, object]) -> Mapping[str, object]:
    """Ask; raise `_Failure` for an answer that is a refusal."""
    answer = ask(request)
    if answer.get("ok") is True:
        return answer
    problems = answer.get("problems")
    lines = [str(one) for one in problems] if isinstance(problems, list) else ["the gateway gave no answer"]
    raise _Failure(2 if answer.get("status") == 2 else 1, *lines)


def _read(value: object, kind: type[_Value]) -> _Value:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _Failure(1, f"the gateway's answer is not understood: {error}; is it of the same version?") from None


def _print_json(pages: Iterable[list[object]]) -> None:
    """Write the list as it comes: a long one need not be held in memory."""
    separator = '{"messages": ['
    for page in pages:
        for message in page:
            click.echo(separator + "\n" + as_json(message), nl=False)
            separator = ","
    click.echo("\n]}" if separator == "," else '{"messages": []}')


def _print_table(pages: Iterable[list[object]], *, filtered: bool) -> None:
    table = Table()
    for page in pages:
        for line in table.lines([_read(message, Message) for message in page], SystemClock().now()):
            click.echo(line)
    if table.messages:
        click.echo(table.summary())
    else:
        click.echo("No message in the queue fits." if filtered else "The queue is empty.")


def _write_content(ask: Ask, message: Message) -> None:
    number = next((one.number for one in message.to if one.open), 0)
    offset: object = 0
    output = sys.stdout.buffer
    while offset is not None:
        answer = _answer(ask, {"verb": "content", "ids": [message.id], "number": number, "offset": offset})
        output.write(base64.b64decode(_read(answer["octets"], str)))
        offset = answer["next"]
    output.flush()


def _tell(report: Report, choice: _Choice, *, nothing: bool) -> None:
    if choice["json"]:
        keys = ("verb", "changed", "skipped", "unknown", "new", "problems")
        click.echo(as_json({key: getattr(report, key) for key in keys}, indent=2))
    elif nothing:
        click.echo("No message in the queue fits: nothing was done.")
    else:
        for line in result(report):
            click.echo(line)
    if not report.fine:
        raise SystemExit(1)


def _end(problems: Sequence[str]) -> None:
    for problem in problems:
        click.echo(escape(problem), err=True)
    if problems:
        raise SystemExit(1)


@contextmanager
def _reporting(choice: _Choice) -> Iterator[None]:
    """End the command with what went wrong: on stderr, with `--json` as an object on stdout too."""
    try:
        yield
    except (_Failure, Unreachable) as error:
        problems = error.problems if isinstance(error, _Failure) else tuple(str(error).splitlines())
        if choice["json"]:
            click.echo(as_json({"problems": list(problems)}))
        for problem in problems:
            click.echo(escape(problem), err=True)
        raise SystemExit(error.status if isinstance(error, _Failure) else 1) from None
