"""Issue leaves: reserve in the log → sign → store → confirm in the log, so that nothing is signed unrecorded.

A crash leaves a reservation. After ten minutes any later command that opens the CA's key abandons it, its serial goes
on the CRL until notAfter, and a late confirmation is refused: no command reads another's key to finish its work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding

from daskpki import naming
from daskpki.authority.policy import active_authority, living_authorities
from daskpki.authority.session import Session
from daskpki.errors import AlreadyExistsError, NotTrustedError
from daskpki.identity import Identity
from daskpki.pki.credential import Credential, encode_credential
from daskpki.pki.issuer import Issuer, issue_leaf
from daskpki.pki.keys import KeyType, generate_key, serialize_key
from daskpki.pki.profile import LeafRequest, Lifetime, Policy, check_request, leaf_lifetime
from daskpki.pki.validate import fingerprint
from daskpki.records import (
    ISSUED,
    RESERVED,
    CertificateRecord,
    Draft,
    Inventory,
    Record,
    certificate_after,
)

BATCH: Final = 100
"""Leaves that share one reservation and one confirmation in the log."""


Wanted = Callable[[Inventory, LeafRequest], bool]
"""Whether a leaf is still to be issued, judged on the very state of the log that its reservation is appended to."""


class Press(NamedTuple):
    """What a run of leaves has in common: who signs them, under which policy, with which kind of keys, and when."""

    issuer: Issuer
    policy: Policy
    key_type: KeyType
    wanted: Wanted = lambda _inventory, _request: True


class Issued(NamedTuple):
    """An issued leaf, acknowledged: it is stored and confirmed."""

    record: CertificateRecord
    secret: str


class Reservation(NamedTuple):
    """A leaf whose serial and lifetime are in the log, to be signed exactly so."""

    request: LeafRequest
    entry: CertificateRecord


class Signed(NamedTuple):
    """A leaf with its key, not yet stored."""

    reservation: Reservation
    credential: Credential
    fingerprint: str


def issue(session: Session, press: Press, requests: Sequence[LeafRequest]) -> Iterator[Issued]:
    """Issue a leaf for each request, in batches; each is yielded when it is durable.

    All requests are checked before anything is recorded (PolicyError, UsageError). A leaf that replaces another of its
    name becomes a new version of the same secret.
    """
    check_requests(requests, press.policy, press.issuer.lifetime, session.now())
    pending = iter(requests)
    while batch := list(islice(pending, BATCH)):
        yield from _issue_batch(session, press, batch)


def check_requests(requests: Iterable[LeafRequest], policy: Policy, issuer: Lifetime, now: datetime) -> None:
    """Raise PolicyError or UsageError for the first that could not be issued now."""
    for request in requests:
        check_request(request, policy)
        leaf_lifetime(request, policy, issuer, int(now.timestamp()))


def _issue_batch(session: Session, press: Press, requests: Sequence[LeafRequest]) -> list[Issued]:
    operation = session.operations()
    reservations = _reserve(session, press, requests, operation)
    if not reservations:
        return []
    signed = [_sign(session, press, reservation) for reservation in reservations]
    with session.store.batch():
        versions = [_keep(session, leaf.credential) for leaf in signed]
        records = _confirm(session, signed, versions, operation)
    return [
        Issued(certificate_after(leaf.reservation.entry, record), secret_of(session.cluster, leaf.credential.identity))
        for leaf, record in zip(signed, records, strict=True)
    ]


def _reserve(session: Session, press: Press, requests: Sequence[LeafRequest], operation: str) -> list[Reservation]:
    now = int(session.now().timestamp())
    planned = [
        (request, _reserved(session.serials(), request, leaf_lifetime(request, *_limits(press), now), press))
        for request in requests
    ]
    chosen: list[tuple[LeafRequest, Draft]] = []

    def decide(inventory: Inventory) -> list[Draft]:
        active = active_authority(inventory, session.cluster).generation
        if active != press.issuer.generation:
            raise NotTrustedError(f"CA {press.issuer.generation} no longer issues; CA {active} does", hint="try again")
        chosen[:] = [(request, draft) for request, draft in planned if press.wanted(inventory, request)]
        return [draft for _, draft in chosen]

    records = session.log.commit(decide, session.stamp(operation)._replace(time=now))
    return [
        Reservation(request, certificate_after(None, record))
        for (request, _), record in zip(chosen, records, strict=True)
    ]


def _limits(press: Press) -> tuple[Policy, Lifetime]:
    return press.policy, press.issuer.lifetime


def _reserved(serial: int, request: LeafRequest, lifetime: Lifetime, press: Press) -> Draft:
    sans = [f"dns:{name}" for name in request.dns] + [f"ip:{address}" for address in request.ips]
    body = {
        "serial": f"{serial:x}",
        "role": request.identity.role.value,
        "name": request.identity.name,
        "not_before": lifetime.not_before,
        "not_after": lifetime.not_after,
        "issuer": press.issuer.generation,
        "key_type": press.key_type.value,
    }
    return Draft(RESERVED, body | ({"sans": sans} if sans else {}))


def _sign(session: Session, press: Press, reservation: Reservation) -> Signed:
    request, entry = reservation
    issuer = press.issuer
    key = generate_key(press.key_type)
    reserved_at = datetime.fromtimestamp(entry.reserved_at, UTC)
    certificate = issue_leaf(
        issuer, request, key.public_key(), serial=entry.serial, now=reserved_at, policy=press.policy
    )
    leaf = certificate.public_bytes(Encoding.DER)
    chain = tuple(above.public_bytes(Encoding.DER) for above in issuer.chain)
    credential = Credential(session.cluster, request.identity, issuer.generation, serialize_key(key), leaf, chain)
    return Signed(reservation, credential, fingerprint(leaf))


def _keep(session: Session, credential: Credential) -> int:
    identity = credential.identity
    secret = secret_of(session.cluster, identity)
    labels = naming.labels(session.cluster, identity.role.value, identity.name)
    with suppress(AlreadyExistsError):  # a renewal; `add` refuses if the secret is not ours
        session.store.secrets.create(secret, labels=labels)
    return session.store.secrets.add(secret, encode_credential(credential))


def secret_of(cluster: str, identity: Identity) -> str:
    """The secret in which a leaf is kept."""
    return naming.credential_id(cluster, identity.role, identity.name)


def _confirm(session: Session, signed: Sequence[Signed], versions: Sequence[int], operation: str) -> Sequence[Record]:
    drafts = [_issued(leaf, version) for leaf, version in zip(signed, versions, strict=True)]

    def decide(inventory: Inventory) -> list[Draft]:
        for leaf in signed:
            _check_reserved(inventory, leaf.reservation)
        return drafts

    return session.log.commit(decide, session.stamp(operation))


def _issued(leaf: Signed, version: int) -> Draft:
    serial = f"{leaf.reservation.entry.serial:x}"
    return Draft(ISSUED, {"serial": serial, "fingerprint": leaf.fingerprint, "version": version})


def _check_reserved(inventory: Inventory, reservation: Reservation) -> None:
    entry = inventory.certificate(reservation.entry.serial)
    if entry is None or entry.status != RESERVED:
        raise NotTrustedError(
            f"the reservation of {reservation.request.identity.slug} was abandoned by another command meanwhile",
            hint="issue it again; the abandoned serial is revoked",
        )
    if entry.issuer not in {known.generation for known in living_authorities(inventory)}:
        raise NotTrustedError(f"CA {entry.issuer} was dropped meanwhile", hint="issue it again")
