"""A handover of which every field is set."""

from __future__ import annotations

from daskpki.handover import Freshness, Handover

HANDOVER = Handover(
    cluster="c",
    trust_domain="c.daskpki.internal",
    role="worker",
    name="worker",
    cert="/proc/7/fd/3",
    key="/proc/7/fd/4",
    ca="/proc/7/fd/5",
    trust="/proc/7/fd/6",
    worker_clients="limited",
    dashboard="loopback",
    tls_min="1.3",
    scheduler="tls://10.0.0.2:8786",
    freshness=Freshness(stale_trust="allow", poll=5),
    health="0.0.0.0:8790",
    metrics="yes",
)
