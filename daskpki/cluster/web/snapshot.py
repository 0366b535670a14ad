"""Collects what there is to show of one Dask server at one moment; page, JSON and metrics are made from it.

Names and addresses in a snapshot come from peers, so every writer has to escape them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

from daskpki.cluster.audit import EXPIRED, REFUSED, RELOADED, REVOKED, TURNED_AWAY, Event
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer
from daskpki.cluster.reasons import Reason
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import fingerprint, parse_pem
from daskpki.pki.trust_document import Anchor, TrustDocument

SOON: Final = 7 * 86_400
"""Seconds before its end from which on something counts as ending soon."""


class Contact(NamedTuple):
    """One live connection: whose, from where, since when (seconds since the epoch), and by which way in."""

    peer: Peer
    address: str
    since: float
    via: str


class Connected(NamedTuple):
    """One certificate with live connections; times in seconds since the epoch."""

    identity: str
    role: str
    serial: str
    not_after: int
    since: float
    connections: int
    addresses: tuple[str, ...]
    via: tuple[str, ...]


class Ca(NamedTuple):
    """One CA of the trust document; `crl_number` is None when it has no revocation list."""

    generation: int
    state: str
    sha256: str
    not_after: int
    crl_number: int | None
    next_update: int | None


class Believed(NamedTuple):
    """What the process goes by: the trust document, as far as it is known here."""

    cluster: str
    trust_domain: str
    epoch: int
    issued_at: int | None
    next_update: int | None
    revoked: int
    cas: tuple[Ca, ...]


class Snapshot(NamedTuple):
    """Everything. `identity` and `not_after` are the server's own."""

    at: float
    server: str
    identity: str
    not_after: int
    worker_clients: str
    dashboard: str
    trust: Believed
    connected: tuple[Connected, ...]
    refused: tuple[Event, ...]
    changes: tuple[Event, ...]
    counts: Mapping[str, int]
    refusals: Mapping[Reason, int]
    sealed: Mapping[str, float] | None = None
    """What a sealed scheduler's helpers did; None of any other server."""

    @property
    def ending(self) -> tuple[tuple[str, int], ...]:
        """What ends within SOON, first that which ends first: what it is, and when (seconds since the epoch)."""
        ends = [
            (f"this {self.server.lower()}'s certificate", self.not_after),
            *((f"the certificate of {each.identity}", each.not_after) for each in self.connected),
            *((f"CA {ca.generation} ({ca.state})", ca.not_after) for ca in self.trust.cas),
            *((f"the revocation list of CA {ca.generation}", ca.next_update) for ca in self.trust.cas),
        ]
        soon = [(what, end) for what, end in ends if end is not None and end < self.at + SOON]
        return tuple(sorted(soon, key=lambda end: end[1]))


def group(contacts: Iterable[Contact]) -> tuple[Connected, ...]:
    """One entry for each certificate, ordered by identity."""
    found: dict[tuple[str, int], list[Contact]] = {}
    for contact in contacts:
        found.setdefault((contact.peer.identity.uri, contact.peer.serial), []).append(contact)
    return tuple(_connected(found[key]) for key in sorted(found))


def _connected(contacts: list[Contact]) -> Connected:
    peer = contacts[0].peer
    return Connected(
        identity=peer.identity.uri,
        role=peer.identity.role.value,
        serial=f"{peer.serial:x}",
        not_after=peer.not_after,
        since=min(contact.since for contact in contacts),
        connections=len(contacts),
        addresses=tuple(sorted({contact.address for contact in contacts})),
        via=tuple(sorted({contact.via for contact in contacts})),
    )


def cas(document: TrustDocument) -> tuple[Ca, ...]:
    """The document's CAs, oldest first."""
    lists = {part.generation: (part.number, part.next_update) for part in document.crls}
    return tuple(
        Ca(anchor.generation, anchor.state, *_named(anchor), *lists.get(anchor.generation, (None, None)))
        for anchor in sorted(document.authorities)
    )


@lru_cache(maxsize=16)
def _named(anchor: Anchor) -> tuple[str, int]:
    return fingerprint(anchor.certificate), ends(anchor.certificate)


@lru_cache(maxsize=16)
def ends(certificate: bytes) -> int:
    """The notAfter of a certificate (DER), in seconds since the epoch."""
    return lifetime(load_certificate(certificate)).not_after


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as a JSON document of format 1."""
    document = snapshot._asdict() | {
        "trust": snapshot.trust._asdict() | {"cas": [ca._asdict() for ca in snapshot.trust.cas]},
        "connected": [each._asdict() for each in snapshot.connected],
        "refused": [event._asdict() for event in snapshot.refused],
        "changes": [event._asdict() for event in snapshot.changes],
        "counts": dict(snapshot.counts),
        "refusals": dict(snapshot.refusals),
        "ending": [{"what": what, "not_after": end} for what, end in snapshot.ending],
    }
    return {"format": 1, **document}


def take(enforcement: Enforcement, server: str, visitors: Iterable[Contact] = ()) -> Snapshot:
    """What there is to show of the server that has this Enforcement; `visitors` look at its pages."""
    latest = tuple(reversed(enforcement.audit.latest))
    own = parse_pem(enforcement.pair.certificates.encode(), "our certificate")[0][1]
    return Snapshot(
        at=enforcement.now(),
        server=server,
        identity=enforcement.identity.uri,
        not_after=ends(own),
        worker_clients=enforcement.mode.value,
        dashboard=enforcement.dashboard.value,
        trust=_believed(enforcement),
        connected=group(chain(_comms(enforcement), visitors)),
        refused=tuple(event for event in latest if event.kind in (REFUSED, TURNED_AWAY)),
        changes=tuple(event for event in latest if event.kind in (REVOKED, EXPIRED, RELOADED)),
        counts=dict(enforcement.audit.counts),
        sealed=enforcement.measure_seal() if enforcement.measure_seal is not None else None,
        refusals=dict(enforcement.audit.refusals),
    )


def _comms(enforcement: Enforcement) -> Iterator[Contact]:
    for comm, since in enforcement.with_age():
        if not comm.closed():
            yield Contact(comm.conversation.peer, comm.peer_address, since, "tls")


def _believed(enforcement: Enforcement) -> Believed:
    trust, keeper = enforcement.trust, enforcement.keeper
    document = keeper.document if keeper is not None else None
    return Believed(
        cluster=trust.cluster,
        trust_domain=trust.trust_domain,
        epoch=trust.epoch,
        issued_at=document.issued_at if document else None,
        next_update=trust.next_update,
        revoked=len(trust.revoked),
        cas=cas(document) if document else (),
    )
