"""A credential from a store: the payload of its secret, the newest trust document, and the revocation list's pieces."""

from __future__ import annotations

from datetime import datetime

from daskpki import naming
from daskpki.credentials.held import Held, Pins, verify_held
from daskpki.errors import CorruptError, NotFoundError
from daskpki.identity import Role
from daskpki.pki.credential import Credential, parse_credential
from daskpki.pki.trust_document import TrustDocument
from daskpki.store.port import SecretStore
from daskpki.store.trust import TrustPayload, trust_chain


def fetch_credential(secrets: SecretStore, cluster: str, role: Role, name: str, *, pins: Pins, now: datetime) -> Held:
    """Read and verify one credential by `access` only; NotFoundError names the command that issues it."""
    trust = fetch_trust(secrets, cluster)
    credential = _fetch_payload(secrets, cluster, role, name)
    pieces = fetch_pieces(secrets, cluster, trust.signed.document)
    return verify_held(credential, trust.data, pieces, pins=pins, now=now)


def _fetch_payload(secrets: SecretStore, cluster: str, role: Role, name: str) -> Credential:
    try:
        payload = secrets.latest(naming.credential_id(cluster, role, name)).data
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


def fetch_pieces(secrets: SecretStore, cluster: str, document: TrustDocument) -> dict[int, bytes]:
    """The pieces of the revocation list that do not stand in the document itself, by version number."""
    versions = [piece.version for part in document.crls for piece in part.pieces]
    return {version: secrets.access(naming.revoked_id(cluster), version).reveal() for version in versions}
