"""Ids of messages: in replies, in Received, in every event of the log, and as names in the spool."""

from datetime import datetime

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_BITS = 30


def message_id(now: datetime, random: int) -> str:
    """Make an id of 16 letters and digits: ten of the time in milliseconds, so that ids sort, six of random bits."""
    number = int(now.timestamp() * 1000) << RANDOM_BITS | random
    return "".join(ALPHABET[number >> shift & 31] for shift in range(75, -5, -5))
