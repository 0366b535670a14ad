"""Whose leaf it is: every way in which a certificate may fail to be what it has to be, beside one that is."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from daskpki.authority.session import random_serial
from daskpki.errors import NotTrustedError
from daskpki.identity import Identity, Role
from daskpki.pki import issuer as issuing
from daskpki.pki.certificates import certificate_identity, der, lifetime
from daskpki.pki.issuer import Issuer, create_offline_root, open_issuer
from daskpki.pki.keys import KeyType
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import DAY, LeafRequest, Lifetime, leaf_names, make_policy
from daskpki.pki.verify import PathVerifier, check_ca, check_issued, check_leaf, parent_of, verify_leaf
from tests.support.pki_material import NOW, POLICY, TD, authority, identity, key, leaf

BY_PYCA_AND_BY_HAND = pytest.mark.parametrize("kind", [KeyType.P256, KeyType.ED25519])


def verify(
    certificate: x509.Certificate, issuer: Issuer, role: Role | None = None, name: str | None = None
) -> Identity:
    chain = list(map(der, issuer.chain))
    return verify_leaf(der(certificate), chain, [der(issuer.root)], now=NOW, trust_domain=TD, role=role, name=name)


def sign(
    issuer: Issuer,
    entries: tuple[issuing.Entry, ...],
    period: Lifetime | None = None,
    kind: KeyType = KeyType.P256,
) -> x509.Certificate:
    """Whatever one likes, signed by the CA's own key: what a faulty or malicious issuer would make."""
    subject = issuing.leaf_subject("default", identity())
    wanted = period or lifetime(leaf(issuer))
    template = issuing.Template(subject, key(kind).public_key(), random_serial(), wanted, entries)
    return issuing.sign_template(template, issuer.certificate.subject, issuer.key, issuer.key_identifier)


def extensions(
    who: Identity | None = None, *, names: list[x509.GeneralName] | None = None, purposes: bool = True
) -> tuple[issuing.Entry, ...]:
    """Those of a worker's leaf, with other names or without purposes."""
    own = who or identity()
    entries = list(issuing.leaf_extensions(LeafRequest(own), KeyType.P256))
    if names is not None:
        entries[3] = (x509.SubjectAlternativeName(names), False)
    return tuple(entry for index, entry in enumerate(entries) if purposes or index != 2)


@pytest.mark.parametrize("tiers", [1, 2])
@pytest.mark.parametrize("kind", KeyType)
@pytest.mark.parametrize("role", Role)
def test_a_good_leaf_is_whose_it_says(tiers: int, kind: KeyType, role: Role) -> None:
    issuer, who = authority(tiers=tiers, kind=kind), identity(role)
    assert verify(leaf(issuer, LeafRequest(who), kind=kind), issuer, role, who.name) == who


@pytest.mark.parametrize(
    ("role", "name", "rule"),
    [(Role.SCHEDULER, None, "a worker, where a scheduler is expected"), (None, "w-2", "named w-1, where w-2")],
)
def test_another_role_or_name_is_refused(role: Role | None, name: str | None, rule: str) -> None:
    issuer = authority()
    certificate = leaf(issuer)
    assert verify(certificate, issuer, Role.WORKER, "w-1")
    with pytest.raises(NotTrustedError, match=rule):
        verify(certificate, issuer, role, name)


def test_another_trust_domain_is_refused() -> None:
    policy = make_policy("prod.daskpki.internal")
    issuer = authority(policy=policy)
    certificate = leaf(issuer, LeafRequest(identity(trust_domain=policy.trust_domain)), policy=policy)
    with pytest.raises(NotTrustedError, match="another trust domain than default"):
        verify(certificate, issuer)


