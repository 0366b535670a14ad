"""Grades: an extended key usage beside clientAuth, for clients alone, from the operator or the record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from daskpki.cluster.peer import parse_peer
from daskpki.errors import PolicyError
from daskpki.identity import Identity, Role, default_trust_domain
from daskpki.pki.certificates import certificate_grades, der
from daskpki.pki.issuer import Issuer, create_root, issue_leaf
from daskpki.pki.keys import KeyType, generate_key
from daskpki.pki.profile import GRADE_OIDS, Grade, LeafRequest, make_policy

NOW = datetime.now(UTC)
LIFE = NOW.replace(tzinfo=None), NOW.replace(tzinfo=None) + timedelta(days=1)
DOMAIN = default_trust_domain("lab")
POLICY = make_policy(DOMAIN)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return create_root("lab", POLICY, generate_key(KeyType.P256), generation=1, serial=1, now=NOW)


def leaf(issuer: Issuer, role: Role, *grades: Grade) -> x509.Certificate:
    request = LeafRequest(Identity(DOMAIN, role, "ops"), grades=grades)
    key = generate_key(KeyType.P256).public_key()
    return issue_leaf(issuer, request, key, serial=2, now=NOW, policy=POLICY)


def test_an_admins_certificate_says_so_beside_client_auth(issuer: Issuer) -> None:
    certificate = leaf(issuer, Role.CLIENT, Grade.ADMIN)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH, x509.ObjectIdentifier(GRADE_OIDS[Grade.ADMIN])]
    assert parse_peer(der(certificate)).grades == {Grade.ADMIN}


def test_nobody_else_has_a_grade(issuer: Issuer) -> None:
    assert [parse_peer(der(leaf(issuer, role))).grades for role in Role] == [frozenset()] * len(Role)


@pytest.mark.parametrize("role", [Role.WORKER, Role.SCHEDULER])
def test_a_node_gets_none(role: Role, issuer: Issuer) -> None:
    with pytest.raises(PolicyError, match="asks for grade admin, which clients alone have"):
        leaf(issuer, role, Grade.ADMIN)


def test_an_unknown_grade_is_none(issuer: Issuer) -> None:
    key = generate_key(KeyType.P256)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, x509.ObjectIdentifier("2.25.1")]
    model = leaf(issuer, Role.CLIENT)
    builder = x509.CertificateBuilder(model.issuer, model.subject, key.public_key(), 3, *LIFE)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    certificate = builder.sign(issuer.key, hashes.SHA256())
    assert certificate_grades(certificate) == frozenset()
