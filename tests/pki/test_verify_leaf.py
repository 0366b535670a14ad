"""Whose leaf it is: every way in which a certificate may fail to be what it has to be, beside one that is."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
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
from daskpki.pki.certificates import certificate_identity, der, lifetime, load_certificate, seconds
from daskpki.pki.issuer import Issuer, create_offline_root, open_issuer
from daskpki.pki.keys import KeyType
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import DAY, GRADE_OIDS, MAX_SERIAL, Grade, LeafRequest, Lifetime, leaf_names, make_policy
from daskpki.pki.verify import PathVerifier, check_ca, check_issued, check_leaf, parent_of, verify_leaf
from tests.support.pki_material import CA_KINDS, NOW, POLICY, TD, authority, identity, key, leaf

PERIOD = Lifetime(seconds(NOW), seconds(NOW) + DAY)
URI = x509.UniformResourceIdentifier(identity().uri)
EACH_CA = pytest.mark.parametrize("kind", CA_KINDS)


def verify(
    certificate: x509.Certificate, issuer: Issuer, role: Role | None = None, name: str | None = None
) -> Identity:
    chain = list(map(der, issuer.chain))
    return verify_leaf(der(certificate), chain, [der(issuer.root)], now=NOW, trust_domain=TD, role=role, name=name)


def sign(
    issuer: Issuer,
    entries: tuple[issuing.Extension, ...],
    period: Lifetime = PERIOD,
    kind: KeyType = KeyType.P256,
    *,
    above: x509.AuthorityKeyIdentifier | None = None,
) -> x509.Certificate:
    """Whatever one likes, signed by the CA's own key: what a faulty or malicious issuer would make."""
    subject = issuing.leaf_subject("default", identity())
    template = issuing.Template(subject, key(kind).public_key(), random_serial(), period, entries)
    return issuing.sign_template(template, issuer.certificate.subject, issuer.key, above or issuer.key_identifier)


def ca(
    kind: KeyType, generation: int, *entries: issuing.Extension, length: int | None, above: Issuer | None = None
) -> Issuer:
    """A CA as no profile of ours allows it, below another one or self-signed."""
    own, name = key(kind, f"ca{generation}"), issuing.ca_subject("default", "CA", generation)
    constraints = (x509.BasicConstraints(ca=True, path_length=length), True)
    usage = (issuing.key_usage(signature=True, certificates=True), True)
    template = issuing.Template(name, own.public_key(), random_serial(), PERIOD, (constraints, usage, *entries))
    if above is None:
        own_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(template.public_key)
        certificate = issuing.sign_template(template, name, own, own_id)
        return Issuer(certificate, own, generation=generation, root=certificate)
    certificate = issuing.sign_template(template, above.certificate.subject, above.key, above.key_identifier)
    return Issuer(certificate, own, generation=generation, root=above.root, chain=(certificate, *above.chain))


def constrained(*permitted: x509.GeneralName, excluded: Sequence[x509.GeneralName] | None = None) -> issuing.Extension:
    """A name constraints extension."""
    return x509.NameConstraints(permitted or None, excluded), True


def extensions(
    who: Identity | None = None, *, names: list[x509.GeneralName] | None = None, purposes: bool = True
) -> tuple[issuing.Extension, ...]:
    """Those of a worker's leaf, with other names or without purposes."""
    own = who or identity()
    entries = list(issuing.leaf_extensions(LeafRequest(own), KeyType.P256))
    if names is not None:
        entries[3] = (x509.SubjectAlternativeName(names), False)
    return tuple(entry for index, entry in enumerate(entries) if purposes or index != 2)


BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


def usage(*further: int) -> issuing.Extension:
    """digitalSignature, and these bits of the nine (RFC 5280, 4.2.1.3)."""
    return x509.KeyUsage(*(bit in (0, *further) for bit in range(9))), True


@pytest.mark.parametrize("tiers", [1, 2])
@EACH_CA
@pytest.mark.parametrize("own", KeyType)
@pytest.mark.parametrize("role", Role)
def test_a_good_leaf_is_whose_it_says(tiers: int, kind: KeyType, own: KeyType, role: Role) -> None:
    issuer, who = authority(tiers=tiers, kind=kind), identity(role)
    assert verify(leaf(issuer, LeafRequest(who), kind=own), issuer, role, who.name) == who


