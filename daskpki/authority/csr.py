"""Issues a certificate for a request (CSR), of which only the public key is copied.

The request's subject is a proposal, accepted for a client with a free name. For any other role, and for a name that was
issued before, the operator has to give role and name.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from daskpki.authority.issuance import Issued, SigningProfile, issue
from daskpki.authority.repair import repair
from daskpki.errors import PolicyError, UsageError
from daskpki.identity import Role
from daskpki.pki.csr import CertificateRequest

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.pki.profile import LeafRequest
    from daskpki.pki.trust_document import TrustPayload


def proposed(
    authority: CertificateAuthority, request: CertificateRequest, command: str = "daskpki sign FILE"
) -> tuple[Role, str]:
    """The role and name that the request proposes; PolicyError unless that is a client with a free name.

    Hints repeat `command` with the name that it lacks.
    """
    cluster = authority.session.cluster
    if request.slug is None:
        raise UsageError("the request names no identity", hint=f"{command} client/NAME")
    role, name = request.slug
    if request.cluster != cluster:
        raise PolicyError(f"the request is for cluster {request.cluster!r}, not for {cluster!r}")
    if role is not Role.CLIENT:
        hint = f"if it is to be one: {command} {role.value}/{name}"
        raise PolicyError(f"the request asks to be a {role.value}, which you have to say yourself", hint=hint)
    if authority.inventory().current(role, name) is not None:
        hint = f"if it is the same person's: {command} {role.value}/{name}"
        raise PolicyError(f"{role.value}/{name} was issued before, and this request has another key", hint=hint)
    return role, name


def outlasting_trust(authority: CertificateAuthority, end: datetime) -> TrustPayload:
    """The signed trust document for somebody who cannot read the store until `end`.

    Its revocation list is signed again if it would run out before, since its readers have to stop then.
    """
    from daskpki.authority.publication import publish
    from daskpki.pki.revoked import next_update

    session = authority.session
    if next_update(authority.trust()) < end.timestamp():
        publish(session, authority.issuers, fresh_crls=True)
    head = session.anchor.chain.head()
    assert head is not None, "it was read just now"
    return head.payload


def sign_request(authority: CertificateAuthority, leaf: LeafRequest, request: CertificateRequest) -> Issued:
    """Issue `leaf` for the request's key; PolicyError and UsageError as for any leaf."""
    profile = SigningProfile(authority.issuer(), authority.policy(), public_key=request.public_key)
    (issued,) = issue(authority.session, profile, [leaf])
    repair(authority.session, authority.session.log.read_cached(), authority.issuers)
    return issued
