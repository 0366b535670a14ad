"""Authenticates the store's tables, so that a changed, added, deleted or replayed row is detected.

Each part of a table has a digest: the certificates in runs of 512 positions, each small table as a whole, the secrets'
MACs by the last two characters of their ids. One MAC with a key derived from the master key covers all digests, so an
older row of a secret, with its own valid MAC, does not match its part. A commit updates the digests of the parts that
it changed. `verify` takes one pass over the tables computed from the records (0.2 s for 100,000 certificates); a
secret's part is verified when the secret is read or changed.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError
from daskpki.inventory import CertificateRecord
from daskpki.store.encryption import context, derive

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
_SECRETS: Final = (  # without those of other programs, which may change
    "SELECT id, hex(mac) FROM secret WHERE substr(id, -2) = ? AND json_extract(labels, '$.\"managed-by\"') = 'daskpki' "
    "ORDER BY id"
)


def secret_part(secret: str) -> str:
    """The part that a secret belongs to."""
    return f"secret:{secret[-2:]}"


class TableSeal:
    """The digests and their MAC, over one connection; within the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, master: Confidential, store_id: str) -> None:
        self._connection = connection
        self._key = derive(master, b"authenticate tables")
        self._store_id = store_id

    def verify(self) -> None:
        """Raise CorruptError unless a holder of the store's key wrote every row, and none is missing."""
        every = self._digests()
        digests = {part: value for part, value in every.items() if not part.startswith("secret:")}
        found = {part: self._digest(part) for part in (*_SMALL, *self._runs())}
        for part in sorted(digests.keys() | found.keys()):
            if digests.get(part, _EMPTY) != found.get(part):
                raise _changed(part.partition(":")[0])
        self._verify_mac(every)

    def verify_secrets(self, part: str, *, digests_too: bool = True) -> None:
        """Raise CorruptError unless a holder of the store's key wrote the secrets of a part, and none is missing.

        Without `digests_too`, the digests were verified in this transaction already.
        """
        row = self._connection.execute("SELECT digest FROM table_digest WHERE part = ?", (part,)).fetchone()
        if (row[0] if row else _EMPTY) != self._digest(part):
            raise _changed("secret")
        if digests_too:
            self._verify_mac(self._digests())

    def _verify_mac(self, digests: Mapping[str, bytes]) -> None:
        row = self._connection.execute("SELECT mac FROM table_seal").fetchone()
        if row is None and not digests:  # nothing was written yet
            return
        if row is None or not hmac.compare_digest(row[0], self._mac(digests)):
            raise _changed("table_digest")

    def renew_secrets(self, parts: Iterable[str]) -> None:
        """Seal the secrets of these parts, each of which was verified before its first change."""
        self._verify_mac(self._digests())  # or the new MAC would cover digests that someone without the key wrote
        self._renew(parts)

    def renew(self, positions: Iterable[int]) -> None:
        """Seal the rows that the transaction wrote: the small tables, and the certificates at these positions."""
        self._renew({*_SMALL, *(f"certificate:{position // RUN}" for position in positions)})

    def _renew(self, parts: Iterable[str]) -> None:
        rows = [(part, self._digest(part)) for part in parts]
        self._connection.executemany("INSERT OR REPLACE INTO table_digest VALUES (?, ?)", rows)
        self._connection.execute("INSERT OR REPLACE INTO table_seal VALUES (1, ?)", (self._mac(self._digests()),))

    def _digests(self) -> dict[str, bytes]:
        return dict(self._connection.execute("SELECT part, digest FROM table_digest"))

    def _runs(self) -> list[str]:
        (least,) = self._connection.execute("SELECT min(position) FROM certificate").fetchone()
        if least is not None and least < 1:  # in no run, and SQLite never assigns it
            raise _changed("certificate")
        rows = self._connection.execute(f"SELECT DISTINCT position / {RUN} FROM certificate")  # noqa: S608
        return [f"certificate:{row[0]}" for row in rows]

    def _digest(self, part: str) -> bytes:
        table, _, run = part.partition(":")
        if table in _SMALL:
            text = repr(self._connection.execute(_SMALL[table]).fetchall())
        elif table == "secret":
            text = repr(self._connection.execute(_SECRETS, (run,)).fetchall())
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