@pytest.mark.parametrize(
    ("role", "name", "rule"),
    [
        (Role.SCHEDULER, None, "a worker, where a scheduler is expected"),
        (Role.CLIENT, None, "a worker, where a client is expected"),
        (None, "w-0", "named w-1, where w-0"),
        (None, "w-2", "named w-1, where w-2"),
    ],
)
def test_another_role_or_name_is_refused(role: Role | None, name: str | None, rule: str) -> None:
    issuer = authority()
    certificate = leaf(issuer)
    assert verify(certificate, issuer, Role.WORKER, "w-1")
    with pytest.raises(NotTrustedError, match=rule):
        verify(certificate, issuer, role, name)


@pytest.mark.parametrize("cluster", ["alpha", "prod"])
def test_another_trust_domain_is_refused(cluster: str) -> None:
    policy = make_policy(f"{cluster}.daskpki.internal")
    issuer = authority(policy=policy)
    certificate = leaf(issuer, LeafRequest(identity(trust_domain=policy.trust_domain)), policy=policy)
    with pytest.raises(NotTrustedError, match="another trust domain than default"):
        verify(certificate, issuer)


@EACH_CA
@pytest.mark.parametrize("tiers", [1, 2])
def test_another_ca_is_refused(kind: KeyType, tiers: int) -> None:
    """Also one of the same names and serials, that differs in its key alone."""
    issuer, other = authority(tiers=tiers, kind=kind), authority(tiers=tiers, kind=kind, generation=2)
    roots = [der(other.root)]
    with pytest.raises(NotTrustedError, match="does not lead to the cluster's CA"):
        verify_leaf(der(leaf(issuer, kind=kind)), list(map(der, issuer.chain)), roots, now=NOW, trust_domain=TD)
    both = [*roots, der(issuer.root)]
    verify_leaf(der(leaf(issuer, kind=kind)), list(map(der, issuer.chain)), both, now=NOW, trust_domain=TD)


@EACH_CA
def test_without_its_intermediate_a_leaf_leads_nowhere(kind: KeyType) -> None:
    issuer = authority(tiers=2, kind=kind)
    with pytest.raises(NotTrustedError, match="does not lead"):
        verify_leaf(der(leaf(issuer)), [], [der(issuer.root)], now=NOW, trust_domain=TD)


def test_without_a_ca_nothing_is_trusted() -> None:
    with pytest.raises(NotTrustedError, match="no CA"):
        verify_leaf(der(leaf(authority())), [], [], now=NOW, trust_domain=TD)


@EACH_CA
@pytest.mark.parametrize("tiers", [1, 2])
def test_a_broken_signature_is_refused(kind: KeyType, tiers: int) -> None:
    issuer = authority(kind=kind, tiers=tiers)
    changed = bytearray(der(leaf(issuer, kind=kind)))
    changed[-5] ^= 1
    with pytest.raises(NotTrustedError, match="does not lead"):
        verify(load_certificate(bytes(changed)), issuer)


@EACH_CA
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


@EACH_CA
def test_names_outside_the_constraints_are_refused(kind: KeyType) -> None:
    issuer = authority(kind=kind)
    below = ca(kind, 2, length=0, above=ca(kind, 1, constrained(x509.DNSName("example.org")), length=1))
    for each in (issuer, below):
        inside = sign(each, extensions(names=[x509.DNSName("a.example.org"), URI]), kind=kind)
        outside = sign(each, extensions(names=[x509.DNSName("a.other.example"), URI]), kind=kind)
        verify(inside, each)
        with pytest.raises(NotTrustedError):
            verify(outside, each)


@EACH_CA
def test_a_leaf_without_its_purpose_is_refused(kind: KeyType) -> None:
    issuer = authority(kind=kind)
    with pytest.raises(NotTrustedError, match="clientAuth"):
        verify(sign(issuer, extensions(purposes=False), kind=kind), issuer)


