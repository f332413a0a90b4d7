"""Addresses to listen on, and clear words when it cannot be done."""

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.listener.sockets import BindError, address_of, open_listening, parse_endpoint


@pytest.mark.parametrize("text", ["[::]:25", "0.0.0.0:25", "127.0.0.1:2525", "[2001:db8::1]:0"])
def test_endpoints(text: str) -> None:
    assert str(parse_endpoint(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "25",
        ":25",
        "localhost:25",
        "::1:25",
        "[::1]",
        "[::1]:",
        "1.2.3.4:65536",
        "1.2.3:25",
        "[1.2.3.4]:25",
        "1.2.3.4:٢",
    ],
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(BindError, match="expected an address and a port") as caught:
        parse_endpoint(text)
    assert f'"{text}"' in str(caught.value)


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    with contextlib.suppress(BindError):
        parse_endpoint(text)


def test_both_families_share_a_port() -> None:
    with open_listening("[::]:0") as six:
        port = six.getsockname()[1]
        assert address_of(six) == f"[::]:{port}"
        with open_listening(f"0.0.0.0:{port}") as four:
            assert address_of(four) == f"0.0.0.0:{port}"
            assert not four.getblocking()
            with socket.create_connection(("127.0.0.1", port)), pytest.raises(BlockingIOError):
                six.accept()  # IPv4 clients are the other socket's


def test_a_port_in_use() -> None:
    with open_listening("127.0.0.1:0") as taken:
        text = address_of(taken)
        with pytest.raises(BindError) as caught:
            open_listening(text)
    assert str(caught.value) == f'cannot listen on "{text}": another program listens there already'


def test_a_port_that_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = open_listening("127.0.0.1:0")
    monkeypatch.setattr("forwarder.listener.sockets.time.sleep", lambda seconds: taken.close())
    open_listening(address_of(taken), patience=60.0).close()


def test_what_will_not_change_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.listener.sockets.time.sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(BindError):
        open_listening("192.0.2.1:2525", patience=60.0)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(BindError, match=r"192\.0\.2\.1:2525.*does not have that address"):
        open_listening("192.0.2.1:2525")


def test_a_port_is_free_at_once_after_a_restart() -> None:
    with open_listening("127.0.0.1:0") as first:
        text = address_of(first)
        client = socket.create_connection(first.getsockname())
        first.setblocking(True)
        first.accept()[0].close()  # ours closes first: TIME_WAIT
        client.close()
    open_listening(text).close()
