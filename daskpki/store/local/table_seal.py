"""Authenticates the tables that follow from the records, so that a changed, added or deleted row is noticed.

Each part of a table has a digest: the certificates in runs of 512 positions, each small table as a whole. One MAC under
a key that is derived from the master key covers all digests. A commit computes those anew of which it changed a row;
verifying takes one pass over the tables (0.2 s for 100,000 certificates).
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from daskpki.errors import CorruptError
from daskpki.inventory import CertificateRecord
from daskpki.store.encryption import context

RUN: Final = 512
_COLUMNS: Final = ", ".join(("position", "cluster", *CertificateRecord._fields, "issued_seq"))
_CERTIFICATES: Final = (
    f"SELECT group_concat(line, char(10)) FROM (SELECT json_array({_COLUMNS}) AS line FROM certificate "  # noqa: S608 - our own fields
    "WHERE position >= ? AND position < ? ORDER BY position)"
)
_SMALL: Final = {
    "authority": "SELECT cluster, generation, entry FROM authority ORDER BY 1, 2",
    "published": "SELECT cluster, epoch, body FROM published ORDER BY 1",
    "log_head": "SELECT cluster, seq, hash, base FROM log_head ORDER BY 1",
}


class TableSeal:
    """The digests and their MAC, over one connection; within the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, key: bytes, store_id: str) -> None:
        self._connection = connection
        self._key = key
        self._store_id = store_id

    def present(self) -> bytes | None:
        """The MAC that is there; None for a store without a log."""
        row = self._connection.execute("SELECT mac FROM table_seal").fetchone()
        return None if row is None else bytes(row[0])

    def verify(self) -> None:
        """Raise CorruptError unless every row is as a holder of the store's key wrote it, and none is missing."""
        digests, mac = self._digests(), self.present()
        found = {part: self._digest(part) for part in (*_SMALL, *self._runs())}
        if mac is None and not digests and all(digest == _EMPTY for digest in found.values()):
            return
        for part in sorted(digests.keys() | found.keys()):
            if digests.get(part) != found.get(part):
                raise _changed(part.partition(":")[0])
        if mac is None or not hmac.compare_digest(mac, self._mac(digests)):
            raise _changed("table_digest")

    def renew(self, positions: Iterable[int]) -> None:
        """Seal what the transaction wrote: the small tables, and the certificates at these positions."""
        parts = {*_SMALL, *(f"certificate:{position // RUN}" for position in positions)}
        rows = [(part, self._digest(part)) for part in parts]
        self._connection.executemany("INSERT OR REPLACE INTO table_digest VALUES (?, ?)", rows)
        self._connection.execute("INSERT OR REPLACE INTO table_seal VALUES (1, ?)", (self._mac(self._digests()),))

    def renew_all(self) -> None:
        """Seal all rows as they are."""
        self._connection.execute("DELETE FROM table_digest")
        self.renew(int(run.partition(":")[2]) * RUN for run in self._runs())

    def _digests(self) -> dict[str, bytes]:
        return dict(self._connection.execute("SELECT part, digest FROM table_digest"))

    def _runs(self) -> list[str]:
        (least,) = self._connection.execute("SELECT min(position) FROM certificate").fetchone()
        if least is not None and least < 1:  # outside of every run, and never given by SQLite
            raise _changed("certificate")
        rows = self._connection.execute(f"SELECT DISTINCT position / {RUN} FROM certificate")  # noqa: S608
        return [f"certificate:{row[0]}" for row in rows]

    def _digest(self, part: str) -> bytes:
        table, _, run = part.partition(":")
        if table in _SMALL:
            text = repr(self._connection.execute(_SMALL[table]).fetchall())
        else:
            start = int(run) * RUN
            (text,) = self._connection.execute(_CERTIFICATES, (start, start + RUN)).fetchone()
        return hashlib.sha256((text or "").encode(errors="surrogatepass")).digest()

    def _mac(self, digests: Mapping[str, bytes]) -> bytes:
        listed = [f"{part} {digest.hex()}" for part, digest in sorted(digests.items())]
        return hmac.digest(self._key, context("tables", self._store_id, *listed), "sha256")


_EMPTY: Final = hashlib.sha256(b"[]").digest()


def _changed(table: str) -> CorruptError:
    return CorruptError(
        f"the store's table {table} was changed by someone without the store's key",
        hint="restore the store from a backup, and find out who could write to it",
    )
