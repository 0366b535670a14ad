"""Looks at a live Enforcement and its server's visitors, and takes the snapshot that is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from daskpki.cluster.audit import EXPIRED, REFUSED, RELOADED, REVOKED, TURNED_AWAY
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.web.snapshot import Believed, Contact, Snapshot, cas, ends, group
from daskpki.pki.pem import parse_pem


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
    )


def _comms(enforcement: Enforcement) -> Iterator[Contact]:
    for comm, since in enforcement.since():
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
