"""Issue for a certificate request: of all that it says, only the public key is copied.

Its subject is no more than a proposal, which counts where nothing hangs on it: for a client whose name is free. Any
other role, and a name that somebody holds already, has to be said by the operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daskpki import secret_names
from daskpki.authority.issuance import Issued, SigningProfile, issue
from daskpki.authority.repair import repair
from daskpki.errors import NotFoundError, PolicyError, UsageError
from daskpki.identity import Role
from daskpki.pki.csr import CertificateRequest
from daskpki.records import EMPTY

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.pki.profile import LeafRequest

ENTITLED = (Role.CLIENT,)
"""Roles that a request may propose for itself."""


def proposed(authority: CertificateAuthority, request: CertificateRequest) -> tuple[Role, str]:
    """Whom the request is of, as it says; PolicyError unless it is a client of this cluster whose name is free."""
    cluster = authority.session.cluster
    if request.slug is None:
        raise UsageError("the request does not say whom it is of", hint="daskpki sign FILE client/NAME")
    role, name = request.slug
    if request.cluster != cluster:
        raise PolicyError(f"the request is for cluster {request.cluster!r}, not for {cluster!r}")
    if role not in ENTITLED:
        hint = f"if it is to be one: daskpki sign FILE {role.value}/{name}"
        raise PolicyError(f"the request asks to be a {role.value}, which you have to say yourself", hint=hint)
    if authority.inventory().current(role, name) is not None or _was_archived(authority, role, name):
        hint = f"if it is the same person's: daskpki sign FILE {role.value}/{name}"
        raise PolicyError(f"{role.value}/{name} was issued before, and this request has another key", hint=hint)
    return role, name


def _was_archived(authority: CertificateAuthority, role: Role, name: str) -> bool:
    """Whether somebody held the name so long ago that the log has forgotten it; the credential's secret has not."""
    session = authority.session
    if session.log.base().head == EMPTY:
        return False
    try:
        session.store.secrets.describe(secret_names.credential_id(session.cluster, role, name))
    except NotFoundError:
        return False
    return True


def sign_request(authority: CertificateAuthority, leaf: LeafRequest, request: CertificateRequest) -> Issued:
    """Issue `leaf` for the request's key; PolicyError and UsageError as for any leaf."""
    profile = SigningProfile(authority.issuer(), authority.policy(), public_key=request.public_key)
    (issued,) = issue(authority.session, profile, [leaf])
    repair(authority.session, authority.session.log.read_cached(), authority.issuers)
    return issued
