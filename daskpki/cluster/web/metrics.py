"""Writes a snapshot in Prometheus' text format (version 0.0.4), which needs no library. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from daskpki.cluster.audit import KINDS
from daskpki.cluster.reasons import Reason
from daskpki.cluster.web.snapshot import Snapshot

_NO_LABELS: Final[Mapping[str, object]] = {}
Sample = tuple[Mapping[str, object], float]


class Family(NamedTuple):
    """One metric: its samples, each with labels."""

    name: str
    kind: str
    meaning: str
    samples: Iterable[Sample]


def exposition(snapshot: Snapshot) -> str:
    """All of it, ending in a newline."""
    return "".join(line for family in families(snapshot) for line in _written(family))


def families(snapshot: Snapshot) -> Iterator[Family]:
    """What there is to measure."""
    yield from _of_ourselves(snapshot)
    yield from _of_peers(snapshot)
    yield from _of_trust(snapshot)


def _of_ourselves(snapshot: Snapshot) -> Iterator[Family]:
    modes = {
        "identity": snapshot.identity,
        "worker_clients": snapshot.worker_clients,
        "dashboard": snapshot.dashboard,
    }
    yield Family("daskpki_info", "gauge", "Whose certificate this process holds, and its modes", [(modes, 1)])
    yield _single("daskpki_certificate_not_after_seconds", "End of this process's certificate", snapshot.not_after)
    counts: list[Sample] = [({"kind": kind}, snapshot.counts.get(kind, 0)) for kind in KINDS]
    yield Family("daskpki_events_total", "counter", "Connections, refusals, revocations and reloads", counts)
    for name, value in (snapshot.sealed or {}).items():
        yield _single(f"daskpki_sealed_{name}", "Of a sealed scheduler", value)
    refused: list[Sample] = [({"reason": reason}, snapshot.refusals.get(reason, 0)) for reason in Reason]
    yield Family("daskpki_refused_total", "counter", "Refused connections, operations and requests, by reason", refused)


def _of_peers(snapshot: Snapshot) -> Iterator[Family]:
    certificates, connections = Counter[str](), Counter[str]()
    first: dict[str, int] = {}
    for each in snapshot.connected:
        certificates[each.role] += 1
        connections[each.role] += each.connections
        first[each.role] = min(each.not_after, first.get(each.role, each.not_after))
    yield _by_role("daskpki_connected_certificates", "Certificates with live connections", certificates)
    yield _by_role("daskpki_connections", "Live connections", connections)
    yield _by_role("daskpki_first_peer_not_after_seconds", "End of the peer's certificate that ends first", first)


def _of_trust(snapshot: Snapshot) -> Iterator[Family]:
    trust = snapshot.trust
    yield _single("daskpki_trust_epoch", "Number of the trust document that holds", trust.epoch)
    if trust.issued_at is not None:
        yield _single("daskpki_trust_issued_at_seconds", "When it was signed", trust.issued_at)
    yield _single("daskpki_revoked_certificates", "Serials on its revocation lists", trust.revoked)
    if trust.next_update is not None:
        yield _single("daskpki_revocation_next_update_seconds", "When the first list ends", trust.next_update)
    lists = [({"generation": ca.generation}, ca.crl_number) for ca in trust.cas if ca.crl_number is not None]
    yield Family("daskpki_revocation_list_number", "gauge", "CRLNumber of each CA's list", lists)
    ends = [({"generation": ca.generation, "state": ca.state}, ca.not_after) for ca in trust.cas]
    yield Family("daskpki_ca_not_after_seconds", "gauge", "End of each CA's certificate", ends)


def _single(name: str, meaning: str, value: float) -> Family:
    return Family(name, "gauge", meaning, [(_NO_LABELS, value)])


def _by_role(name: str, meaning: str, values: Mapping[str, int]) -> Family:
    return Family(name, "gauge", meaning, [({"role": role}, value) for role, value in sorted(values.items())])


def _written(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.meaning}\n# TYPE {family.name} {family.kind}\n"
    for labels, value in family.samples:
        inside = ",".join(f'{name}="{_escaped(str(text))}"' for name, text in labels.items())
        yield f"{family.name}{f'{{{inside}}}' if inside else ''} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