@BY_PYCA_AND_BY_HAND
@pytest.mark.parametrize("tiers", [1, 2])
def test_another_ca_is_refused(kind: KeyType, tiers: int) -> None:
    """Also one of the same names and serials, that differs in its key alone."""
    issuer, other = authority(tiers=tiers, kind=kind), authority(tiers=tiers, kind=kind, generation=2)
    roots = [der(other.root)]
    with pytest.raises(NotTrustedError, match="does not lead to the cluster's CA"):
        verify_leaf(der(leaf(issuer, kind=kind)), list(map(der, issuer.chain)), roots, now=NOW, trust_domain=TD)
    both = [*roots, der(issuer.root)]
    verify_leaf(der(leaf(issuer, kind=kind)), list(map(der, issuer.chain)), both, now=NOW, trust_domain=TD)


@BY_PYCA_AND_BY_HAND
def test_without_its_intermediate_a_leaf_leads_nowhere(kind: KeyType) -> None:
    issuer = authority(tiers=2, kind=kind)
    with pytest.raises(NotTrustedError, match="does not lead"):
        verify_leaf(der(leaf(issuer)), [], [der(issuer.root)], now=NOW, trust_domain=TD)


def test_without_a_ca_nothing_is_trusted() -> None:
    with pytest.raises(NotTrustedError, match="no CA"):
        verify_leaf(der(leaf(authority())), [], [], now=NOW, trust_domain=TD)


@BY_PYCA_AND_BY_HAND
def test_a_broken_signature_is_refused(kind: KeyType) -> None:
    issuer = authority(kind=kind)
    changed = bytearray(der(leaf(issuer, kind=kind)))
    changed[-5] ^= 1
    with pytest.raises(NotTrustedError, match="does not lead"):
        verify_leaf(bytes(changed), [], [der(issuer.root)], now=NOW, trust_domain=TD)


@BY_PYCA_AND_BY_HAND
@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ([], "0 URI names"),
        ([x509.UniformResourceIdentifier(identity().uri), x509.UniformResourceIdentifier("https://x.org")], "2 URI"),
        ([x509.UniformResourceIdentifier("https://x.example")], "not an identity"),
        ([x509.UniformResourceIdentifier(f"spiffe://{TD}/admin/alice")], "'admin' is not a role"),
        ([x509.UniformResourceIdentifier(f"spiffe://{TD}/client/Alice")], "DNS label"),
    ],
)
def test_an_identity_is_exactly_one_uri(kind: KeyType, names: list[x509.GeneralName], rule: str) -> None:
    issuer = authority(kind=kind)
    own = [x509.DNSName(identity().dns)]
    with pytest.raises(NotTrustedError, match=rule):
        verify(sign(issuer, extensions(names=[*own, *names]), kind=kind), issuer)


@BY_PYCA_AND_BY_HAND
def test_names_outside_the_constraints_are_refused(kind: KeyType) -> None:
    issuer = authority(kind=kind)
    uri = x509.UniformResourceIdentifier(identity().uri)
    inside = sign(issuer, extensions(names=[x509.DNSName("a.example.org"), uri]), kind=kind)
    outside = sign(issuer, extensions(names=[x509.DNSName("a.other.example"), uri]), kind=kind)
    verify(inside, issuer)
    with pytest.raises(NotTrustedError):
        verify(outside, issuer)


@BY_PYCA_AND_BY_HAND
def test_a_leaf_without_its_purpose_is_refused(kind: KeyType) -> None:
    issuer = authority(kind=kind)
    with pytest.raises(NotTrustedError, match="clientAuth"):
        verify(sign(issuer, extensions(purposes=False), kind=kind), issuer)


@BY_PYCA_AND_BY_HAND
def test_a_ca_is_no_leaf(kind: KeyType) -> None:
    issuer = authority(tiers=2, kind=kind)
    with pytest.raises(NotTrustedError):
        verify(issuer.certificate, issuer)


@BY_PYCA_AND_BY_HAND
def test_a_leaf_is_no_ca(kind: KeyType) -> None:
    """A worker that signs with its own key does not make a scheduler of itself."""
    issuer = authority(kind=kind)
    worker = leaf(issuer, kind=kind)
    thief = Issuer(worker, key(kind), generation=1, root=issuer.root, chain=[worker])
    forged = sign(thief, extensions(identity(Role.SCHEDULER)), lifetime(worker), kind)
    with pytest.raises(NotTrustedError):
        verify(forged, thief)
    with pytest.raises(NotTrustedError, match="not a CA"):
        check_issued(forged, worker)


