"""Odd header sections: folding, sizes, lines that are none, addresses and words beyond ASCII, marks of loops."""

from collections.abc import Iterator

from tests.corpus.odd import HEADER, LOOP, NO_HEADER, NOT_AS_DEMANDED, RECIPIENT, TOO_LARGE, Odd, header, odd

_RECEIVED = (
    b"Received: from a.test (a.test [192.0.2.99])\r\n\tby b.test id %d;\r\n\tSun, 22 Nov 2026 09:00:00 +0000\r\n"
)


def headers() -> Iterator[Odd]:
    """Give them."""
    yield from _folding()
    yield from _fields()
    yield from _sizes()
    yield from _beyond_ascii()
    yield from _loops()
    yield odd("space-first", b" " + HEADER + b"\r\ntext\r\n", NO_HEADER)
    yield odd("tab-first", b"\t" + HEADER + b"\r\ntext\r\n", NO_HEADER)


def _folding() -> Iterator[Odd]:
    yield header("folded-with-tabs", b"X-Fold: a\r\n\tb\r\n\t\tc\r\n \t d\r\n")
    yield header("folded-with-blank-continuations", b"X-Fold: a\r\n \r\n\t\r\n  \t \r\n b\r\n")
    yield header("folded-before-the-value", b"X-Fold:\r\n value\r\nX-Empty:\r\n \r\n")
    yield header("folded-a-thousand-times", b"X-Fold: a\r\n" + b" b\r\n" * 1000)
    yield header("folded-with-white-space-at-the-ends", b"Subject: odd  \r\n\todd\t\r\nX-Space:   x   \r\n")
    yield odd("ends-in-a-continuation", HEADER + b"X-Fold: a\r\n b\r\n \r\n")


def _fields() -> Iterator[Odd]:
    yield odd("mbox-from-line-first", b"From odd@sender.test Sun Nov 22 10:00:00 2026\r\n" + HEADER + b"\r\ntext\r\n")
    yield header("space-before-colon", b"X-Space : x\r\nX-Tab\t: y\r\n")
    yield header("empty-values", b"X-One:\r\nX-Two: \r\nX-Three:\t\r\n")
    again = HEADER + b"Subject: again\r\nFrom: other@sender.test\r\n"
    yield header("duplicates", again, by_default=NOT_AS_DEMANDED)
    yield header("odd-names", b"x!#$%&'*+-.^_`|~: y\r\nX(comment): z\r\nx: lower\r\n1: digit\r\n")
    yield header("line-without-colon", b"this is no header field\r\nX-After: it\r\n")
    yield header("colon-first", b": no name\r\nX-After: it\r\n")
    yield odd("no-from", b"Subject: nobody wrote this\r\n\r\ntext\r\n")
    yield odd("from-without-address", b"From: \r\nTo: undisclosed-recipients:;\r\nSender: <>\r\n\r\ntext\r\n")
    yield header(
        "trace-fields-of-others", b"Return-Path: <a@b.test>\r\nReceived-SPF: pass\r\nX-Original-To: x@y.test\r\n"
    )
    yield header("results-of-others", b"Authentication-Results: mx.other.test; spf=pass\r\nARC-Seal: i=1; cv=none\r\n")
    yield header("resent-and-bcc", b"Resent-From: a@b.test\r\nResent-Date: x\r\nBcc: secret@b.test\r\nBcc:\r\n")
    yield header("list-fields", b"List-Id: <l.test>\r\nList-Unsubscribe: <mailto:u@l.test>\r\nPrecedence: bulk\r\n")
    yield header("lying-lengths", b"Content-Length: 999999\r\nLines: 0\r\nStatus: RO\r\n")
    yield header("deep-comments", b"X-Comment: " + b"(" * 400 + b")" * 400 + b"\r\n")


def _sizes() -> Iterator[Odd]:
    yield header("field-of-998", b"X-Long: " + b"x" * 990 + b"\r\n")
    yield header("field-of-32-kilobytes", b"X-Long: " + b"y" * 32_000 + b"\r\n")
    yield header("five-thousand-fields", b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(5000)), by_default=TOO_LARGE)
    yield header("header-of-500-kilobytes", b"".join(b"X-%d: %s\r\n" % (n, b"z" * 980) for n in range(500)))
    addresses = b",\r\n ".join(b"user%d@elsewhere.test" % n for n in range(20_000))
    yield header("twenty-thousand-addresses", b"Cc: " + addresses + b"\r\n", by_default=TOO_LARGE)
    fields = b"".join(b"X-%d: %s\r\n" % (n, b"z" * 980) for n in range(1_100))
    yield header("header-over-a-megabyte", fields, TOO_LARGE)
    yield header("field-over-a-megabyte", b"X-Long: " + b"y" * 1_100_000 + b"\r\n", TOO_LARGE)


def _beyond_ascii() -> Iterator[Odd]:
    yield header("latin-1-in-the-header", "X-Name: Jürgen\r\n".encode("latin-1"))
    yield header("utf-8-in-the-header", "X-Name: Jürgen 日本\r\n".encode())
    yield header("smtputf8", "X-From: Jürgen <jürgen@bücher.test>\r\nSubject: Grüße\r\n".encode(), utf8=True)
    yield header("smtputf8-folded", "Subject: 日本\r\n 語の\r\n\t件名\r\n".encode(), utf8=True)
    yield header("encoded-words", b"X-Word: =?utf-8?q?a=20b?= =?iso-8859-1?B?/w==?= =?bad?x?y?= =?utf-8?q?cut\r\n")
    yield header("control-characters-in-the-header", b"X-Ctl: a\x01\x07\x1b[31m\x7f\x0b\x0c\r\n")


def _loops() -> Iterator[Odd]:
    ours = RECIPIENT.encode()
    yield odd("fifty-received", b"".join(_RECEIVED % n for n in range(50)) + HEADER + b"\r\ntext\r\n")
    yield odd("fifty-one-received", b"".join(_RECEIVED % n for n in range(51)) + HEADER + b"\r\ntext\r\n", LOOP)
    yield odd("hundred-received-below", HEADER + b"".join(_RECEIVED % n for n in range(100)) + b"\r\ntext\r\n", LOOP)
    yield odd("received-in-the-body", HEADER + b"\r\n" + b"".join(_RECEIVED % n for n in range(100)))
    yield header("delivered-to-another", b"Delivered-To: other@forward.test\r\nDelivered-To: odd@elsewhere.test\r\n")
    yield header("delivered-to-us", b"Delivered-To: " + ours + b"\r\n", LOOP)
    yield header("delivered-to-us-in-capitals", b"DELIVERED-TO:  " + ours.upper() + b" \r\n", LOOP)
    yield header("delivered-to-us-folded", b"Delivered-To:\r\n\t" + ours + b"\r\n", LOOP)
    yield odd("delivered-to-us-in-the-body", HEADER + b"\r\nDelivered-To: " + ours + b"\r\n")
