"""Identifiers that sort by creation time."""

import secrets
import time
import uuid


def uuid7() -> uuid.UUID:
    """Return a version 7 UUID (RFC 9562 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Rows created one after the other are adjacent in an index, and people can tell which of two ids is older.
    """
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return uuid.UUID(int=value)
