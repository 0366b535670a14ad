"""What a process believes about its cluster now: trust anchors, issuers, revoked serials, and until when they count."""

from __future__ import annotations

from typing import NamedTuple

from daskpki.cluster.peer import Peer
from daskpki.cluster.reasons import PeerRefusedError, Reason
from daskpki.identity import Role
from daskpki.pki.certificates import load_certificate, name_text
from daskpki.pki.revoked import every_revoked_serial, next_update
from daskpki.pki.trust_document import TrustDocument


class TrustState(NamedTuple):
    """One verified trust document, in the form in which connections ask it.

    `anchors` are DER certificates, `issuers` the names of the CAs below them that issue leaves, `revoked` serials of
    any generation, dropped ones too, `next_update` in seconds since the epoch is when the oldest CRL ends (None: there
    is no CRL). `cut_off` are the names of dropped CAs of which no connection may go on.
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
    """The other end may be one of ours, and has no business there."""


def verify_peer(
    peer: Peer, trust: TrustState, roles: frozenset[Role], *, now: float, allow_stale: bool = False
) -> None:
    """Raise NotTrustedError unless `peer` has one of `roles` in our trust domain and is not revoked.

    All of it is asked at every connection: a session that TLS resumes (by its id in 1.2) skips OpenSSL's own look at
    dates and chain. Beyond `next_update` nobody knows who was revoked since, so every new peer is refused unless
    `allow_stale`.
    """
    who = peer.identity
    if who.trust_domain != trust.trust_domain:
        raise PeerRefusedError(f"{who.uri} is not of trust domain {trust.trust_domain}", Reason.CERTIFICATE, who.uri)
    if who.role not in roles:
        expected = " or ".join(sorted(role.value for role in roles))
        wrong = f"{who.uri} has the role {who.role.value}, and here only {expected} is accepted"
        raise WrongRoleError(wrong, Reason.ROLE, who.uri)
    if peer.issuer not in trust.issuers:  # TLS began under a trust that was replaced meanwhile
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
            f"the revocation list of cluster {trust.cluster} ended at {trust.next_update} (seconds since the epoch)",
            Reason.CRL_EXPIRED,
            who.uri,
            hint="any command that opens the CA's key signs a new one, such as daskpki renew --due",
        )
    if peer.not_after < now:
        ended = f"the certificate of {who.uri} has ended"
        raise PeerRefusedError(ended, Reason.EXPIRED, who.uri, hint="daskpki renew, then daskpki login")


def trust_of(document: TrustDocument) -> TrustState:
    """The form of a verified document in which connections ask it."""
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
    """The names of the CAs that issue under a document."""
    return frozenset(ca_name(anchor.issuing) for anchor in document.authorities)


def ca_name(certificate: bytes) -> str:
    """The name of a CA (DER), as `Peer.issuer` has it."""
    return name_text(load_certificate(certificate).subject)
