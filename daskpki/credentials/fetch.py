"""A credential from a store: the payload of its secret, and the newest trust document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from daskpki import secret_names
from daskpki.credentials.verified import Pins, VerifiedCredential, issuing_generation, verify_credential
from daskpki.errors import CorruptError, NotFoundError
from daskpki.identity import Role
from daskpki.pki.certificates import certificate_identity, load_certificate
from daskpki.pki.credential import Credential, parse_credential
from daskpki.pki.verify import verify_identity
from daskpki.store.port import SecretStore
from daskpki.store.trust_chain import TrustPayload, trust_chain


def fetch_credential(
    secrets: SecretStore, cluster: str, role: Role, name: str, *, pins: Pins, now: datetime
) -> VerifiedCredential:
    """Read and verify one credential by `access` only; NotFoundError names the command that issues it."""
    trust = fetch_trust(secrets, cluster)
    credential = _fetch_payload(secrets, cluster, role, name)
    return verify_credential(credential, trust.data, pins=pins, now=now)


def hold_certificate(
    secrets: SecretStore, cluster: str, name: str, certificate: Sequence[bytes], *, pins: Pins, now: datetime
) -> VerifiedCredential:
    """The credential client/NAME, without a key, of a certificate (DER, leaf first) that somebody handed over.

    NotTrustedError unless the cluster's trust document, which is read from the store, vouches for it.
    """
    leaf, *chain = certificate
    identity = certificate_identity(load_certificate(leaf))
    trust = fetch_trust(secrets, cluster)
    document = trust.signed.document
    verify_identity(identity, trust_domain=document.trust_domain, role=Role.CLIENT, name=name)
    generation = issuing_generation(leaf, chain, document, now)
    credential = Credential(cluster, identity, generation, None, leaf, tuple(chain))
    return verify_credential(credential, trust.data, pins=pins, now=now)


def _fetch_payload(secrets: SecretStore, cluster: str, role: Role, name: str) -> Credential:
    try:
        payload = secrets.latest(secret_names.credential_id(cluster, role, name)).data
    except NotFoundError as error:
        raise NotFoundError(
            f"cluster {cluster!r} has no credential {role.value}/{name}: {error}",
            hint=f"daskpki issue {role.value} --name {name}; daskpki list shows which names there are",
        ) from None
    credential = parse_credential(payload)
    if (credential.cluster, credential.identity.role, credential.identity.name) != (cluster, role, name):
        raise CorruptError(f"the secret of {cluster}, {role.value}/{name} holds {credential.identity.uri}")
    return credential


def fetch_trust(secrets: SecretStore, cluster: str) -> TrustPayload:
    """The newest trust document, not yet verified; NotFoundError names the command that makes one."""
    head = trust_chain(secrets, cluster).head()
    if head is None:
        raise NotFoundError(f"this store has no cluster {cluster!r}", hint=f"daskpki --cluster {cluster} init-ca")
    return head.payload
