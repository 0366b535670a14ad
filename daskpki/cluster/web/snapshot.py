"""Takes a snapshot of one Dask server, and writes it as JSON; `page` writes it as HTML and as metrics.

Names and addresses in a snapshot come from peers, so every writer has to escape them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

from daskpki.cluster.audit import EXPIRED, REFUSED, RELOADED, REVOKED, TURNED_AWAY, Event
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer
from daskpki.cluster.refusal import Reason
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import fingerprint, parse_pem
from daskpki.pki.trust_document import TrustDocument

SOON: Final = 7 * 86_400
"""Seconds before its end from which a certificate or list counts as ending soon."""


class Contact(NamedTuple):
    """One live connection: peer, address, begin (seconds since the epoch), and `via` tls or dashboard."""

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


class Trust(NamedTuple):
    """The trust document in force, as far as it is known here."""

    cluster: str
    trust_domain: str
    epoch: int
    issued_at: int | None
    next_update: int | None
    revoked: int
    cas: tuple[Ca, ...]


class Snapshot(NamedTuple):
    """The state of one server. `identity` and `not_after` are of its certificate."""

    at: float
    server: str
    identity: str
    not_after: int
    worker_clients: str
    dashboard: str
    trust: Trust
    connected: tuple[Connected, ...]
    refused: tuple[Event, ...]
    changes: tuple[Event, ...]
    counts: Mapping[str, int]
    refusals: Mapping[Reason, int]
    sealed: Mapping[str, float] | None = None
    """Counters of a sealed scheduler's helpers; None for any other server."""

    @property
    def ending(self) -> tuple[tuple[str, int], ...]:
        """Certificates and lists that end within SOON, the earliest first, each with its end (epoch seconds)."""
        ends = [
            (f"this {self.server.lower()}'s certificate", self.not_after),
            *((f"the certificate of {each.identity}", each.not_after) for each in self.connected),
            *((f"CA {ca.generation} ({ca.state})", ca.not_after) for ca in self.trust.cas),
            *((f"the revocation list of CA {ca.generation}", ca.next_update) for ca in self.trust.cas),
        ]
        soon = [(what, end) for what, end in ends if end is not None and end < self.at + SOON]
        return tuple(sorted(soon, key=lambda end: end[1]))


def group(contacts: Iterable[Contact]) -> tuple[Connected, ...]:
    """Group connections by certificate, ordered by identity."""
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
    """List the document's CAs, oldest first."""
    lists = {part.generation: (part.number, part.next_update) for part in document.crls}
    return tuple(
        Ca(
            anchor.generation,
            anchor.state,
            fingerprint(anchor.certificate),
            ends(anchor.certificate),
            *lists.get(anchor.generation, (None, None)),
        )
        for anchor in sorted(document.authorities)
    )


@lru_cache(maxsize=16)
def ends(certificate: bytes) -> int:
    """Return the end of a certificate (DER) in seconds since the epoch."""
    return lifetime(load_certificate(certificate)).not_after


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """Encode the snapshot as a JSON document of format 1."""
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
    """Take a snapshot of the server with this Enforcement; `visitors` are the connections to its pages."""
    latest = tuple(reversed(enforcement.audit.latest))
    trust, document = enforcement.trust, enforcement.manager.document if enforcement.manager is not None else None
    live = (
        Contact(comm.conversation.peer, comm.peer_address, since, "tls")
        for comm, since in enforcement.with_age()
        if not comm.closed()
    )
    own = parse_pem(enforcement.pair.certificates.encode(), "our certificate")[0][1]
    return Snapshot(
        at=enforcement.now(),
        server=server,
        identity=enforcement.identity.uri,
        not_after=ends(own),
        worker_clients=enforcement.mode.value,
        dashboard=enforcement.dashboard.value,
        trust=Trust(
            cluster=trust.cluster,
            trust_domain=trust.trust_domain,
            epoch=trust.epoch,
            issued_at=document.issued_at if document else None,
            next_update=trust.next_update,
            revoked=len(trust.revoked),
            cas=cas(document) if document else (),
        ),
        connected=group(chain(live, visitors)),
        refused=tuple(event for event in latest if event.kind in (REFUSED, TURNED_AWAY)),
        changes=tuple(event for event in latest if event.kind in (REVOKED, EXPIRED, RELOADED)),
        counts=dict(enforcement.audit.counts),
        sealed=enforcement.measure_seal() if enforcement.measure_seal is not None else None,
        refusals=dict(enforcement.audit.refusals),
    )
