"""What of `pacing` survives a restart, as octets: JSON, small. Pure.

`decoded` never raises: what is foreign, damaged, of another version or out of bounds is an empty state. All times are
seconds from now, since monotonic clocks begin anew.
"""

from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from forwarder.model.ruling import Scope

_VERSION = 1
_WEEK = 604_800.0
_MOST = 100_000  # entries of one kind

_Name = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"\A[ -~]*\Z")]  # printable ASCII: it gets into replies
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=_WEEK)]
_Speed = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
_Width = Annotated[float, msgspec.Meta(ge=1, le=1e6)]


@dataclass(frozen=True, slots=True)
class KeptFlow:
    """A `Window` and a `Rate`; `age` is how long ago it throttled."""

    source: _Name
    width: _Width
    peak: _Speed
    ceiling: _Speed
    floor: _Speed
    patience: _Seconds
    spent: _Seconds
    age: _Seconds

    @property
    def sound(self) -> bool:
        """Whether it can be calculated with."""
        return not self.ceiling or (0 < self.floor <= self.ceiling and self.patience > 0)


@dataclass(frozen=True, slots=True)
class KeptPeer:
    """A provider; the lessons are seconds that they still count."""

    name: _Name
    secure: _Seconds
    apart: _Seconds
    ipv4: _Seconds
    flows: Annotated[list[KeptFlow], msgspec.Meta(max_length=_MOST)]


@dataclass(frozen=True, slots=True)
class KeptPause:
    """A pause; `left` is negative when it has ended and may still be doubled."""

    scope: Scope
    key: Annotated[list[_Name], msgspec.Meta(min_length=1, max_length=2)]
    left: Annotated[float, msgspec.Meta(ge=-_WEEK, le=_WEEK)]
    length: _Seconds
    why: _Name
    said: _Name


@dataclass(frozen=True, slots=True)
class State:
    """All of it."""

    peers: Annotated[list[KeptPeer], msgspec.Meta(max_length=_MOST)] = field(default_factory=list)
    pauses: Annotated[list[KeptPause], msgspec.Meta(max_length=_MOST)] = field(default_factory=list)
    version: int = _VERSION


def encoded(state: State) -> bytes:
    """Give the state as octets."""
    return msgspec.json.encode(state)


def decoded(octets: bytes) -> State:
    """Give the state that `encoded` had; an empty one for anything else."""
    try:
        state = msgspec.json.decode(octets, type=State)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return State()
    sound = all(flow.sound for peer in state.peers for flow in peer.flows)
    return state if sound and state.version == _VERSION else State()
