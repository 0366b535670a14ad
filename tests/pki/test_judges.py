"""Validators that others wrote accept all that is issued, for its purposes and no other, up to its last second."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import product

import pytest
from cryptography import x509
from hypothesis import given, settings

from daskpki.authority.session import random_serial
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from daskpki.pki.certificates import der, seconds
from daskpki.pki.crl import REASONS, Revocation, check_fresh, crl_part, sign_crl
from daskpki.pki.issuer import Issuer, create_offline_root
from daskpki.pki.keys import KeyType
from daskpki.pki.profile import HOUR, ROOT_CRL_LIFETIME, LeafRequest
from daskpki.pki.verify import verify_leaf
from tests.support.judges import lint_certificate, lint_crl, lint_pair, openssl_verify
from tests.support.nightly import by_day
from tests.support.pki_material import CA_KINDS, NOW, TD, World, authority, identity, key, leaf, worlds
from tests.support.trust_documents import document


def path(issuer: Issuer) -> list[bytes]:
    """The issuer's certificates, leaf's issuer first, the root last."""
    return [*map(der, issuer.chain), der(issuer.root)]


def judge(certificate: x509.Certificate, issuer: Issuer, role: Role) -> None:
    """Every judge of a leaf at once; a client's may not serve."""
    *chain, root = path(issuer)
    assert lint_certificate(der(certificate)) == []
    assert lint_pair(path(issuer)[0], der(certificate)) == []
    assert openssl_verify(der(certificate), chain, root, purpose="sslclient", at=NOW) == ""
    served = openssl_verify(der(certificate), chain, root, purpose="sslserver", at=NOW)
    assert ("unsuitable certificate purpose" in served) if role is Role.CLIENT else served == ""


@pytest.mark.parametrize(("tiers", "kind", "role"), list(product((1, 2), KeyType, Role)))
def test_every_kind_of_leaf(tiers: int, kind: KeyType, role: Role) -> None:
    issuer = authority(tiers=tiers, kind=kind if kind in CA_KINDS else KeyType.P256)
    judge(leaf(issuer, LeafRequest(identity(role, "alice")), kind=kind), issuer, role)


@pytest.mark.parametrize(("tiers", "kind"), list(product((1, 2), CA_KINDS)))
def test_every_kind_of_ca(tiers: int, kind: KeyType) -> None:
    certificates = path(authority(tiers=tiers, kind=kind))
    assert [lint_certificate(entry) for entry in certificates] == [[]] * tiers
    assert lint_pair(certificates[-1], certificates[0]) == []


def test_the_linter_finds_what_is_wrong() -> None:
    """The control: two CAs of the same name, of which one did not sign."""
    one, other = authority(), authority(generation=2)
    assert lint_pair(der(other.certificate), der(leaf(one))) != []
    assert openssl_verify(der(leaf(one)), [], der(other.root), purpose="sslclient", at=NOW) != ""


@settings(max_examples=by_day(60, night=150), deadline=None)
@given(world=worlds())
def test_whatever_the_policy_allows_passes_pkilint(world: World) -> None:
    issuer = authority(policy=world.policy)
    certificate = leaf(issuer, world.request, policy=world.policy)
    assert lint_certificate(der(certificate)) == []
    assert lint_certificate(der(issuer.certificate)) == []


@settings(max_examples=by_day(40, night=100), deadline=None)
@given(world=worlds())
def test_whatever_the_policy_allows_passes_openssl(world: World) -> None:
    issuer = authority(policy=world.policy, tiers=2)
    certificate = leaf(issuer, world.request, policy=world.policy)
    *chain, root = path(issuer)
    purpose = "sslclient" if world.request.identity.role is Role.CLIENT else "sslserver"
    assert openssl_verify(der(certificate), chain, root, purpose=purpose, at=NOW) == ""


