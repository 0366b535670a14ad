"""What must hold of a rollover: on the way for the nodes that run, and once its step is done for everybody."""

from __future__ import annotations

from datetime import datetime

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.rollover import IDLE
from daskpki.pki.trust import verify_trust
from daskpki.pki.trust_document import TrustDocument
from daskpki.store.append_chain import trust_chain
from daskpki.store.port import Store
from tests.support.crash_cases import Ending


def followed(store: Store, cluster: str, previous: TrustDocument | None, now: datetime) -> TrustDocument | None:
    """What a node that trusts `previous` makes of the newest document; raises when it does not follow from that."""
    head = trust_chain(store.secrets, cluster).head()
    if head is None:
        assert previous is None, "the trust document is gone"
        return None
    return verify_trust(head.payload.signed, previous=previous, now=now)


def check_ended(authority: CertificateAuthority, ending: Ending) -> None:
    """The step is done to its end, and was taken by the CA that it should be."""
    now = authority.rollover().status()
    assert (now.published, now.reissue, now.by_request) == (True, (), ())
    assert now.phase == ending.phase
    assert len(now.others) == (0 if ending.phase == IDLE else 1)
    issuing = now.active.generation
    assert issuing > 1 if ending.issuing is None else issuing == ending.issuing
    _check_keys(authority, {entry.generation for entry in now.living})


def _check_keys(authority: CertificateAuthority, trusted: set[int]) -> None:
    """No key outlives its CA; one that never got a certificate may be left."""
    store, cluster = authority.session.store, authority.session.cluster
    kept = {info.id for info in store.secrets.select({"daskpki-cluster": cluster, "daskpki-kind": secret_names.CA_KEY})}
    certified = {
        secret_names.ca_key_id(cluster, entry.generation)
        for entry in authority.inventory().authorities()
        if entry.certificate
    }
    assert kept & certified == {secret_names.ca_key_id(cluster, generation) for generation in trusted}