@EACH_CA
def test_a_ca_is_no_leaf(kind: KeyType) -> None:
    issuer = authority(tiers=2, kind=kind)
    with pytest.raises(NotTrustedError):
        verify(issuer.certificate, issuer)


@EACH_CA
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


@EACH_CA
@pytest.mark.parametrize(
    ("length", "below", "allowed"),
    [(None, 0, True), (None, 1, True), (0, 0, True), (0, 1, False), (1, 0, True), (1, 1, True)],
)
def test_a_path_length_bounds_the_cas_below(kind: KeyType, length: int | None, below: int, *, allowed: bool) -> None:
    top = ca(kind, 1, length=length)
    issuer = ca(kind, 2, length=0, above=top) if below else top
    with nullcontext() if allowed else pytest.raises(NotTrustedError, match="does not lead"):
        verify(sign(issuer, extensions(), kind=kind), issuer)


@EACH_CA
def test_a_path_has_two_cas_at_most(kind: KeyType) -> None:
    """Whatever the CAs themselves allow."""
    two = ca(kind, 2, length=None, above=ca(kind, 1, length=None))
    three = ca(kind, 3, length=None, above=two)
    verify(sign(two, extensions(), kind=kind), two)
    with pytest.raises(NotTrustedError, match="does not lead"):
        verify(sign(three, extensions(), kind=kind), three)


@EACH_CA
def test_a_second_ca_below_an_issuing_one_is_refused(kind: KeyType) -> None:
    """PathLen 0."""
    issuer = authority(kind=kind)
    entries = (*issuing.ca_extensions(POLICY.permitted_dns), (issuing.SERVER_AND_CLIENT, False))
    below = sign(issuer, entries, issuer.lifetime, kind)
    thief = Issuer(below, key(kind), generation=1, root=issuer.root, chain=[below])
    with pytest.raises(NotTrustedError):
        verify(sign(thief, extensions(), kind=kind), thief)


@EACH_CA
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
    with pytest.raises(NotTrustedError, match=r"not valid before 2026-11-23T11:55:00Z; it is now 2026-11-23T11:54:59Z"):
        issuer.verifier.verify(certificate, NOW - timedelta(seconds=301))
    with pytest.raises(NotTrustedError, match=r"expired at 2026-12-23T11:59:59Z; it is now 2026-12-23T12:00:00Z"):
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
    below = sign(issuer, extensions())
    with pytest.raises(VerificationError, match="Forbidden public key algorithm"):
        builder.build_client_verifier().verify(below, [])
    with pytest.raises(NotTrustedError, match="Forbidden public key algorithm"):
        verify(below, issuer)
    with pytest.raises(NotTrustedError, match="Forbidden public key algorithm"):
        leaf(issuer)
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
        (1, (issuing.key_usage(), True), "its role's keyUsage"),
        *((1, usage(number), "no other keyUsage") for number in (1, 3, 4, 5, 6)),
        (1, (issuing.key_usage(signature=True), False), "KeyUsage, critical"),
        (2, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False), "its role's EKU"),
        (2, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False), "its role's EKU"),
        (2, (x509.ExtendedKeyUsage([*BOTH, x509.ObjectIdentifier(GRADE_OIDS[Grade.ADMIN])]), False), "its role's EKU"),
        (2, (x509.ExtendedKeyUsage(BOTH), True), "ExtendedKeyUsage, not critical"),
        (3, (x509.SubjectAlternativeName([x509.DNSName(identity().dns)]), False), "the names asked for"),
        (4, (x509.OCSPNoCheck(), False), "the profile's extensions"),
    ],
)
def test_what_was_signed_is_held_against_its_profile(index: int, entry: issuing.Extension, rule: str) -> None:
    issuer = authority()
    entries = list(extensions())
    check_leaf(sign(issuer, tuple(entries)), LeafRequest(identity()), parent_of(issuer.certificate))
    changed = (*entries[:index], entry, *entries[index + 1 :])
    with pytest.raises(NotTrustedError, match=rule):
        check_leaf(sign(issuer, changed), LeafRequest(identity()), parent_of(issuer.certificate))


