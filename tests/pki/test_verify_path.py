"""Path rules one by one, each at the value where it decides: what mutation showed to be unwatched."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from daskpki.authority.session import random_serial
from daskpki.errors import NotTrustedError
from daskpki.pki.issuer import key_usage
from daskpki.pki.verify import check_issued, check_purpose, check_time, parent_of
from tests.support.pki_material import NOW, authority, key, leaf

SECOND = timedelta(seconds=1)
SIGNS = key_usage(signature=True, certificates=True)
ONLY_LEAVES = key_usage(signature=True, certificates=False)


def self_signed(*, ca: bool | None, usage: x509.KeyUsage | None) -> x509.Certificate:
    """A certificate that its own key signed, with these of the extensions that make a CA."""
    own = key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA")])
    builder = x509.CertificateBuilder(name, name, own.public_key(), random_serial(), NOW, NOW + timedelta(days=1))
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(own, hashes.SHA256())


def test_a_ca_that_may_sign_certificates_is_one() -> None:
    entry = self_signed(ca=True, usage=SIGNS)
    check_issued(entry, entry)


@pytest.mark.parametrize(
    ("ca", "usage"), [(None, SIGNS), (False, SIGNS), (False, ONLY_LEAVES), (True, None), (True, ONLY_LEAVES)]
)
def test_whatever_lacks_one_of_both_is_none(*, ca: bool | None, usage: x509.KeyUsage | None) -> None:
    entry = self_signed(ca=ca, usage=usage)
    with pytest.raises(NotTrustedError, match="is not a CA"):
        check_issued(entry, entry)


def test_a_cas_certificate_is_no_leaf() -> None:
    with pytest.raises(NotTrustedError, match="is a CA's, not a leaf"):
        check_purpose(authority().certificate)
    check_purpose(leaf(authority()))


def test_a_certificate_without_extensions_is_for_no_purpose() -> None:
    with pytest.raises(NotTrustedError, match="lacks clientAuth"):
        check_purpose(self_signed(ca=None, usage=None))


def test_a_ca_needs_a_key_id() -> None:
    with pytest.raises(NotTrustedError, match="has no subject key identifier"):
        parent_of(self_signed(ca=True, usage=SIGNS))


def test_both_ends_of_validity_are_inclusive() -> None:
    certificate = leaf(authority())
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    check_time(certificate, start)
    check_time(certificate, end)
    for moment, reason in ((start - SECOND, "is not valid before"), (end + SECOND, "expired at")):
        with pytest.raises(NotTrustedError, match=reason):
            check_time(certificate, moment)