@pytest.mark.parametrize(
    ("tiers", "kind"),
    list(product((1, 2), KeyType)),
)
def test_the_edges_of_validity_are_openssls(tiers: int, kind: KeyType) -> None:
    """RFC 5280, 4.1.2.5: both ends are inclusive; OpenSSL 3.0 counts the last second as past (X509_cmp_time(3))."""
    issuer = authority(tiers=tiers)
    *chain, root = path(issuer)
    certificate = leaf(issuer, LeafRequest(identity(), ttl=HOUR), kind=kind)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    assert (NOW - start, end - NOW) == (timedelta(minutes=5), timedelta(hours=1, seconds=-1))
    edges = {start - SECOND: False, start: True, end - SECOND: True, end: True, end + SECOND: False}
    assert {moment: accepts(certificate, issuer, moment) for moment in edges} == edges
    judged = [openssl_verify(der(certificate), chain, root, purpose="sslclient", at=moment) for moment in edges]
    assert [verdict == "" for verdict in judged] == [False, True, True, False, False]
    assert "not yet valid" in judged[0]
    assert "expired" in judged[-1]


SECOND = timedelta(seconds=1)


def accepts(certificate: x509.Certificate, issuer: Issuer, now: datetime) -> bool:
    """Whether we accept the leaf at that time."""
    *chain, root = path(issuer)
    try:
        verify_leaf(der(certificate), chain, [root], now=now, trust_domain=TD)
    except NotTrustedError:
        return False
    return True


@pytest.mark.parametrize(("tiers", "kind", "count"), list(product((1, 2), CA_KINDS, (0, 1, 12))))
def test_every_kind_of_crl(tiers: int, kind: KeyType, count: int) -> None:
    issuer = authority(tiers=tiers, kind=kind)
    reasons = [REASONS[index % len(REASONS)] for index in range(count)]
    revoked = [Revocation(random_serial(), seconds(NOW) - index, reason) for index, reason in enumerate(reasons)]
    assert lint_crl(sign_crl(issuer, revoked, number=7, now=NOW)) == []


@pytest.mark.parametrize("tiers", [1, 2])
def test_the_edges_of_a_crl_are_openssls(tiers: int) -> None:
    """Here nextUpdate is inclusive, which does not hold for OpenSSL; thisUpdate is the trust document's own affair."""
    issuer = authority(tiers=tiers)
    *chain, root = path(issuer)
    certificate = leaf(issuer)
    crl = sign_crl(issuer, [], number=1, now=NOW, lifetime=HOUR)
    start, end = NOW, NOW + timedelta(seconds=HOUR)
    edges = {start - SECOND: True, start: True, end - SECOND: True, end: True, end + SECOND: False}
    assert {moment: is_fresh(crl, moment) for moment in edges} == edges
    judged = [
        openssl_verify(der(certificate), chain, root, purpose="sslclient", crl=crl, at=moment) for moment in edges
    ]
    assert [verdict == "" for verdict in judged] == [False, True, True, False, False]
    assert "CRL is not yet valid" in judged[0]
    assert "CRL has expired" in judged[-1]


def is_fresh(crl: bytes, now: datetime) -> bool:
    """Whether a node that starts at that time takes a trust document with this CRL."""
    try:
        check_fresh(document()._replace(crls=(crl_part(1, crl),)), now)
    except NotTrustedError:
        return False
    return True


def test_the_crl_of_an_offline_root() -> None:
    root = create_offline_root("default", key(), generation=1, serial=random_serial(), now=NOW)
    assert lint_crl(sign_crl(root, [], number=1, now=NOW, lifetime=ROOT_CRL_LIFETIME)) == []


@pytest.mark.parametrize("tiers", [1, 2])
def test_openssl_refuses_whom_the_crl_names(tiers: int) -> None:
    issuer = authority(tiers=tiers)
    *chain, root = path(issuer)
    good, bad = leaf(issuer), leaf(issuer)
    crl = sign_crl(issuer, [Revocation(bad.serial_number, seconds(NOW))], number=1, now=NOW)
    assert openssl_verify(der(good), chain, root, purpose="sslclient", crl=crl, at=NOW) == ""
    verdict = openssl_verify(der(bad), chain, root, purpose="sslclient", crl=crl, at=NOW)
    assert "certificate revoked" in verdict
