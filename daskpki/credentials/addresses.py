"""Addresses of schedulers: their form, and when two of them are the same."""

from __future__ import annotations

import re
from typing import Final

from daskpki.errors import UsageError

SCHEME: Final = "tls://"
_DEFAULT_PORT: Final = 8786
_ADDRESS: Final = re.compile(r"tls://(\[[0-9a-f:.%]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?/?\Z", re.ASCII)
_MAX_PORT: Final = 65_535


def parse_scheduler(text: str) -> str:
    """The address as daskpki compares it: lower case, with its port; UsageError for anything but tls://HOST[:PORT]."""
    match = _ADDRESS.match(text.strip().lower())
    port = int(match[2] or _DEFAULT_PORT) if match else 0
    if match is None or not 0 < port <= _MAX_PORT:
        raise UsageError(f"{text!r} is not a scheduler's address", hint="for example tls://10.0.0.5:8786")
    return f"{SCHEME}{match[1]}:{port}"


def matches(address: str, schedulers: tuple[str, ...]) -> bool:
    """Whether `address`, which may be malformed, is one of these parsed ones."""
    try:
        return parse_scheduler(address) in schedulers
    except UsageError:
        return False
