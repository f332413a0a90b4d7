"""Which messages are never answered by a DSN, and which DSNs a sender wants."""

import pytest

from forwarder.bounce.report import Action
from forwarder.bounce.suppress import silence, wants
from forwarder.model.address import Address
from forwarder.model.envelope import RcptOptions
from forwarder.model.headers import MAX_FIELDS, split_header
from tests.bounce.samples import HEADER, SENDER


def reason(field: bytes) -> str:
    return silence(SENDER, split_header(HEADER + field + b"\r\nText\r\n"))


def test_ordinary_mail_may_be_answered() -> None:
    assert silence(SENDER, split_header(HEADER + b"\r\n")) == ""


def test_the_null_sender_is_never_answered() -> None:
    assert silence(None, split_header(HEADER + b"\r\n")) == "it has the null sender"


@pytest.mark.parametrize("local", ["MAILER-DAEMON", "owner-list", "Owner-List", "list-request", "mailer-daemon"])
def test_senders_that_are_programs(local: str) -> None:
    assert silence(Address(local, "there.example"), split_header(HEADER + b"\r\n"))


@pytest.mark.parametrize("local", ["landowner-x", "request", "list-request-2", "postmaster", "bounces+1", "noreply"])
def test_senders_that_are_not(local: str) -> None:
    assert silence(Address(local, "there.example"), split_header(HEADER + b"\r\n")) == ""


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"Auto-Submitted: auto-generated\r\n", "it was sent by a program"),
        (b"AUTO-SUBMITTED :\r\n  Auto-Replied (vacation); x=y\r\n", "it was sent by a program"),
        (b"Auto-Submitted: (no) auto-notified\r\n", "it was sent by a program"),
        (b"Auto-Submitted: \r\n", "it was sent by a program"),
        (b"Auto-Submitted: no\r\nAuto-Submitted: yes\r\n", "it was sent by a program"),
        (b"Auto-Submitted: nothing\r\n", "it was sent by a program"),
        (b"Precedence: bulk\r\n", "it was sent in bulk"),
        (b"precedence:\r\n\tLIST (really)\r\n", "it was sent in bulk"),
        (b"Precedence: junk\r\n", "it was sent in bulk"),
        (b"Precedence: auto_reply\r\n", "it was sent in bulk"),
        (b'Precedence: (") bulk (")\r\n', "it was sent in bulk"),
        (b"Precedence: (\\)) bulk\r\n", "it was sent in bulk"),
        (b"List-Id: <a.lists.example>\r\n", "it came from a list"),
        (b"List-Post: NO\r\n", "it came from a list"),
        (b"LIST-UNSUBSCRIBE: <mailto:a@b.example>\r\n", "it came from a list"),
        (b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", "it came from a list"),
        (b"List-Help: x\r\n", "it came from a list"),
        (b"List-Subscribe: x\r\n", "it came from a list"),
        (b"List-Owner: x\r\n", "it came from a list"),
        (b"List-Archive: x\r\n", "it came from a list"),
        (b"Mailing-List: contact x\r\n", "it came from a list"),
        (b"X-Auto-Response-Suppress: OOF, NDR\r\n", "it asks for no reports"),
        (b"X-Auto-Response-Suppress: All\r\n", "it asks for no reports"),
        (b"X-Auto-Response-Suppress: dr,\r\n oof\r\n", "it asks for no reports"),
        (b"Content-Type: multipart/report; report-type=delivery-status\r\n", "it is a report itself"),
        (b"Content-Type: Multipart / (x) Report\r\n", "it is a report itself"),
        (b'Content-Type: multipart/report; x="("\r\n', "it is a report itself"),
        (b"Content-Type: message/delivery-status\r\n", "it is a report itself"),
        (b"Content-Type: message/global-delivery-status\r\n", "it is a report itself"),
        (b"Content-Type: message/disposition-notification\r\n", "it is a report itself"),
        (b"Content-Type: message/global-disposition-notification\r\n", "it is a report itself"),
        (b"Return-Path: <>\r\n", "it had the null sender before"),
        (b"Return-Path: < > (bounce)\r\n", "it had the null sender before"),
    ],
)
def test_marks(field: bytes, expected: str) -> None:
    assert reason(field) == expected


@pytest.mark.parametrize(
    "field",
    [
        b"Auto-Submitted: no\r\n",
        b"Auto-Submitted: (a (nested) one) No ; x=y\r\n",
        b'Auto-Submitted: ("a) no (b")\r\n',
        b"Auto-Submitted: no (open\r\n",
        b"Precedence: first-class\r\n",
        b"Precedence: normal (bulk)\r\n",
        b"X-Auto-Response-Suppress: OOF, AutoReply\r\n",
        b"Content-Type: multipart/mixed\r\n",
        b"Content-Type: text/plain; x=multipart/report\r\n",
        b"Return-Path: <a@b.example>\r\n",
        b"Subject: List-Id: x\r\n",
        b"X-List-Id: x\r\n",
    ],
)
def test_what_is_no_mark(field: bytes) -> None:
    assert reason(field) == ""


def test_what_cannot_be_told_is_not_answered() -> None:
    assert silence(SENDER, split_header(HEADER))
    many = split_header(b"X: y\r\n" * (MAX_FIELDS + 1) + b"\r\n")
    assert silence(SENDER, many)
    assert not silence(SENDER, split_header(b"X: y\r\n" * MAX_FIELDS + b"\r\n"))


def test_a_hostile_value_takes_linear_time() -> None:
    assert reason(b"Precedence: " + b"(" * 500_000 + b"\\" * 500_000 + b'"' * 500_000 + b"\r\n") == ""


FAILED, DELAYED, RELAYED = Action.FAILED, Action.DELAYED, Action.RELAYED


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [
        ("", {FAILED, DELAYED}),
        ("NEVER", set[Action]()),
        ("FAILURE", {FAILED}),
        ("DELAY", {DELAYED}),
        ("SUCCESS", {RELAYED}),
        ("SUCCESS FAILURE", {FAILED, RELAYED}),
        ("FAILURE DELAY", {FAILED, DELAYED}),
        ("SUCCESS FAILURE DELAY", {FAILED, DELAYED, RELAYED}),
        ("NEVER FAILURE", set[Action]()),  # the session refuses it; RFC 3461 4.1: NEVER stands alone
    ],
)
def test_wants(notify: str, wanted: set[Action]) -> None:
    options = RcptOptions(frozenset(notify.split()))
    assert {action for action in Action if wants(options, action)} == wanted