@BY_PYCA_AND_BY_HAND
def test_a_second_ca_below_an_issuing_one_is_refused(kind: KeyType) -> None:
    """PathLen 0."""
    issuer = authority(kind=kind)
    below = sign(issuer, issuing.intermediate_extensions(POLICY.permitted_dns), issuer.lifetime, kind)
    thief = Issuer(below, key(kind), generation=1, root=issuer.root, chain=[below])
    with pytest.raises(NotTrustedError):
        verify(sign(thief, extensions(), kind=kind), thief)


@BY_PYCA_AND_BY_HAND
@pytest.mark.parametrize("tiers", [1, 2])
def test_an_issuer_that_ended_vouches_for_nothing(kind: KeyType, tiers: int) -> None:
    issuer = authority(tiers=tiers, kind=kind)
    late = Lifetime(issuer.lifetime.not_before, issuer.lifetime.not_after + 10 * DAY)
    certificate = sign(issuer, extensions(), late, kind)
    after = issuer.certificate.not_valid_after_utc + timedelta(seconds=1)
    verifier = PathVerifier([issuer.root], issuer.chain)
    verifier.verify(certificate, NOW)
    with pytest.raises(NotTrustedError):
        verifier.verify(certificate, after)


def test_dates_are_named_with_the_clock() -> None:
    issuer = authority()
    certificate = leaf(issuer)
    with pytest.raises(NotTrustedError, match=r"not valid before 2026-11-23T11:55:00Z, and it is 2026-11-23T11:54:59Z"):
        issuer.verifier.verify(certificate, NOW - timedelta(seconds=301))
    with pytest.raises(NotTrustedError, match=r"expired at 2026-12-23T11:59:59Z, and it is 2026-12-23T12:00:00Z"):
        issuer.verifier.verify(certificate, NOW + timedelta(days=30))


@pytest.mark.parametrize("role", Role)
def test_pycas_two_modes_agree_with_ours(role: Role) -> None:
    """The premise of verifying once: client mode accepts every leaf, server mode all but a client's."""
    issuer = authority()
    certificate = leaf(issuer, LeafRequest(identity(role)))
    builder = PolicyBuilder().store(Store([issuer.root])).time(NOW)
    assert builder.build_client_verifier().verify(certificate, []).chain == [certificate, issuer.root]
    server = builder.build_server_verifier(x509.DNSName(identity(role).dns))
    if role is not Role.CLIENT:
        assert server.verify(certificate, []) == [certificate, issuer.root]
        return
    with pytest.raises(VerificationError):
        server.verify(certificate, [])


def test_pyca_refuses_an_ed25519_ca_and_no_ed25519_leaf_as_it_is_said() -> None:
    issuer = authority(kind=KeyType.ED25519)
    builder = PolicyBuilder().store(Store([issuer.root])).time(NOW)
    with pytest.raises(VerificationError, match="Forbidden public key algorithm"):
        builder.build_client_verifier().verify(leaf(issuer), [])
    issuer = authority()
    certificate = leaf(issuer, kind=KeyType.ED25519)
    builder = PolicyBuilder().store(Store([issuer.root])).time(NOW)
    assert builder.build_client_verifier().verify(certificate, []).chain == [certificate, issuer.root]
    PathVerifier([issuer.root]).verify(certificate, NOW)


