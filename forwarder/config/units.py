"""Sizes and durations as people write them.

Sizes become octets (`int`), durations seconds (`float`, exact to the millisecond); reading and writing are inverse.
What cannot be read raises `ValueError`. Left out on purpose: fractions ("1.5h" is "1h30m").
"""

import re

# MB is 1,000,000 octets as disks and mail providers count them; MiB is 1,048,576 (IEC 80000-13).
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}
_SIZE = re.compile(r"([0-9]{1,12})(B|kB|KiB|MB|MiB|GB|GiB)")

_MILLISECONDS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
# The units go from large to small, each at most once, so that a duration has one meaning at a glance.
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit}(?![a-z]))?" for unit in _MILLISECONDS))


def parse_size(text: str) -> int:
    """Read `50MB` or `1MiB` as octets; raise `ValueError`."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("not a size")
    return int(match[1]) * _SIZES[match[2]]


def size_text(octets: int) -> str:
    """Write octets in the largest unit that expresses them exactly."""
    fitting = [(factor, unit) for unit, factor in _SIZES.items() if octets % factor == 0 and octets >= factor]
    factor, unit = max(fitting, default=(1, "B"))
    return f"{octets // factor}{unit}"


def parse_duration(text: str) -> float:
    """Read `25s`, `250ms`, `1h30m` or `5d` as seconds; raise `ValueError`."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError("not a duration")
    return (
        sum(int(count or 0) * unit for count, unit in zip(match.groups(), _MILLISECONDS.values(), strict=True)) / 1000
    )


def duration_text(seconds: float) -> str:
    """Write seconds as `parse_duration` reads them; fractions of a millisecond are rounded."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in _MILLISECONDS.items():
        if unit != "w" and rest >= size:  # 21d is what people write, not 3w
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return "".join(parts) or "0s"
