"""Handover from the boot to the process that it becomes: one JSON document without secrets.

It is in a memfd (or on tmpfs), and the environment variable DASKPKI_HANDOVER has its path. It names keys by their paths
only. Standard library only, for the boot path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from daskpki.errors import CorruptError, NotTrustedError

VARIABLE: Final = "DASKPKI_HANDOVER"
FORMAT: Final = 1
STOCK, SEALED = "stock", "sealed"
"""The values of `scheduler_code`; a sealed scheduler never opens pickles of clients."""
_PARTS: Final = ("secrets", "freshness")
_WHAT: Final = "the handover from daskpki-entrypoint"


class Freshness(NamedTuple):
    """Limits on the age of a running node's trust document and connections; all but the first in seconds.

    `stale_trust` (refuse or allow) decides about new peers after the revocation list has expired. A node polls every
    `poll`, warns if the last fetch is older than `fetch_age`, and lets connections outlive their peer's certificate by
    `grace`.
    """

    stale_trust: str = "refuse"
    poll: int = 60
    fetch_age: int = 86_400
    grace: int = 86_400


USUAL: Final = Freshness()


class Handover(NamedTuple):
    """Facts about its boot that a Dask process (its preload, its security-loader) needs.

    `cert` (leaf and intermediates, PEM), `key` (PKCS#8, PEM), `ca` (the trust anchors, PEM) and `trust` (the signed
    trust document as the store keeps it) are paths. `store` is a URL, or None when the credential came from
    `directory`, a path. If it came from `file`, the store is read only for a trust document that is not beside the
    file. `endpoint` is another Secret Manager than Google's. `secrets` are the paths of the cluster's other secrets
    that were mounted, by name. `pinned` is the version of the credential that --version named; such a node keeps it.
    `tls_min` is "1.3" or "1.2", `worker_clients` one of deny, limited and allow, `dashboard` one of loopback, mtls and
    off. `health` is the ADDRESS:PORT of the health server, `metrics` whether it serves them ("yes" or "no").
    `scheduler_code` is stock or sealed; `helper_limits` and `helper_user` apply to the helpers of a sealed scheduler.
    `retire` is the time in seconds in which a worker that is asked to end may hand its data to others. `command` is
    the entrypoint's: scheduler, worker, node or exec.
    """

    cluster: str
    trust_domain: str
    role: str
    name: str
    cert: str
    key: str
    ca: str
    trust: str
    worker_clients: str
    dashboard: str
    tls_min: str
    store: str | None = None
    directory: str | None = None
    file: str | None = None
    endpoint: str | None = None
    scheduler: str | None = None
    secrets: Mapping[str, str] = {}
    pinned: str | None = None
    freshness: Freshness = USUAL
    health: str | None = None
    metrics: str | None = None
    scheduler_code: str | None = None
    helper_limits: str | None = None
    helper_user: str | None = None
    retire: str | None = None
    command: str | None = None


def encode_handover(handover: Handover) -> bytes:
    """Encode the document to write."""
    fields = handover._asdict() | {"freshness": handover.freshness._asdict()}
    return json.dumps({"format": FORMAT} | fields).encode()


def parse_handover(data: bytes) -> Handover:
    """Parse a document; CorruptError for other bytes, NotTrustedError for another format."""
    try:
        document: Any = json.loads(data)
        number = document.pop("format")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise CorruptError(f"{_WHAT} is not the JSON document that was written") from None
    if number != FORMAT:
        raise NotTrustedError(f"{_WHAT} has format {number}, and this daskpki reads {FORMAT}")
    return _checked(document)


def load_handover(path: str) -> Handover:
    """Load the handover at the path in DASKPKI_HANDOVER; CorruptError if it cannot be read."""
    return parse_handover(read_handed_down(path, f"{_WHAT} (DASKPKI_HANDOVER)"))


def read_handed_down(path: str, what: str) -> bytes:
    """Read a file that the entrypoint made for the process that it became; CorruptError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CorruptError(
            f"{what} cannot be read: {error.strerror}",
            hint="daskpki-entrypoint makes it as it starts a process; start this one through that again",
        ) from None


def _checked(document: dict[str, Any]) -> Handover:
    """Check the type of each field; unknown ones are an error, since both sides are one installation."""
    secrets, freshness = document.pop("secrets", None), document.pop("freshness", None)
    optional = {name: document.pop(name, None) for name in Handover._field_defaults if name not in _PARTS}
    if not isinstance(secrets, dict) or not isinstance(freshness, dict):
        raise _wrong_type()
    stale_trust, *seconds = (freshness.get(name) for name in Freshness._fields)
    given = [value for value in optional.values() if value is not None]
    texts = [stale_trust, *document.values(), *secrets.values(), *given]
    if not all(isinstance(text, str) for text in texts) or not all(type(each) is int for each in seconds):
        raise _wrong_type()
    try:
        return Handover(**document, **optional, secrets=secrets, freshness=Freshness(**freshness))
    except TypeError:
        raise CorruptError(f"{_WHAT} has other fields than were written") from None


def _wrong_type() -> CorruptError:
    return CorruptError(f"{_WHAT} has a field of another type than was written")
