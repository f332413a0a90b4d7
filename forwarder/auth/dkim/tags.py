"""Tag lists, `v=1; d=example.org; …`, as in signatures, seals and key records (RFC 6376 3.2).

`parse_tags` gives the tags in their order or raises `TagError`, whose text says what is wrong. Names and values keep
their case. White space inside a value is kept: what it means depends on the tag; `unspaced` removes it, `decode_base64`
ignores it. Time is linear.

Left out on purpose: which tags must be there, and what they mean.
"""

import binascii
import re
from collections.abc import Mapping

MAX_TAGS = 100  # signatures have a dozen
_FOLD = re.compile(r"\r\n(?=[ \t])")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# RFC 6376 3.2 tval, with the UTF-8 that RFC 8616 4 lets in; C1 controls are nobody's text.
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f;\x7f-\x9f]*")
_BASE64 = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class TagError(ValueError):
    """Not a tag list; the text says why without quoting it."""


def parse_tags(value: bytes | str) -> Mapping[str, str]:
    """Read a tag list, which may be folded; values come unfolded and stripped."""
    tags: dict[str, str] = {}
    specs = _FOLD.sub("", _text(value)).removesuffix("\r\n").split(";")
    if len(specs) > 1 and not specs[-1].strip(" \t"):  # one semicolon may end the list
        del specs[-1]
    if len(specs) > MAX_TAGS:
        raise TagError(f"it has more than {MAX_TAGS} tags")
    for spec in specs:
        name, equals, text = spec.partition("=")
        name, text = name.strip(" \t"), text.strip(" \t")
        if not equals or not _NAME.fullmatch(name):
            raise TagError("it has a part that is not name=value")
        if name in tags:  # RFC 6376 3.2: that makes the whole list invalid
            raise TagError(f"the tag {name[:20]}= is there twice")
        if not _VALUE.fullmatch(text):
            raise TagError(f"the value of {name[:20]}= has octets that no value has")
        tags[name] = text
    return tags


def _text(value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise TagError("it is neither ASCII nor UTF-8") from None


def unspaced(value: str) -> str:
    """Give a value without its white space, for those in which it means nothing (base64, lists)."""
    return value.replace(" ", "").replace("\t", "")


def decode_base64(value: str) -> bytes:
    """Give the octets of a base64 value, with white space anywhere (RFC 6376 2.10); raise `TagError`."""
    text = unspaced(value)
    if not _BASE64.fullmatch(text):  # the standard library's strictness depends on its version
        raise TagError("it is not base64")
    return binascii.a2b_base64(text)
