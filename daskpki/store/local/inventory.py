"""The local store's `Inventory`: SQL over one snapshot, at a cost that does not grow with the number of leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from daskpki.inventory import AuthorityRecord, CertificateRecord
from daskpki.records import EMPTY, Head
from daskpki.store.local.database import Snapshot
from daskpki.store.local.index import CERTIFICATE_COLUMNS, format_serial, parse_authority, parse_certificate

_SELECT: Final = f"SELECT {CERTIFICATE_COLUMNS} FROM certificate WHERE cluster = ?"  # noqa: S608 - our own fields


class LocalInventory:
    """See `daskpki.inventory.Inventory`."""

    def __init__(self, snapshot: Snapshot, cluster: str) -> None:
        self._snapshot = snapshot
        self._cluster = cluster

    @property
    def head(self) -> Head:
        """See Inventory."""
        row = self._snapshot.row("SELECT seq, hash FROM log_head WHERE cluster = ?", self._cluster)
        return EMPTY if row is None else Head(*row)

    @property
    def published(self) -> Mapping[str, Any]:
        """See Inventory."""
        row = self._snapshot.row("SELECT body FROM published WHERE cluster = ?", self._cluster)
        return {} if row is None else dict(json.loads(row[0]))

    def certificate(self, serial: int) -> CertificateRecord | None:
        """See Inventory."""
        return self._one("serial = ?", format_serial(serial))

    def current(self, role: str, name: str) -> CertificateRecord | None:
        """See Inventory."""
        return self._one("role = ? AND name = ? AND issued_seq > 0 ORDER BY issued_seq DESC LIMIT 1", role, name)

    def by_fingerprint(self, fingerprint: str) -> CertificateRecord | None:
        """See Inventory."""
        return self._one("fingerprint = ?", fingerprint)

    def certificates(
        self, *, role: str | None = None, name: str | None = None, statuses: Sequence[str] | None = None
    ) -> Iterator[CertificateRecord]:
        """See Inventory."""
        where, parameters = "", []
        for column, value in (("role", role), ("name", name)):
            if value is not None:
                where += f" AND {column} = ?"
                parameters.append(value)
        if statuses is not None:
            where += f" AND status IN ({', '.join('?' * len(statuses))})"
            parameters += statuses
        rows = self._snapshot.rows(f"{_SELECT}{where} ORDER BY position", self._cluster, *parameters)
        return map(parse_certificate, rows)

    def authorities(self) -> Sequence[AuthorityRecord]:
        """See Inventory."""
        statement = "SELECT entry FROM authority WHERE cluster = ? ORDER BY generation"
        return [parse_authority(row[0]) for row in self._snapshot.rows(statement, self._cluster)]

    def _one(self, where: str, *parameters: str) -> CertificateRecord | None:
        row = self._snapshot.row(f"{_SELECT} AND {where}", self._cluster, *parameters)
        return None if row is None else parse_certificate(row)