@pytest.mark.parametrize(
    ("index", "entry", "rule"),
    [
        (0, (x509.BasicConstraints(ca=True, path_length=None), True), "CA:FALSE"),
        (0, (x509.BasicConstraints(ca=False, path_length=None), False), "BasicConstraints, critical"),
        (1, (issuing.key_usage(signature=True, encipherment=True), True), "its role's keyUsage"),
        (1, (issuing.key_usage(signature=True, certificates=True), True), "no other keyUsage"),
        (2, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False), "its role's EKU"),
        (3, (x509.SubjectAlternativeName([x509.DNSName(identity().dns)]), False), "the names asked for"),
        (4, (x509.OCSPNoCheck(), False), "the profile's extensions"),
    ],
)
def test_what_was_signed_is_held_against_its_profile(index: int, entry: issuing.Entry, rule: str) -> None:
    issuer = authority()
    entries = list(extensions())
    check_leaf(sign(issuer, tuple(entries)), LeafRequest(identity()), parent_of(issuer.certificate))
    changed = (*entries[:index], entry, *entries[index + 1 :])
    with pytest.raises(NotTrustedError, match=rule):
        check_leaf(sign(issuer, changed), LeafRequest(identity()), parent_of(issuer.certificate))


@BY_PYCA_AND_BY_HAND
@pytest.mark.parametrize(("certificates", "lists"), [(True, False), (False, True)])
def test_a_leaf_signs_neither_certificates_nor_revocation_lists(
    kind: KeyType, *, certificates: bool, lists: bool
) -> None:
    """X509-SVID, 5.2: with CA:FALSE, too."""
    usage = x509.KeyUsage(True, False, False, False, False, certificates, lists, False, False)
    entries = [(usage, True) if isinstance(entry[0], x509.KeyUsage) else entry for entry in extensions()]
    issuer = authority(kind=kind)
    with pytest.raises(NotTrustedError, match="may sign others or revocation lists"):
        verify(sign(issuer, tuple(entries)), issuer)


@BY_PYCA_AND_BY_HAND
def test_an_unknown_extension_counts_when_it_is_critical(kind: KeyType) -> None:
    issuer = authority(kind=kind)
    for critical in (False, True):
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        certificate = sign(issuer, (*extensions(), (unknown, critical)))
        with pytest.raises(NotTrustedError, match="critical") if critical else nullcontext():
            verify(certificate, issuer)


def test_a_leaf_that_was_signed_for_another_is_noticed() -> None:
    issuer = authority()
    certificate = leaf(issuer, LeafRequest(identity(name="w-2")))
    with pytest.raises(NotTrustedError, match="worker/w-1 certificate that was just signed breaks its profile"):
        check_leaf(certificate, LeafRequest(identity()), issuer.facts)
    with pytest.raises(NotTrustedError, match="key id"):
        check_leaf(leaf(issuer), LeafRequest(identity()), issuer.facts._replace(key_id=b"other"))


def test_a_ca_is_held_against_its_profile() -> None:
    issuer = authority()
    check_ca(issuer.certificate, issuer.certificate)
    for broken in (extensions(), issuing.root_extensions(), issuing.ca_extensions(POLICY.permitted_dns)[:2]):
        with pytest.raises(NotTrustedError, match="breaks its profile"):
            check_ca(sign(issuer, broken), issuer.certificate)


def test_a_stored_issuer_needs_its_own_key() -> None:
    issuer = authority(tiers=2)
    chain = list(map(der, issuer.chain))
    opened = open_issuer(der(issuer.root), chain, issuer.key, generation=1)
    assert verify(leaf(opened), issuer) == identity()
    with pytest.raises(NotTrustedError, match="does not belong to its certificate"):
        open_issuer(der(issuer.root), chain, key(which="other"), generation=1)


def test_an_offline_root_issues_no_leaves() -> None:
    root = create_offline_root("default", key(which="root"), generation=1, serial=1, now=NOW)
    with pytest.raises(NotTrustedError, match="issues no leaves"):
        leaf(root)


def test_the_fingerprint_is_of_the_whole_certificate() -> None:
    certificate = leaf(authority())
    assert fingerprint(der(certificate)) == certificate.fingerprint(hashes.SHA256()).hex()
    assert leaf_names(LeafRequest(certificate_identity(certificate)))[0] == (identity().dns,)
