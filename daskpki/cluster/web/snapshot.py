"""Takes a snapshot of one Dask server: the JSON document of format 1, which `page` also renders as HTML and as metrics.

Names and addresses in it come from peers, so whoever writes them into another format has to escape them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple

from daskpki.cluster.audit import EXPIRED, REFUSED, RELOADED, REVOKED, TURNED_AWAY
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import fingerprint, parse_pem
from daskpki.pki.trust_document import TrustDocument

FORMAT: Final = 1
SOON: Final = 7 * 86_400
"""Seconds before its end from which a certificate or list counts as ending soon."""

Snapshot = dict[str, Any]
"""The document that docs/reference/formats.md describes; times in seconds since the epoch."""


class Contact(NamedTuple):
    """One live connection: peer, address, begin (seconds since the epoch), and `via` tls or dashboard."""

    peer: Peer
    address: str
    since: float
    via: str


def take(enforcement: Enforcement, server: str, visitors: Iterable[Contact] = ()) -> Snapshot:
    """Take a snapshot of the server with this Enforcement; `visitors` are the connections to its pages.

    `sealed` has the counters of a sealed scheduler's helpers, and is None for any other server. `trust` is the trust
    document in force, as far as it is known here.
    """
    events = [event._asdict() for event in reversed(enforcement.audit.latest)]
    trust, document = enforcement.trust, enforcement.manager.document if enforcement.manager is not None else None
    live = (
        Contact(comm.conversation.peer, comm.peer_address, since, "tls")
        for comm, since in enforcement.with_age()
        if not comm.closed()
    )
    own = parse_pem(enforcement.pair.certificates.encode(), "our certificate")[0][1]
    snapshot = {
        "format": FORMAT,
        "at": enforcement.now(),
        "server": server,
        "identity": enforcement.identity.uri,
        "not_after": ends(own),
        "worker_clients": enforcement.mode.value,
        "dashboard": enforcement.dashboard.value,
        "trust": {
            "cluster": trust.cluster,
            "trust_domain": trust.trust_domain,
            "epoch": trust.epoch,
            "issued_at": document.issued_at if document else None,
            "next_update": trust.next_update,
            "revoked": len(trust.revoked),
            "cas": cas(document) if document else [],
        },
        "connected": group(chain(live, visitors)),
        "refused": [event for event in events if event["kind"] in (REFUSED, TURNED_AWAY)],
        "changes": [event for event in events if event["kind"] in (REVOKED, EXPIRED, RELOADED)],
        "counts": dict(enforcement.audit.counts),
        "refusals": dict(enforcement.audit.refusals),
        "sealed": enforcement.measure_seal() if enforcement.measure_seal is not None else None,
    }
    return snapshot | {"ending": ending(snapshot)}


def group(contacts: Iterable[Contact]) -> list[dict[str, Any]]:
    """Group connections by certificate, ordered by identity."""
    found: dict[tuple[str, int], list[Contact]] = {}
    for contact in contacts:
        found.setdefault((contact.peer.identity.uri, contact.peer.serial), []).append(contact)
    return [
        {
            "identity": uri,
            "role": contacts[0].peer.identity.role.value,
            "serial": f"{serial:x}",
            "not_after": contacts[0].peer.not_after,
            "since": min(contact.since for contact in contacts),
            "connections": len(contacts),
            "addresses": sorted({contact.address for contact in contacts}),
            "via": sorted({contact.via for contact in contacts}),
        }
        for (uri, serial), contacts in sorted(found.items(), key=itemgetter(0))
    ]


def cas(document: TrustDocument) -> list[dict[str, Any]]:
    """List the document's CAs, oldest first; the number and end of its list are None for a CA without one."""
    lists = {part.generation: (part.number, part.next_update) for part in document.crls}
    listed = []
    for anchor in sorted(document.authorities):
        number, next_update = lists.get(anchor.generation, (None, None))
        listed.append(
            {
                "generation": anchor.generation,
                "state": anchor.state,
                "sha256": fingerprint(anchor.certificate),
                "not_after": ends(anchor.certificate),
                "crl_number": number,
                "next_update": next_update,
            }
        )
    return listed


@lru_cache(maxsize=16)
def ends(certificate: bytes) -> int:
    """Return the end of a certificate (DER) in seconds since the epoch."""
    return lifetime(load_certificate(certificate)).not_after


def ending(snapshot: Snapshot) -> list[dict[str, Any]]:
    """List the certificates and lists that end within SOON, the earliest first."""
    found = [
        (f"this {snapshot['server'].lower()}'s certificate", snapshot["not_after"]),
        *((f"the certificate of {each['identity']}", each["not_after"]) for each in snapshot["connected"]),
        *((f"CA {ca['generation']} ({ca['state']})", ca["not_after"]) for ca in snapshot["trust"]["cas"]),
        *((f"the revocation list of CA {ca['generation']}", ca["next_update"]) for ca in snapshot["trust"]["cas"]),
    ]
    soon = [{"what": what, "not_after": end} for what, end in found if end is not None and end < snapshot["at"] + SOON]
    return sorted(soon, key=itemgetter("not_after"))
