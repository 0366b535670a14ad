"""Where serial numbers come from; whatever issues certificates is handed this, or something predictable in a test."""

from __future__ import annotations

import os


def random_serial() -> int:
    """A serial of 16 octets, positive, with 126 random bits (RFC 5280, 4.1.2.2; CA/B Forum BR 7.1 asks for 64)."""
    return 1 << 126 | int.from_bytes(os.urandom(16), "big") >> 2  # not `secrets`, which loads `random`
