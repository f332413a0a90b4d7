"""Do the signatures that came with a message still hold when we let it go?

A `Change` is what we do to a message: header fields put on top, octet ranges cut out. It knows the header that goes
out, and of every signature that held on arrival whether it still does. That is found out from the choice of fields
alone (RFC 6376 5.4.2): if h= chooses the same fields as before, what is signed is the same. No key is used and no body
is hashed again. Stricter than need be in one point: a field that comes out the same only after relaxed
canonicalisation counts as another.

Nothing fails. Whether a signature held on arrival is for `auth` to say.
"""

from collections.abc import Iterable, Sequence

from forwarder.auth.dkim.canonical import select
from forwarder.auth.dkim.record import Signature
from forwarder.model.headers import Field, Header, split_header


class Change:
    """What we do to a message whose header is `before`.

    `added` are complete fields that are put on top, `removed` the octet ranges (start, end) that are cut out of it, in
    order and without overlap. `after` is the header that goes out.
    """

    __slots__ = ("_before", "_cut", "_only_fields", "after")

    def __init__(self, before: Header, added: bytes, removed: Sequence[tuple[int, int]] = ()) -> None:
        kept, self._cut = _divide(before.fields, removed)
        # Octets that are no field belong to the body, or are a part of a field.
        self._only_fields = sum(len(field.raw) for field in self._cut) == sum(end - start for start, end in removed)
        fields = (*split_header(added).fields, *kept)
        self.after = Header(fields, sum(len(field.raw) for field in fields), before.complete)
        self._before = before

    def keeps(self, raw: bytes, signature: Signature) -> bool:
        """Say whether a signature that held still holds; `raw` is its field, the very object in the header."""
        if not self._only_fields or any(field.raw is raw for field in self._cut):
            return False
        return select(self._before, signature.names, raw) == select(self.after, signature.names, raw)


def named_by(signatures: Iterable[Signature]) -> frozenset[bytes]:
    """Give the (lower-case) names of the fields that these signatures choose: one more of them might break one."""
    return frozenset(name for signature in signatures for name in signature.names)


def _divide(fields: Sequence[Field], removed: Sequence[tuple[int, int]]) -> tuple[list[Field], list[Field]]:
    """Give the fields that stay and those that lie within the ranges."""
    if not removed:
        return list(fields), []
    kept: list[Field] = []
    cut: list[Field] = []
    ranges = iter(removed)
    start, stop = next(ranges)
    begin = 0
    for field in fields:
        end = begin + len(field.raw)
        while stop <= begin and (following := next(ranges, None)):
            start, stop = following
        (cut if start <= begin and end <= stop else kept).append(field)
        begin = end
    return kept, cut