@pytest.mark.parametrize("index", range(4))
def test_a_leaf_has_all_extensions_of_its_profile(index: int) -> None:
    issuer = authority()
    entries = list(extensions())
    del entries[index]
    with pytest.raises(NotTrustedError, match="the profile's extensions and no others"):
        check_leaf(sign(issuer, tuple(entries)), LeafRequest(identity()), issuer.as_parent)


def test_an_rsa_server_enciphers_keys() -> None:
    issuer = authority()
    with pytest.raises(NotTrustedError, match="its role's keyUsage"):
        check_leaf(sign(issuer, extensions(), kind=KeyType.RSA3072), LeafRequest(identity()), issuer.as_parent)


DNS = [x509.DNSName(name) for name in (identity(Role.SCHEDULER).dns, "s.example.org")]
IPS = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::1", "10.0.0.5")]
SCHEDULER = x509.UniformResourceIdentifier(identity(Role.SCHEDULER).uri)


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ([*DNS, SCHEDULER, *IPS], None),
        ([*DNS, SCHEDULER, *IPS[:2]], "the names asked for"),
        ([*DNS, SCHEDULER, *IPS, x509.RFC822Name("alice@example.org")], "the names asked for"),
        ([DNS[0], x509.DNSName("a.example.org"), SCHEDULER, *IPS], "DNS names"),
        ([DNS[0], x509.DNSName("z.example.org"), SCHEDULER, *IPS], "DNS names"),
        ([*DNS, SCHEDULER, *IPS[:2], x509.IPAddress(ipaddress.ip_address("10.0.0.4"))], "IP addresses"),
        ([*DNS, SCHEDULER, *IPS[:2], x509.IPAddress(ipaddress.ip_address("10.0.0.6"))], "IP addresses"),
        ([*DNS, x509.UniformResourceIdentifier(f"spiffe://{TD}/client/w-1"), *IPS], "its identity as the only URI"),
        ([*DNS, x509.UniformResourceIdentifier(f"spiffe://{TD}/worker/w-1"), *IPS], "its identity as the only URI"),
    ],
)
def test_a_leaf_has_the_names_that_were_asked_for(names: list[x509.GeneralName], rule: str | None) -> None:
    issuer = authority()
    certificate = sign(issuer, extensions(names=names))
    request = LeafRequest(identity(Role.SCHEDULER), ("s.example.org",), (ipaddress.ip_address("10.0.0.5"),))
    with pytest.raises(NotTrustedError, match=rule) if rule else nullcontext():
        check_leaf(certificate, request, issuer.as_parent)


@pytest.mark.parametrize("serial", [1, MAX_SERIAL, MAX_SERIAL + 1])
def test_a_serial_has_16_octets_at_most(serial: int) -> None:
    issuer = authority()
    model = leaf(issuer)
    life = model.not_valid_before_utc, model.not_valid_after_utc
    builder = x509.CertificateBuilder(model.issuer, model.subject, model.public_key(), serial, *life)
    for entry in model.extensions:
        builder = builder.add_extension(entry.value, entry.critical)
    certificate = builder.sign(issuer.key, hashes.SHA256())
    with nullcontext() if serial <= MAX_SERIAL else pytest.raises(NotTrustedError, match="at most 16 octets"):
        check_leaf(certificate, LeafRequest(identity()), issuer.as_parent)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("octet", [b"\x00", b"\xff"])
def test_a_serial_is_positive(octet: bytes) -> None:
    issuer = authority()
    version, serial = b"\xa0\x03\x02\x01\x02", b"\x02\x01"
    written = der(leaf(issuer, serial=1))
    changed = written.replace(version + serial + b"\x01", version + serial + octet)
    assert changed != written
    with pytest.raises(NotTrustedError, match="a positive serial"):
        check_leaf(x509.load_der_x509_certificate(changed), LeafRequest(identity()), issuer.as_parent)


