"""Trust documents of a cluster, signed, stored, read and verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daskpki.pki.certificates import der, seconds
from daskpki.pki.crl import Revocation, crl_part, sign_crl
from daskpki.pki.issuer import Issuer
from daskpki.pki.trust import sign_trust, verify_trust
from daskpki.pki.trust_document import ACTIVE, Anchor, CrlPart, TrustDocument, parse_trust
from tests.support.pki_material import NOW, TD, authority

ONE = authority()


def anchor(issuer: Issuer, state: str = ACTIVE) -> Anchor:
    return Anchor(issuer.generation, state, der(issuer.root), tuple(map(der, issuer.chain)))


def part(issuer: Issuer, number: int = 1, revoked: Sequence[Revocation] = ()) -> CrlPart:
    return crl_part(issuer.generation, sign_crl(issuer, revoked, number=number, now=NOW))


def document(*states: tuple[Issuer, str], epoch: int = 1, number: int = 1) -> TrustDocument:
    issuers = states or ((ONE, ACTIVE),)
    return TrustDocument(
        format=1,
        min_reader=1,
        cluster="default",
        trust_domain=TD,
        epoch=epoch,
        prev=epoch - 1,
        operation="op-1",
        issued_at=seconds(NOW),
        authorities=tuple(anchor(issuer, state) for issuer, state in issuers),
        crls=tuple(part(issuer, number) for issuer, _ in issuers),
        log=(3, "0" * 64),
        schedulers=("tls://10.0.0.5:8786",),
    )


def verify(doc: TrustDocument, issuers: Sequence[Issuer] = (ONE,), **known: Any) -> TrustDocument:
    """The document after it was signed by these, stored, read and verified."""
    return verify_trust(parse_trust(sign_trust(doc, issuers)), now=NOW, **known)
