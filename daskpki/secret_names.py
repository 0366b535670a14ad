"""Names of a cluster's secrets, `daskpki_CLUSTER_KIND[_NAME]`, the labels that mark them as ours, and their limits.

Names have no `_`, so ids are unambiguous, and one IAM condition by prefix can cover a role. The limits are Secret
Manager's, and every store keeps to them, so that a cluster in a local store can be copied to Secret Manager. Each
refusal is a UsageError that names the value and the rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized
from typing import Final

from daskpki.errors import NotOursError, UsageError
from daskpki.identity import Role

FORMAT: Final = "1"
TRUST: Final = "trust"
RECORDS: Final = "records"
EVENTS: Final = "events"
CA_KEY: Final = "cakey"
SECRET: Final = "secret"

KINDS: Final = frozenset({TRUST, RECORDS, EVENTS, CA_KEY, SECRET, *Role})

MAX_PAYLOAD: Final = 65_536
"""Most bytes of a payload, and so of each document that is one."""
MAX_LABELS: Final = 64
MAX_ANNOTATIONS: Final = 16 * 1024
_SECRET_ID = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}\Z")
_ANNOTATION_KEY = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?\Z")


def trust_id(cluster: str) -> str:
    """The secret of the signed trust document, which every node and person reads."""
    return f"daskpki_{cluster}_{TRUST}"


def records_id(cluster: str) -> str:
    """The secret of the append-only log, for stores that have no table for it."""
    return f"daskpki_{cluster}_{RECORDS}"


def events_id(cluster: str) -> str:
    """The secret of the log of changes to the cluster's user secrets."""
    return f"daskpki_{cluster}_{EVENTS}"


def ca_key_id(cluster: str, generation: int) -> str:
    """The secret of one CA generation's key."""
    return f"daskpki_{cluster}_{CA_KEY}_{generation}"


def credential_id(cluster: str, role: Role, name: str) -> str:
    """The secret of one leaf: key, certificate and chain."""
    return f"daskpki_{cluster}_{role.value}_{name}"


def user_secret_id(cluster: str, name: str) -> str:
    """The secret of one user secret, whose payloads are raw bytes."""
    return f"daskpki_{cluster}_{SECRET}_{name}"


def kind_and_name(cluster: str, secret: str) -> tuple[str, str]:
    """The kind and name in an id, by which readers go; labels can be lost. Empty in an id that is not the cluster's."""
    inner = secret.removeprefix(f"daskpki_{cluster}_")
    kind, _, name = inner.partition("_")
    return (kind, name) if inner != secret else ("", "")


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


def check_ours(secret: str, labels: Mapping[str, str]) -> None:
    """Raise NotOursError unless the labels mark the secret as daskpki's."""
    if not is_ours(labels):
        raise NotOursError(
            f"secret {secret!r} does not carry the label managed-by=daskpki, so it is not touched",
            hint="choose another cluster name, or remove that secret yourself",
        )


def check_secret_id(secret: str) -> None:
    """Raise UsageError unless `secret` is a valid id."""
    if not _SECRET_ID.match(secret):
        raise UsageError(f"secret id {secret!r} is not 1 to 255 of A-Z, a-z, 0-9, '_' and '-'")


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise UsageError for labels that Secret Manager refuses, or that do not mark the secret as daskpki's."""
    if len(labels) > MAX_LABELS:
        raise UsageError(f"{len(labels)} labels are more than {MAX_LABELS}")
    check_label_pairs(labels)
    if not is_ours(labels):
        raise UsageError("the labels lack managed-by=daskpki, so daskpki could never change the secret again")


def check_label_pairs(labels: Mapping[str, str]) -> None:
    """Raise UsageError for keys and values that no label can have, also in a selection."""
    for key, value in labels.items():
        if not _LABEL_KEY.match(key):
            raise UsageError(f"label {key!r} does not begin with a-z, or is not 1 to 63 of a-z, 0-9, '_' and '-'")
        if not _LABEL_VALUE.match(value):
            raise UsageError(f"label {key!r}: {value!r} is not at most 63 of a-z, 0-9, '_' and '-'")


def check_annotations(annotations: Mapping[str, str]) -> None:
    """Raise UsageError for annotations that Secret Manager refuses."""
    for key in annotations:
        if not _ANNOTATION_KEY.match(key):
            rule = "1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit"
            raise UsageError(f"annotation {key!r} is not {rule}")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        raise UsageError(f"annotations of {size} bytes are more than {MAX_ANNOTATIONS}")


def check_payload(payload: Sized) -> None:
    """Raise UsageError for an empty payload and one over 64 KiB."""
    if not payload:
        raise UsageError("the payload is empty, which Secret Manager refuses")
    if len(payload) > MAX_PAYLOAD:
        raise UsageError(f"a payload of {len(payload)} bytes is more than {MAX_PAYLOAD}")
