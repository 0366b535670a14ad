"""A little content for a store, to be found again."""

from __future__ import annotations

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.records import ISSUED, RESERVED, Draft
from daskpki.store.local.store import LocalStore
from daskpki.store.testing.backing import STAMP

SAMPLE = Confidential(b"the sample's payload, which is nobody's business")
SECRET = "daskpki_c_worker_w-0"


def add_sample(store: LocalStore) -> str:
    """One leaf: its secret with one version, and its two records."""
    store.secrets.create(SECRET, labels=secret_names.labels("c", "worker", "w-0"))
    number = store.secrets.add(SECRET, SAMPLE)
    body = {"serial": "a1", "role": "worker", "name": "w-0", "issuer": 1, "not_before": 1, "not_after": 9}
    store.log("c").commit(lambda _: [Draft(RESERVED, body)], STAMP)
    confirmation = Draft(ISSUED, {"serial": "a1", "fingerprint": "f" * 64, "version": number})
    store.log("c").commit(lambda _: [confirmation], STAMP)
    return SECRET


def read_sample(store: LocalStore) -> bool:
    """Whether all of it is there."""
    entry = store.log("c").inventory().current("worker", "w-0")
    return entry is not None and entry.version == 1 and store.secrets.access(SECRET, 1) == SAMPLE
