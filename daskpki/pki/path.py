"""Path validation (RFC 5280, 6.1): does a leaf lead up to a trust anchor, now, and for its purposes?

pyca's verifier decides: in server mode, with the leaf's own name, for one that serves, in client mode for the others.
Its two modes differ in the expected purpose alone, and that every leaf may be a client is checked here, so the costly
part, the signatures, is done once. It implements the web PKI's algorithms and refuses Ed25519 wherever it meets it; a
path with such a key is checked by the rules below instead, which are the same but for the algorithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from daskpki.errors import NotTrustedError
from daskpki.pki.certificates import (
    UNREADABLE,
    certificate_identity,
    extension,
    lifetime,
    load_certificate,
    permitted_dns,
    seconds,
)
from daskpki.pki.profile import check_dns, show

# Leaf, intermediate, root: nothing longer is ever issued (the root's path length is 1).
_MAX_DEPTH: Final = 2


@final
class PathVerifier:
    """Trust anchors and intermediates, prepared once for many leaves."""

    def __init__(self, roots: Sequence[x509.Certificate], chain: Sequence[x509.Certificate] = ()) -> None:
        self._roots = list(roots)
        self._chain = list(chain)
        self._by_hand = any(_is_ed25519(certificate) for certificate in (*roots, *chain))
        self._store = None if self._by_hand or not roots else Store(self._roots)

    def verify(self, leaf: x509.Certificate, now: datetime) -> None:
        """Raise NotTrustedError, saying why, unless the leaf leads to an anchor and fits its purposes at `now`."""
        check_time(leaf, now)
        check_purpose(leaf)
        if not self._roots:
            raise NotTrustedError("there is no CA to verify the certificate with")
        if self._by_hand or _is_ed25519(leaf):
            return self._climb(leaf, [leaf], now)
        return self._verify_by_pyca(leaf, now)

    def _verify_by_pyca(self, leaf: x509.Certificate, now: datetime) -> None:
        assert self._store is not None
        builder = PolicyBuilder().store(self._store).time(now).max_chain_depth(_MAX_DEPTH)
        try:
            if _serves(leaf):
                builder.build_server_verifier(x509.DNSName(_dns_names(leaf)[0])).verify(leaf, self._chain)
            else:
                builder.build_client_verifier().verify(leaf, self._chain)
        except (*UNREADABLE, VerificationError) as error:
            raise NotTrustedError(f"the certificate does not lead to the cluster's CA: {error}") from None

    def _climb(self, certificate: x509.Certificate, below: list[x509.Certificate], now: datetime) -> None:
        """Find an issuer for `certificate`, and for that one its own, until an anchor is reached."""
        if len(below) <= _MAX_DEPTH:
            for anchor in self._roots:
                if _is_issuer(anchor, certificate):
                    return _check_issuer(anchor, below, now)
            for intermediate in self._chain:
                if intermediate not in below and _is_issuer(intermediate, certificate):
                    _check_issuer(intermediate, below, now)
                    return self._climb(intermediate, [*below, intermediate], now)
        raise NotTrustedError("the certificate does not lead to the cluster's CA: no issuer of it is known")


def check_time(certificate: x509.Certificate, now: datetime) -> None:
    """Raise NotTrustedError unless `now` is within the validity, both ends included (RFC 5280, 4.1.2.5)."""
    valid, moment = lifetime(certificate), seconds(now)
    if moment < valid.not_before:
        raise NotTrustedError(
            f"the certificate is not valid before {show(valid.not_before)}, and it is {show(moment)}",
            hint="check this machine's clock",
        )
    if moment > valid.not_after:
        raise NotTrustedError(
            f"the certificate expired at {show(valid.not_after)}, and it is {show(moment)}", hint=_renewal(certificate)
        )


def _renewal(certificate: x509.Certificate) -> str:
    try:
        return f"daskpki renew {certificate_identity(certificate).slug}"
    except NotTrustedError:  # a CA's, which is nobody's
        return "daskpki rotate-ca start"


def _is_ed25519(certificate: x509.Certificate) -> bool:
    return certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.ED25519


def _dns_names(leaf: x509.Certificate) -> list[str]:
    names = extension(leaf, x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName) if names else []


def _purposes(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    usage = extension(certificate, x509.ExtendedKeyUsage)
    return set(usage.value) if usage else set()


def _serves(leaf: x509.Certificate) -> bool:
    return ExtendedKeyUsageOID.SERVER_AUTH in _purposes(leaf) and bool(_dns_names(leaf))


def check_purpose(leaf: x509.Certificate) -> None:
    """Raise NotTrustedError for a CA's certificate, and for one without clientAuth, which all our leaves have."""
    constraints = extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise NotTrustedError("the certificate is a CA's, not a leaf")
    if ExtendedKeyUsageOID.CLIENT_AUTH not in _purposes(leaf):
        raise NotTrustedError("the certificate is not for TLS clients (its extended key usage lacks clientAuth)")


def _is_issuer(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def is_issued_by(leaf: bytes, issuer: bytes) -> bool:
    """Whether that CA (DER) signed the leaf (DER); neither dates nor purposes are looked at."""
    return _is_issuer(load_certificate(issuer), load_certificate(leaf))


def check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raise NotTrustedError unless `issuer` signed the CA certificate, and both are CAs; dates are not looked at."""
    if not _is_issuer(issuer, certificate):
        raise NotTrustedError("a CA's certificate is not signed by the one above it")
    for entry in (certificate, issuer):
        _check_ca(entry)


def _check_ca(certificate: x509.Certificate) -> int | None:
    """The path length of a CA that may sign certificates; NotTrustedError when it is none."""
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.value.ca or usage is None or not usage.value.key_cert_sign:
        raise NotTrustedError("the certificate's issuer is not a CA")
    return constraints.value.path_length


def _check_issuer(issuer: x509.Certificate, below: Sequence[x509.Certificate], now: datetime) -> None:
    """RFC 5280, 6.1.4 (k) to (n) and 6.1.3 (b), for one issuer and what was found below it, leaf first."""
    check_time(issuer, now)
    length = _check_ca(issuer)
    if length is not None and len(below) - 1 > length:
        raise NotTrustedError(f"the issuer allows {length} CAs below it, and the path has {len(below) - 1}")
    if (permitted := permitted_dns(issuer)) is not None:
        for name in _dns_names(below[0]):
            check_dns(name, permitted)
