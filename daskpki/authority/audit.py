"""Verifies the log and single certificates against the trust document, and describes records.

`verify_log` checks that:

1. Each record follows from the one before by its hash, and the store accepts the head.
2. A CA that the reader trusts signed the newest trust document (trust comes from a pin, from the rollback guard, or on
   first use from the document itself), and the CA that was active then signed every commit after the record that the
   document names. The log has that record, so it was not cut off or rewritten after the document was signed.
3. The trust document is not older than the last publication in the log.
4. The inventory, from which commands answer, follows from the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import zip_longest
from typing import Any, NamedTuple

from daskpki.authority.publication import current_trust
from daskpki.authority.session import Session
from daskpki.errors import CorruptError, NotTrustedError
from daskpki.identity import Identity
from daskpki.inventory import CERTIFICATE_KINDS, Inventory, ReplayedInventory
from daskpki.pki.certificates import load_certificate
from daskpki.pki.crl import check_fresh, revoked_serials
from daskpki.pki.pem import fingerprint, parse_certificates
from daskpki.pki.trust_document import TrustDocument
from daskpki.pki.verify import verify_leaf
from daskpki.quoting import rfc3339
from daskpki.records import EMPTY, Head, Record


class Audited(NamedTuple):
    """A verified log: its head, and the trust document that confirms it up to `trust.log`."""

    head: Head
    certificates: int
    trust: TrustDocument
    basis: str


def verify_log(session: Session) -> Audited:
    """Verify the log; CorruptError, NotTrustedError, NotFoundError without a CA."""
    basis = session.anchor.basis
    session.anchor.thorough = True
    log = session.log
    log.authenticate()
    view = log.inventory()
    trust = current_trust(session)
    replayed = _replay(log.records(), view.head, Head(*trust.log))
    _check_inventory(view, replayed)
    return Audited(view.head, sum(1 for _ in replayed.certificates()), trust, basis)


def _replay(records: Iterator[Record], end: Head, confirmed: Head) -> ReplayedInventory:
    """The inventory up to `end`; CorruptError unless the confirmed head is among the records."""
    replayed, is_there = ReplayedInventory(), confirmed == EMPTY
    for record in records:
        is_there = is_there or (record.seq, record.hash) == confirmed
        if record.seq <= end.seq:
            replayed.apply(record)
    if not is_there:
        raise CorruptError(
            f"the log does not contain record {confirmed.seq} with hash {confirmed.hash[:16]}..., which the signed "
            "trust document names: it was cut off or rewritten",
            hint="restore the store from a backup, and find out who could write to it",
        )
    return replayed


def _check_inventory(view: Inventory, replayed: ReplayedInventory) -> None:
    same = (view.head, view.published) == (replayed.head, replayed.published)
    same = same and list(view.authorities()) == list(replayed.authorities())
    for shown, recorded in zip_longest(view.certificates(), replayed.certificates()):
        if shown != recorded:
            serial = f"{(recorded or shown).serial:x}"
            raise CorruptError(f"the inventory's entry of serial {serial} differs from the log", hint=_CHANGED)
    if not same:
        raise CorruptError("the inventory's CAs or its last publication differ from the log", hint=_CHANGED)


_CHANGED = "someone changed the store's tables: restore it from a backup"


def describe_record(record: Record) -> dict[str, Any]:
    """A record as `--json` prints it; the names of its fields are part of the contract."""
    return {
        "seq": record.seq,
        "time": rfc3339(record.time),
        "who": record.who,
        "command": record.command,
        "operation": record.operation,
        "event": record.kind,
        "body": dict(record.body),
        "hash": record.hash,
    }


def subject(record: Record) -> str:
    """The subject of a record in a few words: a leaf, a CA, a publication, a version of a user secret."""
    body = record.body
    if record.kind in CERTIFICATE_KINDS:
        name = f"{body['role']}/{body['name']} " if "role" in body else ""
        return f"{name}serial {body['serial']}" + (f" ({body['reason']})" if "reason" in body else "")
    if "generation" in body:
        return f"CA generation {body['generation']}"
    if "epoch" in body:
        return f"trust document, epoch {body['epoch']}"
    restored = f", the value of version {body['restores']}" if "restores" in body else ""
    return f"secret {body['name']}, version {body['version']}{restored}"


class Verified(NamedTuple):
    """A certificate that is trusted now: identity, serial, fingerprint (hex) and end."""

    identity: Identity
    serial: int
    fingerprint: str
    not_after: datetime


class Verifier:
    """Verifies any number of certificates by one trust document."""

    def __init__(self, session: Session) -> None:
        self._now = session.now()
        self._trust: TrustDocument = current_trust(session)
        self._revoked = revoked_serials(self._trust)

    def verify(self, data: bytes) -> Verified:
        """Verify the leaf at the start of `data` (PEM and chain, or DER); NotTrustedError, CorruptError, UsageError."""
        leaf, *chain = parse_certificates(data)
        roots = self._trust.roots
        identity = verify_leaf(leaf, chain, roots, now=self._now, trust_domain=self._trust.trust_domain)
        certificate = load_certificate(leaf)
        serial = certificate.serial_number
        for revoked in self._revoked.values():
            if found := revoked.get(serial):
                raise NotTrustedError(
                    f"the certificate {serial:x} of {identity.uri} was revoked at {rfc3339(found.at)} ({found.reason})"
                )
        check_fresh(self._trust, self._now)
        return Verified(identity, serial, fingerprint(leaf), certificate.not_valid_after_utc)
