"""Identifies the other end of a connection, and verifies it against the trust state.

OpenSSL checked the chain when the session began. This module checks what OpenSSL does not: exactly one URI SAN
(X509-SVID, section 5.2), the serial, that the leaf is not a CA's certificate (X509-SVID, section 4.1), and that an
extended key usage is present (RFC 5280, section 4.2.1.12: without one, a certificate serves every purpose).
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from daskpki.cluster.refusal import PeerRefusedError, Reason
from daskpki.errors import DaskpkiError, NotTrustedError
from daskpki.identity import Identity, Role
from daskpki.pki.certificates import certificate_grades, certificate_identity, lifetime, load_certificate, name_text
from daskpki.pki.crl import every_revoked_serial, next_update
from daskpki.pki.profile import Grade
from daskpki.pki.trust_document import TrustDocument
from daskpki.pki.verify import check_purpose
from daskpki.quoting import minute


class Peer(NamedTuple):
    """The other end, by its certificate. `not_after` is in epoch seconds, `issuer` as in `TrustState.issuers`."""

    identity: Identity
    serial: int
    not_after: int
    issuer: str
    grades: frozenset[Grade] = frozenset()


def shown_certificate(stream: Any) -> bytes | None:
    """Return the certificate (DER) of a tornado stream's other end; None without TLS, or if it is closed."""
    return stream.socket.getpeercert(binary_form=True) if isinstance(stream.socket, ssl.SSLSocket) else None


def parse_peer(der: bytes | None) -> Peer:
    """Parse the peer from its certificate; NotTrustedError if it is no leaf of daskpki."""
    if not der:
        raise NotTrustedError("the peer showed no certificate")
    try:
        certificate = load_certificate(der, "the peer's certificate")
        identity = certificate_identity(certificate)
        check_purpose(certificate)
    except DaskpkiError as error:
        raise NotTrustedError(f"the peer: {error}", hint="use a certificate that daskpki issued") from error
    ends, issuer = lifetime(certificate).not_after, name_text(certificate.issuer)
    grades = certificate_grades(certificate) if identity.role is Role.CLIENT else frozenset[Grade]()
    return Peer(identity, certificate.serial_number, ends, issuer, grades)


class TrustState(NamedTuple):
    """A verified trust document, prepared for the checks of connections.

    `anchors` are DER certificates, `issuers` the names of the CAs below them that issue leaves, `revoked` the serials
    of all generations, dropped ones too. `next_update` is the end of the oldest CRL in seconds since the epoch (None:
    no CRL). `cut_off` are the names of dropped CAs whose connections must all end.
    """

    cluster: str
    trust_domain: str
    epoch: int
    anchors: tuple[bytes, ...]
    issuers: frozenset[str]
    revoked: frozenset[int] = frozenset()
    next_update: int | None = None
    cut_off: frozenset[str] = frozenset()


class WrongRoleError(PeerRefusedError):
    """The other end has a role that is not expected there."""


def verify_peer(
    peer: Peer, trust: TrustState, roles: frozenset[Role], *, now: float, allow_stale: bool = False
) -> None:
    """Raise NotTrustedError unless `peer` has one of `roles` in our trust domain and is not revoked.

    Every connection is checked: a session that TLS resumes (by its id in 1.2) skips OpenSSL's check of dates and chain.
    After `next_update` nobody can know who was revoked, so every new peer is refused unless `allow_stale`.
    """
    who = peer.identity
    if who.trust_domain != trust.trust_domain:
        raise PeerRefusedError(f"{who.uri} is not of trust domain {trust.trust_domain}", Reason.CERTIFICATE, who.uri)
    if who.role not in roles:
        expected = " or ".join(sorted(role.value for role in roles))
        wrong = f"{who.uri} has the role {who.role.value}, and here only {expected} is accepted"
        raise WrongRoleError(wrong, Reason.ROLE, who.uri)
    if peer.issuer not in trust.issuers:  # TLS began under a trust state that was replaced since
        gone = f"the certificate of {who.uri} comes from {peer.issuer}, which is not trusted any more"
        raise PeerRefusedError(gone, Reason.UNKNOWN_CA, who.uri)
    if peer.serial in trust.revoked:
        raise PeerRefusedError(
            f"the certificate {peer.serial:x} of {who.uri} is revoked",
            Reason.REVOKED,
            who.uri,
            hint="an operator issues a new one: daskpki issue; then daskpki login, or a restart of the node",
        )
    if trust.next_update is not None and now > trust.next_update and not allow_stale:
        raise PeerRefusedError(
            f"the revocation list of cluster {trust.cluster} expired at {minute(trust.next_update)}",
            Reason.CRL_EXPIRED,
            who.uri,
            hint="any command that opens the CA's key signs a new one, such as daskpki renew --due",
        )
    if peer.not_after < now:
        expired = f"the certificate of {who.uri} has expired"
        raise PeerRefusedError(expired, Reason.EXPIRED, who.uri, hint="daskpki renew, then daskpki login")


def trust_of(document: TrustDocument) -> TrustState:
    """Prepare a verified document for the checks of connections."""
    return TrustState(
        cluster=document.cluster,
        trust_domain=document.trust_domain,
        epoch=document.epoch,
        anchors=document.roots,
        issuers=issuers_of(document),
        revoked=every_revoked_serial(document),
        next_update=next_update(document),
        cut_off=frozenset(entry.issuer for entry in document.revoked_dropped if entry.serials is None),
    )


def issuers_of(document: TrustDocument) -> frozenset[str]:
    """Return the names of a document's issuing CAs."""
    return frozenset(ca_name(anchor.issuing) for anchor in document.authorities)


def ca_name(certificate: bytes) -> str:
    """Return the name of a CA (DER) in the form of `Peer.issuer`."""
    return name_text(load_certificate(certificate).subject)
