"""Ends of a person's credential, warned about from two thirds of its life on, and the commands that renew it.

The end is that of the certificate or of the revocation list, whichever is first: after the list's end, later
revocations are unknown. Pure.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import NamedTuple

from daskpki.credentials.contexts import LOGIN_FILE, Context
from daskpki.credentials.source_selection import CredentialSource
from daskpki.pki.certificates import load_certificate
from daskpki.pki.trust_document import TrustDocument
from daskpki.settings import DEFAULT_CLUSTER


class Ending(NamedTuple):
    """End of a credential and its reason; `is_near` once two thirds of its life are past."""

    at: datetime
    what: str
    is_near: bool


def ending(leaf: bytes, trust: TrustDocument, now: datetime) -> Ending:
    """The earlier end of a certificate (DER) and of the revocation lists of its trust document."""
    certificate = load_certificate(leaf)
    spans = [(certificate.not_valid_before_utc, certificate.not_valid_after_utc, "its certificate")]
    spans += [(_utc(part.this_update), _utc(part.next_update), "its revocation list") for part in trust.crls]
    begin, end, what = min(spans, key=lambda span: span[1])
    return Ending(end, what, now > begin + (end - begin) * 2 / 3)


def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def renewal_of_login(context: Context, *, is_active: bool) -> str:
    """The command that renews a login, or the three steps for one that came by a login file."""
    name, cluster = context.name, context.cluster
    option = "" if cluster == DEFAULT_CLUSTER else f"--cluster {cluster} "
    if context.store == LOGIN_FILE:
        return (
            f"daskpki {option}request client/{name} --out {name}.csr; an operator runs "
            f"daskpki {option}sign {name}.csr client/{name} --out {name}.login; then daskpki login {name}.login"
        )
    return "daskpki login" if is_active else f"daskpki --store {shlex.quote(context.store)} {option}login {name}"


def renewal_elsewhere(source: CredentialSource, name: str) -> str:
    """The operator's commands that renew a credential without a login."""
    if source is CredentialSource.STORE:
        return f"daskpki renew client/{name}"
    return f"daskpki renew client/{name}, then daskpki export client/{name} --out DIR --force"
