"""Issues leaves: reserve in the log → sign → store → confirm in the log, so that nothing is signed unrecorded.

A crash leaves a reservation. After ten minutes any later command that opens the CA's key abandons it, its serial goes
on the CRL until notAfter, and a late confirmation is refused: no command reads another's key to finish its work.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding

from daskpki import secret_names
from daskpki.authority.lookup import active_authority, living_authorities
from daskpki.authority.session import Session, new_operation, random_serial
from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, AlreadyExistsError, NotFoundError, NotTrustedError, UnavailableError
from daskpki.identity import Identity
from daskpki.inventory import FROM_REQUEST, CertificateRecord, Inventory, certificate_after
from daskpki.pki.credential import Credential, encode_credential
from daskpki.pki.issuer import Issuer, issue_leaf
from daskpki.pki.keys import KeyType, PublicKey, generate_key, serialize_key
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import LeafRequest, Lifetime, Policy, check_request, leaf_lifetime
from daskpki.records import ISSUED, RESERVED, Draft, Record
from daskpki.store.port import DESTROYED

BATCH: Final = 100
"""Leaves that share one reservation and one confirmation in the log."""


KEPT_VERSIONS: Final = 2
"""Versions of one credential that are billed, and readable."""
_LOOK_BACK: Final = 32
"""Versions below the newest that are searched for leftovers of commands that died: a part of one page of the list."""


RenewalFilter = Callable[[Inventory, LeafRequest], bool]
"""True if a leaf is still to be issued, judged by the state of the log to which its reservation is appended."""


class SigningProfile(NamedTuple):
    """Profile of one command's leaves: the CA, its policy, the kind of new keys, and for renewals those still wanted.

    With the `public_key` of a certificate request there is one leaf, and no private key is made or kept.
    """

    issuer: Issuer
    policy: Policy
    key_type: KeyType = KeyType.P256
    wanted: RenewalFilter | None = None
    public_key: PublicKey | None = None


class SupersededError(UnavailableError):
    """Another CA has replaced the one that was to sign, so nothing was confirmed."""


class Issued(NamedTuple):
    """An issued leaf, acknowledged: it is stored and confirmed."""

    record: CertificateRecord
    secret: str


class Reservation(NamedTuple):
    """A reserved leaf: the log has its serial and lifetime, and it is signed with exactly these."""

    request: LeafRequest
    entry: CertificateRecord


class Signed(NamedTuple):
    """A leaf with its key as the payload of its secret, not yet stored."""

    payload: Confidential
    fingerprint: str


def issue(session: Session, profile: SigningProfile, requests: Sequence[LeafRequest]) -> Iterator[Issued]:
    """Issue a leaf for each request, in batches; each is yielded when it is durable.

    All requests are checked before anything is recorded (PolicyError, UsageError). A leaf that replaces another of its
    name becomes a new version of the same secret.
    """
    check_requests(requests, profile.policy, profile.issuer.lifetime, session.now())
    pending = iter(requests)
    while requested := list(islice(pending, BATCH)):
        operation = new_operation()
        leaves = _reserve(session, profile, requested, operation)
        signed = [_sign(session.cluster, profile, leaf) for leaf in leaves]
        if leaves:
            yield from _keep_batch(session, operation, leaves, signed, renews=profile.wanted is not None)


def check_requests(requests: Iterable[LeafRequest], policy: Policy, issuer: Lifetime, now: datetime) -> None:
    """Raise PolicyError or UsageError for the first that could not be issued now."""
    for request in requests:
        check_request(request, policy)
        leaf_lifetime(request, policy, issuer, int(now.timestamp()))


def _keep_batch(
    session: Session, operation: str, leaves: Sequence[Reservation], signed: Sequence[Signed], *, renews: bool
) -> list[Issued]:
    """Store and confirm the leaves, durable together on return; with `renews`, their secrets exist already."""
    with session.store.batch():
        versions = [_keep(session, *pair, renews=renews) for pair in zip(leaves, signed, strict=True)]
        drafts = [
            Draft(ISSUED, {"serial": f"{leaf.entry.serial:x}", "fingerprint": made.fingerprint, "version": version})
            for leaf, made, version in zip(leaves, signed, versions, strict=True)
        ]
        records = _confirm(session, operation, leaves, drafts)
        for leaf, version in zip(leaves, versions, strict=True):
            _destroy_older(session, leaf, version)
    return [
        Issued(certificate_after(leaf.entry, record), secret_of(session.cluster, leaf.request.identity))
        for leaf, record in zip(leaves, records, strict=True)
    ]


def _reserve(
    session: Session, profile: SigningProfile, requests: Sequence[LeafRequest], operation: str
) -> list[Reservation]:
    now = int(session.now().timestamp())
    planned = []
    for request in requests:
        lifetime = leaf_lifetime(request, profile.policy, profile.issuer.lifetime, now)
        planned.append((request, _reserved(random_serial(), request, lifetime, profile)))
    chosen: list[tuple[LeafRequest, Draft]] = []

    def decide(inventory: Inventory) -> list[Draft]:
        active, ours = active_authority(inventory, session.cluster).generation, profile.issuer.generation
        if active != ours:
            raise SupersededError(f"CA {ours} no longer issues; CA {active} does", hint="try again")
        wanted = profile.wanted
        chosen[:] = [pair for pair in planned if wanted is None or wanted(inventory, pair[0])]
        return [draft for _, draft in chosen]

    records = session.commit(decide, session.stamp(operation)._replace(time=now))
    return [
        Reservation(request, certificate_after(None, record))
        for (request, _), record in zip(chosen, records, strict=True)
    ]


def _reserved(serial: int, request: LeafRequest, lifetime: Lifetime, profile: SigningProfile) -> Draft:
    sans = [f"dns:{name}" for name in request.dns] + [f"ip:{address}" for address in request.ips]
    sans += [f"grade:{grade.value}" for grade in request.grades]
    body = {
        "serial": f"{serial:x}",
        "role": request.identity.role.value,
        "name": request.identity.name,
        "not_before": lifetime.not_before,
        "not_after": lifetime.not_after,
        "issuer": profile.issuer.generation,
        "key_type": profile.key_type.value if profile.public_key is None else FROM_REQUEST,
    }
    return Draft(RESERVED, body | ({"sans": sans} if sans else {}))


def _sign(cluster: str, profile: SigningProfile, reservation: Reservation) -> Signed:
    request, entry = reservation
    issuer = profile.issuer
    key, public_key = None, profile.public_key
    if public_key is None:  # else the key is a request's
        private_key = generate_key(profile.key_type)
        key, public_key = serialize_key(private_key), private_key.public_key()
    reserved_at = datetime.fromtimestamp(entry.reserved_at, UTC)
    certificate = issue_leaf(issuer, request, public_key, serial=entry.serial, now=reserved_at, policy=profile.policy)
    leaf = certificate.public_bytes(Encoding.DER)
    chain = tuple(above.public_bytes(Encoding.DER) for above in issuer.chain)
    credential = Credential(cluster, request.identity, key, leaf, chain)
    return Signed(encode_credential(credential, issuer.generation), fingerprint(leaf))


def _keep(session: Session, reservation: Reservation, signed: Signed, *, renews: bool) -> int:
    """Store it and return its version; a renewal makes the secret only if it is missing."""
    identity = reservation.request.identity
    secret = secret_of(session.cluster, identity)
    if renews:
        with suppress(NotFoundError):
            return session.store.secrets.add(secret, signed.payload)
    labels = secret_names.labels(session.cluster, identity.role.value, identity.name)
    with suppress(AlreadyExistsError):  # a name that was used before; `add` refuses if the secret is not ours
        session.store.secrets.create(secret, labels=labels)
    return session.store.secrets.add(secret, signed.payload)


def _destroy_older(session: Session, reservation: Reservation, version: int) -> None:
    """Destroy all versions but this one and its predecessor, which readers whose `latest` lags still need.

    This includes versions left by a command that died before this point, or that may only add. The list of versions
    may lag, so the version before the predecessor is destroyed even if it is not listed.
    """
    last = version - KEPT_VERSIONS
    if last > 0:
        secrets, secret = session.store.secrets, secret_of(session.cluster, reservation.request.identity)
        with suppress(AccessDeniedError, UnavailableError):  # the next renewal does it, or a command with more rights
            listed = takewhile(lambda entry: entry.number > version - _LOOK_BACK, secrets.versions(secret))
            left = {entry.number for entry in listed if entry.number <= last and entry.state != DESTROYED}
            for number in sorted(left | {last}):
                secrets.destroy(secret, number)


def secret_of(cluster: str, identity: Identity) -> str:
    """The secret in which a leaf is kept."""
    return secret_names.credential_id(cluster, identity.role, identity.name)


def _confirm(
    session: Session, operation: str, leaves: Sequence[Reservation], drafts: Sequence[Draft]
) -> Sequence[Record]:
    def decide(inventory: Inventory) -> Sequence[Draft]:
        living = {known.generation for known in living_authorities(inventory)}
        for leaf in leaves:
            _check_reserved(inventory, leaf, living)
        return drafts

    return session.commit(decide, session.stamp(operation))


def _check_reserved(inventory: Inventory, reservation: Reservation, living: Container[int]) -> None:
    entry = inventory.certificate(reservation.entry.serial)
    if entry is None or entry.status != RESERVED:
        raise NotTrustedError(
            f"the reservation of {reservation.request.identity.slug} was abandoned by another command meanwhile",
            hint="issue it again; the abandoned serial is revoked",
        )
    if entry.issuer not in living:
        raise SupersededError(f"CA {entry.issuer} was dropped meanwhile", hint="issue it again")
