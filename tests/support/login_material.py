"""A cluster's CA, its leaves and its trust document, made by `daskpki.pki` and put into a store as the commands do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from daskpki import secret_names
from daskpki.authority.session import random_serial
from daskpki.confidential import Confidential
from daskpki.credentials.verified import Pins, VerifiedCredential, verify_credential
from daskpki.errors import AlreadyExistsError
from daskpki.identity import Identity, Role, default_trust_domain
from daskpki.pki.certificates import der
from daskpki.pki.credential import Credential, encode_credential
from daskpki.pki.crl import Revocation, crl_part, sign_crl
from daskpki.pki.issuer import Issuer, create_root, issue_leaf
from daskpki.pki.keys import KeyType, generate_key, serialize_key
from daskpki.pki.profile import LeafRequest, make_policy
from daskpki.pki.trust import sign_trust
from daskpki.pki.trust_document import ACTIVE, FORMAT, READER, Anchor, TrustDocument
from daskpki.store.port import SecretStore


class Founded:
    """One cluster with a CA of one tier, held in memory."""

    def __init__(self, cluster: str = "default", *, schedulers: Sequence[str] = ()) -> None:
        self.cluster = cluster
        self.trust_domain = default_trust_domain(cluster)
        self.policy = make_policy(self.trust_domain)
        self.schedulers = tuple(schedulers)
        self.now = datetime.now(UTC)
        key = generate_key(KeyType.P256)
        self.issuer: Issuer = create_root(cluster, self.policy, key, generation=1, serial=random_serial(), now=self.now)
        self.epoch = 0
        self.revoked: list[Revocation] = []

    def issue(self, role: Role, name: str, *, kind: KeyType = KeyType.P256, ttl: int | None = None) -> Credential:
        key = generate_key(kind)
        identity = Identity(self.trust_domain, role, name)
        request = LeafRequest(identity, ttl=ttl)
        serial = random_serial()
        leaf = issue_leaf(self.issuer, request, key.public_key(), serial=serial, now=self.now, policy=self.policy)
        return Credential(self.cluster, identity, serialize_key(key), der(leaf), ())

    def document(self) -> TrustDocument:
        """The trust document of the next epoch, with a new CRL."""
        self.epoch += 1
        crl = sign_crl(self.issuer, self.revoked, number=self.epoch, now=self.now)
        return TrustDocument(
            format=FORMAT,
            min_reader=READER,
            cluster=self.cluster,
            trust_domain=self.trust_domain,
            epoch=self.epoch,
            prev=self.epoch - 1,
            operation=hashlib.sha256(str(self.epoch).encode()).hexdigest()[:32],
            issued_at=int(self.now.timestamp()),
            authorities=(Anchor(1, ACTIVE, der(self.issuer.root)),),
            crls=(crl_part(1, crl),),
            log=(self.epoch, "0" * 64),
            schedulers=self.schedulers,
        )

    def trust(self) -> Confidential:
        return sign_trust(self.document(), [self.issuer])

    def hold(self, credential: Credential) -> VerifiedCredential:
        """A verified credential, as it comes out of a source."""
        return verify_credential(credential, self.trust(), pins=Pins(), now=datetime.now(UTC))

    def publish(self, secrets: SecretStore) -> None:
        """Add the next trust document."""
        add(
            secrets,
            secret_names.trust_id(self.cluster),
            self.trust(),
            secret_names.labels(self.cluster, secret_names.TRUST),
        )

    def store(self, secrets: SecretStore, credential: Credential) -> None:
        """Add a version of a leaf's secret."""
        role, name = credential.identity.role, credential.identity.name
        labels = secret_names.labels(self.cluster, role.value, name)
        add(secrets, secret_names.credential_id(self.cluster, role, name), encode_credential(credential, 1), labels)


def add(secrets: SecretStore, secret: str, payload: Confidential, labels: dict[str, str]) -> None:
    """Add a version, and the secret if need be."""
    try:
        secrets.create(secret, labels=labels)
    except AlreadyExistsError:
        secrets.describe(secret)
    secrets.add(secret, payload)
