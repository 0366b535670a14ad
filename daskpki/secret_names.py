"""Names of a cluster's secrets: `daskpki_CLUSTER_KIND[_NAME]`, and the labels that mark them as ours.

Labels and names have no `_`, so ids are unambiguous, and one IAM condition by prefix can cover a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daskpki.identity import Role

FORMAT: Final = "1"
TRUST: Final = "trust"
RECORDS: Final = "records"
EVENTS: Final = "events"
CA_KEY: Final = "cakey"
SECRET: Final = "secret"


def trust_id(cluster: str) -> str:
    """The secret of the signed trust document, which every node and person reads."""
    return f"daskpki_{cluster}_{TRUST}"


def records_id(cluster: str) -> str:
    """The secret of the append-only log, for stores that have no table for it."""
    return f"daskpki_{cluster}_{RECORDS}"


def events_id(cluster: str) -> str:
    """The secret of the log of what was done to the cluster's other secrets."""
    return f"daskpki_{cluster}_{EVENTS}"


def ca_key_id(cluster: str, generation: int) -> str:
    """The secret of one CA generation's key."""
    return f"daskpki_{cluster}_{CA_KEY}_{generation}"


def credential_id(cluster: str, role: Role, name: str) -> str:
    """The secret of one leaf: key, certificate and chain."""
    return f"daskpki_{cluster}_{role.value}_{name}"


def user_secret_id(cluster: str, name: str) -> str:
    """One of the cluster's other secrets, raw bytes."""
    return f"daskpki_{cluster}_{SECRET}_{name}"


def labels(cluster: str, kind: str, name: str | None = None) -> dict[str, str]:
    """The ownership labels of a secret of that kind."""
    marks = {
        "managed-by": "daskpki",
        "daskpki-cluster": cluster,
        "daskpki-kind": kind,
        "daskpki-format": FORMAT,
    }
    return marks | ({"daskpki-name": name} if name else {})


def is_ours(labels: Mapping[str, str], cluster: str | None = None) -> bool:
    """True if the labels mark a secret of daskpki (and of that cluster, if one is named)."""
    if labels.get("managed-by") != "daskpki":
        return False
    return cluster is None or labels.get("daskpki-cluster") == cluster