def test_a_leaf_does_not_end_when_it_begins() -> None:
    issuer, now = authority(), seconds(NOW)
    check_leaf(sign(issuer, extensions(), Lifetime(now, now + 1)), LeafRequest(identity()), issuer.as_parent)
    with pytest.raises(NotTrustedError, match="a lifetime"):
        check_leaf(sign(issuer, extensions(), Lifetime(now, now)), LeafRequest(identity()), issuer.as_parent)


@pytest.mark.parametrize(("start", "end", "within"), [(0, 0, True), (-1, 1, True), (1, 0, False), (0, -1, False)])
def test_a_leaf_lives_within_its_issuers_life(start: int, end: int, *, within: bool) -> None:
    issuer = authority()
    outer = Lifetime(PERIOD.not_before + start, PERIOD.not_after + end)
    with nullcontext() if within else pytest.raises(NotTrustedError, match="within the issuer's life"):
        check_leaf(sign(issuer, extensions()), LeafRequest(identity()), issuer.as_parent._replace(lifetime=outer))


@pytest.mark.parametrize("other", [bytes(20), b"\xff" * 20])
def test_a_leaf_names_its_issuers_key_alone(other: bytes) -> None:
    issuer = authority()
    certificate = sign(issuer, extensions())
    check_leaf(certificate, LeafRequest(identity()), issuer.as_parent)
    with pytest.raises(NotTrustedError, match="key id"):
        check_leaf(certificate, LeafRequest(identity()), issuer.as_parent._replace(key_id=other))
    above = x509.AuthorityKeyIdentifier(issuer.as_parent.key_id, [x509.DirectoryName(issuer.as_parent.subject)], 1)
    with pytest.raises(NotTrustedError, match="the issuer's key id only"):
        check_leaf(sign(issuer, extensions(), above=above), LeafRequest(identity()), issuer.as_parent)


@EACH_CA
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


@EACH_CA
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
        check_leaf(certificate, LeafRequest(identity()), issuer.as_parent)
    with pytest.raises(NotTrustedError, match="key id"):
        check_leaf(leaf(issuer), LeafRequest(identity()), issuer.as_parent._replace(key_id=b"other"))


@pytest.mark.parametrize(
    ("index", "entry", "rule"),
    [
        (0, (x509.BasicConstraints(ca=False, path_length=None), True), "a CA that signs certificates and CRLs"),
        (0, (x509.BasicConstraints(ca=True, path_length=0), False), "BasicConstraints, critical"),
        (0, (x509.BasicConstraints(ca=True, path_length=None), True), "path length 1 for a root"),
        (0, (x509.BasicConstraints(ca=True, path_length=1), True), "path length 1 for a root"),
        (1, usage(), "a CA that signs certificates and CRLs"),
        (1, usage(5), "a CA that signs certificates and CRLs"),
        (1, usage(6), "a CA that signs certificates and CRLs"),
        (2, (x509.OCSPNoCheck(), False), "NameConstraints, critical"),
        (2, constrained(excluded=DNS), "permitted DNS subtrees and nothing else"),
        (2, constrained(*DNS, excluded=DNS), "permitted DNS subtrees and nothing else"),
        (2, constrained(*DNS, x509.RFC822Name("example.org")), "permitted DNS subtrees and nothing else"),
    ],
)
def test_a_ca_is_held_against_its_profile(index: int, entry: issuing.Extension, rule: str) -> None:
    issuer = authority()
    entries = issuing.ca_extensions(POLICY.permitted_dns)
    check_ca(sign(issuer, entries), issuer.certificate)
    changed = (*entries[:index], entry, *entries[index + 1 :])
    with pytest.raises(NotTrustedError, match=rule):
        check_ca(sign(issuer, changed), issuer.certificate)


def test_an_offline_root_is_held_against_its_profile() -> None:
    root = ca(KeyType.P256, 1, length=1).certificate
    check_ca(load_certificate(der(root)), root)
    for broken, rule in (
        (ca(KeyType.P256, 1, length=2), "path length 1 for a root"),
        (ca(KeyType.P256, 1, constrained(*DNS), length=1), "no nameConstraints in a root of two tiers"),
    ):
        with pytest.raises(NotTrustedError, match=rule):
            check_ca(broken.certificate, broken.certificate)


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
