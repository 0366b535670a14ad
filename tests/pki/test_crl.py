"""CRLs: read back as signed, refused when of another issuer or not current."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from daskpki.authority.session import random_serial
from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.pki.certificates import seconds
from daskpki.pki.crl import (
    MAX_CRL,
    REASONS,
    Revocation,
    crl_pem,
    parse_header,
    parse_reason,
    sign_crl,
    verify_crl,
)
from daskpki.pki.issuer import Issuer
from daskpki.pki.keys import KeyType
from daskpki.pki.profile import CRL_LIFETIME
from tests.support.judges import lint_crl, openssl_verify
from tests.support.nightly import NIGHTLY
from tests.support.pki_material import CA_KINDS, NOW, authority, leaf, parse_crl

revocations = st.dictionaries(
    st.one_of(st.integers(1, (1 << 127) - 1), st.integers(1, 1000)),
    st.tuples(st.integers(0, 4 * 10**9), st.sampled_from(REASONS)),
    max_size=60,
).map(lambda found: [Revocation(serial, *rest) for serial, rest in found.items()])


def many(count: int) -> list[Revocation]:
    chance, now = Random(7), seconds(NOW)
    return [
        Revocation(1 << 126 | chance.getrandbits(126), now - chance.randrange(CRL_LIFETIME), chance.choice(REASONS))
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", CA_KINDS)
def test_a_crl_is_read_back(kind: KeyType) -> None:
    issuer, revoked = authority(kind=kind), many(9)
    crl = verify_crl(sign_crl(issuer, revoked, number=3, now=NOW), issuer.certificate)
    assert crl.revoked == {entry.serial: entry for entry in revoked}
    assert (crl.number, crl.this_update, crl.next_update) == (3, seconds(NOW), seconds(NOW) + CRL_LIFETIME)


@given(revoked=revocations, number=st.integers(1, 1 << 62))
def test_any_crl_is_read_back(revoked: list[Revocation], number: int) -> None:
    der = sign_crl(authority(), revoked, number=number, now=NOW)
    assert parse_crl(crl_pem(der).encode()) == parse_crl(der)
    assert parse_crl(der).revoked == {entry.serial: entry for entry in revoked}
    assert parse_crl(der).number == number


def test_an_unknown_extension_of_an_entry_counts_when_it_is_critical() -> None:
    issuer = authority()
    read = partial(verify_crl, issuer=issuer.certificate)
    assert read(_with_unknown_extension(issuer, critical=False)).revoked.keys() == {7}
    with pytest.raises(CorruptError, match=r"critical extension 1\.3\.6\.1\.4\.1\.99999\.1"):
        read(_with_unknown_extension(issuer, critical=True))


def test_a_crl_that_another_key_signed_is_refused() -> None:
    with pytest.raises(NotTrustedError, match="signature does not verify"):
        verify_crl(sign_crl(authority(kind=KeyType.P384), [], number=1, now=NOW), authority().certificate)


def _with_unknown_extension(issuer: Issuer, *, critical: bool) -> bytes:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    entry = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(NOW).add_extension(unknown, critical)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(NOW).next_update(NOW + timedelta(days=1)).add_revoked_certificate(entry.build())
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_as_many_as_a_crl_may_have() -> None:
    """Judged by OpenSSL and by pkilint, which by day sees a sample."""
    issuer = authority()
    bad, good = leaf(issuer), leaf(issuer)
    revoked = [*many(19_999), Revocation(bad.serial_number, seconds(NOW), "keyCompromise")]
    der = sign_crl(issuer, revoked, number=1, now=NOW)
    assert MAX_CRL * 0.9 < len(der) < MAX_CRL
    assert verify_crl(der, issuer.certificate).revoked == {entry.serial: entry for entry in revoked}
    assert parse_header(der) == verify_crl(der, issuer.certificate)._replace(revoked={})
    root = issuer.root.public_bytes(Encoding.DER)
    verdicts = [
        openssl_verify(entry.public_bytes(Encoding.DER), [], root, purpose="sslclient", crl=der, at=NOW)
        for entry in (good, bad)
    ]
    assert verdicts[0] == ""
    assert "certificate revoked" in verdicts[1]
    assert lint_crl(der if NIGHTLY else sign_crl(issuer, revoked[:200], number=1, now=NOW)) == []


def test_a_released_certificate_is_absent() -> None:
    held = Revocation(random_serial(), seconds(NOW), "certificateHold")
    assert parse_crl(sign_crl(authority(), [held], number=1, now=NOW)).revoked == {held.serial: held}
    assert parse_crl(sign_crl(authority(), [], number=2, now=NOW)).revoked == {}


@pytest.mark.parametrize("reason", ["removeFromCRL", "keycompromise", "", "stolen"])
def test_reasons_are_rfc_5280s(reason: str) -> None:
    with pytest.raises(UsageError, match="is not a reason"):
        parse_reason(reason)
    assert [parse_reason(known) for known in REASONS] == list(REASONS)


def test_what_cannot_be_revoked() -> None:
    twice = [Revocation(5, 0), Revocation(5, 1)]
    for revoked, number, message in (
        (twice, 1, "twice among the revocations"),
        ([Revocation(0, 0)], 1, "not one of daskpki's"),
        ([Revocation(1 << 127, 0)], 1, "not one of daskpki's"),
        ([], 0, "not positive"),
    ):
        with pytest.raises(UsageError, match=message):
            sign_crl(authority(), revoked, number=number, now=NOW)


def test_another_issuers_crl_is_refused() -> None:
    issuer, other = authority(), authority(generation=2)
    der = sign_crl(issuer, [], number=1, now=NOW)
    verify_crl(der, issuer.certificate)
    with pytest.raises(NotTrustedError, match="the CRL is of CN=daskpki CA 1"):
        verify_crl(der, other.certificate)


def test_a_changed_crl_is_refused() -> None:
    issuer, serial = authority(), random_serial()
    der = sign_crl(issuer, [Revocation(serial, 0)], number=1, now=NOW)
    changed = der.replace(serial.to_bytes(16, "big"), (serial ^ 1).to_bytes(16, "big"))
    assert parse_crl(changed).revoked.keys() == {serial ^ 1}
    with pytest.raises(NotTrustedError, match="signature does not verify"):
        verify_crl(changed, issuer.certificate)


def test_an_oversized_crl_is_refused() -> None:
    with pytest.raises(UsageError, match="more than"):
        verify_crl(bytes(MAX_CRL + 1), authority().certificate)
