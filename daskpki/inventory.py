"""The inventory: the state of each leaf and CA, computed from a log.

Pure. A store either replays its log, or keeps tables that it updates by the same transitions. `superseded` and
`expired` are computed, never recorded.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from daskpki.errors import CorruptError
from daskpki.pki.profile import Policy
from daskpki.records import (
    ABANDONED,
    CA_ACTIVATED,
    CA_CREATED,
    CA_RESERVED,
    CA_RETIRED,
    CA_RETIRING,
    EMPTY,
    ISSUED,
    PUBLISHED,
    RELEASED,
    RESERVED,
    REVOKED,
    REVOKING,
    ROOT_CRL,
    Head,
    Record,
)

SUPERSEDED: Final = "superseded"
EXPIRED: Final = "expired"

FROM_REQUEST: Final = "csr"
"""Key type of a leaf that was issued for a CSR. Only the requester has its key, and can renew it."""


class CertificateRecord(NamedTuple):
    """The state of one leaf. Times are seconds since the epoch; `status` is the kind of the last recorded event.

    `sans` are its further names and grades, as `dns:NAME`, `ip:ADDRESS` and `grade:GRADE`; `key_type` is FROM_REQUEST
    if the key was not made here. So the log has everything that a renewal needs.
    """

    serial: int
    role: str
    name: str
    issuer: int
    not_before: int
    not_after: int
    reserved_at: int
    operation: str
    status: str
    key_type: str = "p256"
    sans: tuple[str, ...] = ()
    fingerprint: str | None = None
    version: int | None = None
    superseded: bool = False
    revoked_at: int | None = None
    reason: str | None = None

    @property
    def slug(self) -> str:
        """ROLE/NAME, as commands print and take it."""
        return f"{self.role}/{self.name}"

    def state(self, now: float) -> str:
        """reserved, issued, superseded, expired, revoking, revoked or abandoned.

        RFC 5280, 4.1.2.5: notAfter is inclusive.
        """
        if self.status not in (ISSUED, RELEASED):
            return self.status
        if now > self.not_after:
            return EXPIRED
        return SUPERSEDED if self.superseded else ISSUED


class AuthorityRecord(NamedTuple):
    """The state of one CA generation.

    `certificate` is the trust anchor, `chain` the intermediates below it, the issuing one first, `root_crl` the last
    CRL that an offline root signed for them; all as base64 of the DER. `sealing` is how the key is sealed.
    """

    generation: int
    status: str
    key_uri: str
    trust_domain: str
    certificate: str | None = None
    chain: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}
    root_crl: str | None = None
    sealing: str = "none"

    @property
    def anchor_der(self) -> bytes:
        """The DER of the trust anchor; CorruptError when the log has none."""
        if self.certificate is None:
            raise CorruptError(f"CA {self.generation} has no certificate in the log")
        return base64.b64decode(self.certificate)

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        """The DER of the intermediates, the one that issues first; empty for a CA of one tier."""
        return tuple(base64.b64decode(entry) for entry in self.chain)

    @property
    def issuing_der(self) -> bytes:
        """The DER of the certificate whose key signs leaves: the first intermediate, or the trust anchor itself."""
        return (*self.chain_der, self.anchor_der)[0]

    @property
    def policy(self) -> Policy:
        """The policy that was fixed when the CA was made."""
        return Policy(self.trust_domain, tuple(self.settings["permit_dns"]), self.settings["max_ttl"])


def parse_authority(fields: Mapping[str, Any]) -> AuthorityRecord:
    """Make a CA generation's entry from its JSON fields; KeyError, TypeError."""
    return AuthorityRecord(**{**fields, "chain": tuple(fields["chain"])})


class Inventory(Protocol):
    """The state computed from a log, as of `head`."""

    @property
    def head(self) -> Head:
        """The last record that this view includes."""

    @property
    def published(self) -> Mapping[str, Any]:
        """The body of the newest `published` event: epoch, version, due; empty before the first."""

    def certificate(self, serial: int) -> CertificateRecord | None:
        """The leaf with that serial."""

    def current(self, role: str, name: str) -> CertificateRecord | None:
        """The newest issued leaf of that role and name."""

    def certificates(
        self, *, role: str | None = None, name: str | None = None, statuses: Sequence[str] | None = None
    ) -> Iterator[CertificateRecord]:
        """Stream the leaves in the order of their reservation."""

    def by_fingerprint(self, fingerprint: str) -> CertificateRecord | None:
        """The leaf with that SHA-256 fingerprint, in lower-case hex."""

    def authorities(self) -> Sequence[AuthorityRecord]:
        """The CA generations, oldest first."""


