"""The lab's name server: the small one of `deploy.demo.zone`, on sockets of the lab, changed while it runs.

`add`, `replace` and `trouble` change the table at any moment; what a program under test has cached is its own
affair, so tests give each scene names of its own. `stand_in` lets something else answer. The server stands for the
whole internet. Left out on purpose: everything that `Zone` leaves out.
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from deploy.demo.zone import Trouble, Zone

_READ_TIMEOUT = 2.0  # seconds for the rest of a question over TCP


class Dns:
    """Answers on a bound UDP and a listening TCP socket, which it owns from then on."""

    def __init__(self, udp: socket.socket, tcp: socket.socket) -> None:
        self._table: dict[str, dict[str, list[str]]] = {}
        self._troubles: dict[str, Trouble] = {}
        self._zone = Zone({})
        self._stand_in: Callable[[bytes], bytes | None] | None = None
        self._udp, self._tcp = udp, tcp
        self._wake, self._sleeper = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="lab-dns", daemon=True)

    @property
    def address(self) -> str:
        """Where it listens, as `address:port`."""
        host, port = self._udp.getsockname()[:2]
        return f"{host}:{port}"

    @property
    def asked(self) -> list[tuple[str, str]]:
        """The questions in order, as ("name.", "TYPE")."""
        return self._zone.asked

    def has(self, name: str) -> bool:
        """Whether the name has any records."""
        return name in self._table

    def add(self, name: str, kind: str, *data: str) -> None:
        """Add records to a name."""
        self._table.setdefault(name, {}).setdefault(kind, []).extend(data)
        self._zone.replace(self._table, self._troubles)

    def replace(self, name: str, kind: str, *data: str) -> None:
        """Set the records of a name; without data remove them."""
        self._table.setdefault(name, {})[kind] = list(data)
        self._zone.replace(self._table, self._troubles)

    def trouble(self, name: str, trouble: Trouble | None) -> None:
        """Let a name misbehave, or with None behave again."""
        self._troubles.pop(name, None)
        if trouble is not None:
            self._troubles[name] = trouble
        self._zone.replace(self._table, self._troubles)

    def stand_in(self, answer: Callable[[bytes], bytes | None] | None) -> None:
        """Let this function answer every question in place of the table (None: nothing); None ends that."""
        self._stand_in = answer

    def _answer(self, wire: bytes, *, tcp: bool = False) -> bytes | None:
        return self._stand_in(wire) if self._stand_in is not None else self._zone.answer(wire, tcp=tcp)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for sock in (self._udp, self._tcp, self._wake, self._sleeper):
            sock.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._udp, self._tcp, self._sleeper], [], [])
            if self._sleeper in ready:
                return
            with contextlib.suppress(OSError):  # a client that went away
                if self._udp in ready:
                    self._serve_datagram()
                if self._tcp in ready:
                    self._serve_stream()

    def _serve_datagram(self) -> None:
        wire, client = self._udp.recvfrom(4096)
        if response := self._answer(wire):
            self._udp.sendto(response, client)

    def _serve_stream(self) -> None:
        stream, _ = self._tcp.accept()
        stream.settimeout(_READ_TIMEOUT)
        with stream, stream.makefile("rb") as incoming:
            while len(size := incoming.read(2)) == 2:
                response = self._answer(incoming.read(struct.unpack("!H", size)[0]), tcp=True)
                if response:
                    stream.sendall(struct.pack("!H", len(response)) + response)
