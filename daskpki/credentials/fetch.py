"""Fetches a credential from a store: the payload of its secret, and the newest trust document.

Both count only if they fit what this user's commands have seen of the cluster, unless a CA is pinned.
"""

from __future__ import annotations

from datetime import datetime

from daskpki import secret_names
from daskpki.credentials.verified import Pins, VerifiedCredential, verify_credential
from daskpki.errors import CorruptError, NotFoundError
from daskpki.identity import Role
from daskpki.pki.credential import parse_credential
from daskpki.pki.trust_document import TrustPayload, parse_trust
from daskpki.store.append_chain import ChainHead, trust_chain, verify_no_rival
from daskpki.store.port import Store


def fetch_credential(
    store: Store, cluster: str, role: Role, name: str, *, pins: Pins, now: datetime
) -> VerifiedCredential:
    """Read and verify one credential by `access` only; NotFoundError names the command that issues it."""
    trust = fetch_trust(store, cluster, pins=pins, now=now)
    try:
        payload = store.secrets.latest(secret_names.credential_id(cluster, role, name)).data
    except NotFoundError as error:
        raise NotFoundError(
            f"cluster {cluster!r} has no credential {role.value}/{name}: {error}",
            hint=f"daskpki issue {role.value} --name {name}; daskpki list shows which names there are",
        ) from None
    credential = parse_credential(payload)
    if (credential.cluster, credential.identity.role, credential.identity.name) != (cluster, role, name):
        raise CorruptError(f"the secret of {cluster}, {role.value}/{name} contains {credential.identity.uri}")
    return verify_credential(credential, trust.data, pins=pins.remembering(store.memory.trust(cluster)), now=now)


def fetch_trust(store: Store, cluster: str, *, pins: Pins, now: datetime) -> TrustPayload:
    """The newest trust document that the pins accept; NotFoundError names the command that makes one.

    NotTrustedError, CorruptError if no version is accepted; NotTrustedError, too, where nothing is known beforehand and
    two CAs claim the cluster.
    """
    pins = pins.remembering(store.memory.trust(cluster))

    def counts(found: ChainHead[TrustPayload]) -> bool:
        pins.verify_trust(found.payload.signed, cluster, now)
        return True

    chain = trust_chain(store.secrets, cluster, counts)
    head = chain.head()
    if head is None and chain.foreign:
        payload = store.secrets.access(secret_names.trust_id(cluster), max(chain.foreign))
        return TrustPayload(payload, parse_trust(payload))  # its verification names the fault
    if head is None:
        raise NotFoundError(f"this store has no cluster {cluster!r}", hint=f"daskpki --cluster {cluster} init-ca")
    if not (pins.sha256 or pins.anchors or pins.known or pins.previous):
        verify_no_rival(chain, head)
    return head.payload