def certificate_after(entry: CertificateRecord | None, record: Record) -> CertificateRecord:
    """Apply a record to a leaf's entry; CorruptError if its serial was never reserved."""
    body = record.body
    if record.kind == RESERVED:
        return CertificateRecord(
            serial=int(body["serial"], 16),
            role=body["role"],
            name=body["name"],
            issuer=body["issuer"],
            not_before=body["not_before"],
            not_after=body["not_after"],
            reserved_at=record.time,
            operation=record.operation,
            status=RESERVED,
            key_type=body.get("key_type", "p256"),
            sans=tuple(body.get("sans", ())),
        )
    if entry is None:
        raise CorruptError(f"record {record.seq} ({record.kind}) names a serial that was never reserved")
    if record.kind == ISSUED:
        return entry._replace(status=ISSUED, fingerprint=body["fingerprint"], version=body["version"])
    if record.kind in (REVOKING, REVOKED, ABANDONED):
        return entry._replace(
            status=record.kind,
            revoked_at=entry.revoked_at or body.get("at", record.time),
            reason=body.get("reason", entry.reason),
        )
    return entry._replace(status=record.kind, revoked_at=None, reason=None)


def authority_after(entry: AuthorityRecord | None, record: Record) -> AuthorityRecord:
    """Apply a record to a CA generation's entry; CorruptError if that was never reserved."""
    body = record.body
    if record.kind == CA_RESERVED:
        return AuthorityRecord(
            generation=body["generation"],
            status=CA_RESERVED,
            key_uri=body["key_uri"],
            trust_domain=body["trust_domain"],
            settings=body.get("settings", {}),
            sealing=body.get("sealing", "none"),
        )
    if entry is None:
        raise CorruptError(f"record {record.seq} ({record.kind}) names a CA that was never reserved")
    if record.kind == CA_CREATED:
        return entry._replace(
            status=CA_CREATED,
            certificate=body["certificate"],
            chain=tuple(body.get("chain", ())),
            root_crl=body.get("root_crl"),
        )
    if record.kind == ROOT_CRL:
        return entry._replace(root_crl=body["crl"])
    return entry._replace(status=record.kind)


CERTIFICATE_KINDS: Final = frozenset({RESERVED, ISSUED, ABANDONED, REVOKING, REVOKED, RELEASED})
AUTHORITY_KINDS: Final = frozenset({CA_RESERVED, CA_CREATED, CA_ACTIVATED, CA_RETIRING, CA_RETIRED, ROOT_CRL})


class ReplayedInventory:
    """An Inventory in memory: the given state with the records applied in order."""

    def __init__(
        self,
        records: Iterable[Record] = (),
        *,
        head: Head = EMPTY,
        published: Mapping[str, Any] = {},
        certificates: Iterable[CertificateRecord] = (),
        authorities: Iterable[AuthorityRecord] = (),
    ) -> None:
        self.head = head
        self.published = published
        self._certificates = {entry.serial: entry for entry in certificates}
        self._current: dict[tuple[str, str], int] = {}
        self._authorities = {entry.generation: entry for entry in authorities}
        for entry in self._certificates.values():
            if entry.fingerprint is not None and not entry.superseded:
                self._supersede(entry)
        for record in records:
            self.apply(record)

    def apply(self, record: Record) -> None:
        """Apply the next record; a kind that this version does not know changes only the head."""
        if record.kind in CERTIFICATE_KINDS:
            serial = int(record.body["serial"], 16)
            entry = self._certificates[serial] = certificate_after(self._certificates.get(serial), record)
            if record.kind == ISSUED:
                self._supersede(entry)
        elif record.kind in AUTHORITY_KINDS:
            generation = record.body["generation"]
            self._authorities[generation] = authority_after(self._authorities.get(generation), record)
        elif record.kind == PUBLISHED and record.body["epoch"] > self.published.get("epoch", 0):
            self.published = record.body
        self.head = record.head

    def _supersede(self, entry: CertificateRecord) -> None:
        previous = self._current.get((entry.role, entry.name))
        if previous is not None and previous != entry.serial:
            self._certificates[previous] = self._certificates[previous]._replace(superseded=True)
        self._current[entry.role, entry.name] = entry.serial

    def certificate(self, serial: int) -> CertificateRecord | None:
        """Find a leaf by serial."""
        return self._certificates.get(serial)

    def current(self, role: str, name: str) -> CertificateRecord | None:
        """Find the newest issued leaf of a role and name."""
        serial = self._current.get((role, name))
        return None if serial is None else self._certificates[serial]

    def certificates(
        self, *, role: str | None = None, name: str | None = None, statuses: Sequence[str] | None = None
    ) -> Iterator[CertificateRecord]:
        """Stream the leaves in the order of their reservation."""
        for entry in list(self._certificates.values()):
            wanted = (role is None or entry.role == role) and (name is None or entry.name == name)
            if wanted and (statuses is None or entry.status in statuses):
                yield entry

    def by_fingerprint(self, fingerprint: str) -> CertificateRecord | None:
        """Find a leaf by fingerprint."""
        return next((entry for entry in self._certificates.values() if entry.fingerprint == fingerprint), None)

    def authorities(self) -> Sequence[AuthorityRecord]:
        """The CA generations, oldest first."""
        return [self._authorities[generation] for generation in sorted(self._authorities)]
