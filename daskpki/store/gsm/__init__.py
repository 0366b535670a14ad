"""The store on Google Secret Manager, through the official client.

    client.py     the only importer of Google's libraries       api.py        requests with their retries
    endpoint.py   address and transport (pure)                  refusals.py   what a refusal means (pure)
    patience.py   when to try again                             placement.py  replication and keys (pure)
    secrets.py    SecretStore                                   log.py        RecordLog, over daskpki.store.linear
    packing.py    the log's payloads (pure)                     state.py      what the log's head carries (pure)
    inventory.py  the inventory, with segments read late        store.py      Store

Roles that an operator needs: secretmanager.admin on the cluster's secrets, by an IAM condition on their prefix.
"""

from __future__ import annotations

from daskpki.store.gsm.patience import Timing
from daskpki.store.gsm.placement import GsmOptions
from daskpki.store.gsm.store import GsmStore, open_gsm

__all__ = ["GsmOptions", "GsmStore", "Timing", "open_gsm"]
