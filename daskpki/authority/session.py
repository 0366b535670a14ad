"""Where serial numbers come from; whatever issues certificates is handed this, or something predictable in a test.

What every use case is given: the store, the cluster, who asks by which command, the clock and the dice.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from daskpki.records import Stamp
from daskpki.store.port import RecordLog, Store


def random_serial() -> int:
    """A serial of 16 octets, positive, with 126 random bits (RFC 5280, 4.1.2.2; CA/B Forum BR 7.1 asks for 64)."""
    return 1 << 126 | int.from_bytes(os.urandom(16), "big") >> 2  # not `secrets`, which loads `random`


def utc_now() -> datetime:
    """The system's clock in UTC; the one place of this package that reads it."""
    return datetime.now(UTC)


def random_operation() -> str:
    """An id for one operation, by which a write that was cut off is found again."""
    return secrets.token_hex(8)


def claimed_user() -> str:
    """USER@HOST for the log; it is a claim, and the log says so."""
    import getpass
    import os
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        user = f"uid-{os.getuid()}"
    who = f"{user}@{socket.gethostname()}"
    return who.encode(errors="backslashreplace").decode()  # a name of other bytes than UTF-8, which no log takes


class Session(NamedTuple):
    """One command's dealings with one cluster. `who` is as claimed: the store's own audit log is the authority."""

    store: Store
    cluster: str
    who: str
    command: str
    clock: Callable[[], datetime] = utc_now
    serials: Callable[[], int] = random_serial
    operations: Callable[[], str] = random_operation

    @property
    def log(self) -> RecordLog:
        """The cluster's log."""
        return self.store.log(self.cluster)

    def now(self) -> datetime:
        """The time in whole seconds, as certificates and records hold it."""
        return self.clock().replace(microsecond=0)

    def stamp(self, operation: str | None = None) -> Stamp:
        """The stamp of a commit at this moment."""
        return Stamp(int(self.now().timestamp()), operation or self.operations(), self.who, self.command)
