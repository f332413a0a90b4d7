"""Which signatures are checked, and in which order."""

from forwarder.auth.dkim.choice import CHECKED, EXAMINED, choose, key_names
from forwarder.auth.dkim.record import Signature, SignatureError
from forwarder.model.headers import split_header
from tests.auth.dkim.signer import sign


def chosen(domains: list[str], author: str = "From: a@mail.author.test\r\n") -> list[str]:
    """Give the d= of what is chosen of signatures by these domains, topmost first."""
    message = author.encode() + b"\r\n"
    for domain in reversed(domains):
        message = sign(
            message, b="c2ln", bh="aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g=", d=domain, s=f"s{domain[0]}"
        )
    read = [candidate.signature for candidate in choose(split_header(message))]
    return [each.domain if isinstance(each, Signature) else "" for each in read]


OTHERS = [f"d{n}.other.test" for n in range(20)]


def test_few_stay_in_their_order() -> None:
    assert chosen(["b.test", "mail.author.test", "a.test"]) == ["b.test", "mail.author.test", "a.test"]
    assert chosen([]) == []


def test_of_many_the_domain_of_the_author_comes_first_then_its_relatives() -> None:
    late = ["x.author.test", "author.test", "mail.author.test", "deep.mail.author.test", "author2.test", "test"]
    assert chosen(OTHERS + late) == [
        *["mail.author.test", "x.author.test", "author.test", "deep.mail.author.test", "test"],
        *OTHERS[:5],
    ]


def test_a_top_level_domain_in_common_is_nothing() -> None:
    assert chosen([*OTHERS, "author.example"]) == OTHERS[:CHECKED]
    assert chosen([*OTHERS, "b.test"]) == OTHERS[:CHECKED]


def test_authors_however_they_are_written() -> None:
    late = [*OTHERS, "bücher.example"]
    for author in (
        'From: "x@y, z" <a@BÜCHER.example>\r\n'.lower(),
        "From: a@b.example,\r\n c@xn--bcher-kva.example\r\n",
        "From: rubbish\r\nFrom: <@[::1]:a@XN--bcher-kva.EXAMPLE>\r\n",
    ):
        assert chosen(late, author)[0] == "xn--bcher-kva.example"
    assert chosen(late, "From: a@b@@.., <@>\r\n") == OTHERS[:CHECKED]
    assert chosen(late, "") == OTHERS[:CHECKED]


def test_what_cannot_be_read_counts_too_and_says_why() -> None:
    header = split_header(b"DKIM-Signature: v=1\r\nDKIM-Signature:\r\n\r\n")
    read = [candidate.signature for candidate in choose(header)]
    assert [type(each) for each in read] == [SignatureError] * 2
    assert str(read[0]) == "the tag a= is missing"


def test_any_number_is_bounded() -> None:
    assert len(chosen(OTHERS * 8)) == CHECKED
    rubbish = b"DKIM-Signature: v=1\r\n" * (EXAMINED - 1)
    for count, first in ((0, Signature), (1, SignatureError)):
        header = split_header(b"DKIM-Signature: v=1\r\n" * count + rubbish + sign())
        assert isinstance(choose(header)[0].signature, first)
    assert len(choose(split_header(rubbish * 100))) == CHECKED


def test_names_to_ask_ahead() -> None:
    message = sign(sign(sign(b"DKIM-Signature: v=1\r\nFrom: a@b\r\n\r\n", s="x"), s="y"), s="x")
    assert key_names(choose(split_header(message))) == ("x._domainkey.sender.test", "y._domainkey.sender.test")
