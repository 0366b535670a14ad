"""The CRL of an offline root: about its intermediate alone, for a year, signed whenever the root's file is opened.

It stands in the trust document beside the CRL of the intermediate, so that software which checks every certificate of a
chain (`openssl verify -crl_check_all`) has both. Each generation has a root of its own: an intermediate whose key was
stolen leaves the trust document together with its root, at once, by `rotate-ca --emergency`. That its root revoked it
is for those who still trust that root elsewhere.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from cryptography import x509

from daskpki.authority.offline import OfflineRoot
from daskpki.authority.policy import anchor_der, chain_der, living_authorities
from daskpki.authority.session import Session
from daskpki.errors import ConflictError, NotFoundError, PolicyError
from daskpki.inventory import AuthorityRecord, Inventory
from daskpki.pki.certificates import load_certificate, seconds
from daskpki.pki.crl import Crl, Revocation, parse_header, sign_crl, verify_crl
from daskpki.pki.issuer import Issuer
from daskpki.pki.keys import PrivateKey, key_matches
from daskpki.pki.profile import ROOT_CRL_LIFETIME
from daskpki.records import ROOT_CRL, Draft

STOLEN = "cACompromise"
"""The reason for which an intermediate is revoked (RFC 5280, 5.3.1)."""


class RootCrl(NamedTuple):
    """What the root of a generation says; `trusted` while that generation is in the trust document."""

    generation: int
    trusted: bool
    der: bytes
    contents: Crl


def first_root_crl(issuer: Issuer, root_key: PrivateKey, now: datetime) -> bytes:
    """The empty CRL (DER) of a root that was just made."""
    root = Issuer(issuer.root, root_key, generation=issuer.generation, root=issuer.root)
    return sign_crl(root, (), number=1, now=now, lifetime=ROOT_CRL_LIFETIME)


def sign_root_crl(session: Session, file: OfflineRoot, *, revoke: bool = False) -> RootCrl:
    """Sign the CRL of the root in that file anew and record it; with `revoke`, its intermediate is on it for good.

    NotFoundError for a root of no CA here; PolicyError for an intermediate that is still trusted; what opening the file
    raises. Whoever calls publishes, if it is `trusted`.
    """
    key = file.open()
    inventory = session.log.inventory()
    entry = _generation_of(key, inventory, file)
    trusted = entry in living_authorities(inventory)
    if revoke and trusted:
        raise PolicyError(
            f"the intermediate of CA {entry.generation} is trusted still",
            hint="daskpki rotate-ca --emergency --offline-root NEWFILE replaces it first",
        )
    anchor = load_certificate(anchor_der(entry))
    before = None if entry.root_crl is None else verify_crl(_der(entry), anchor, now=None)
    revoked = dict(before.revoked) if before else {}
    if revoke:
        serial = load_certificate(chain_der(entry)[0]).serial_number
        revoked.setdefault(serial, Revocation(serial, seconds(session.now()), STOLEN))
    root = Issuer(anchor, key, generation=entry.generation, root=anchor)
    number = before.number + 1 if before else 1
    der = sign_crl(root, revoked.values(), number=number, now=session.now(), lifetime=ROOT_CRL_LIFETIME)
    _record(session, entry, der)
    return RootCrl(entry.generation, trusted, der, verify_crl(der, anchor, now=session.now()))


def _generation_of(key: PrivateKey, inventory: Inventory, file: OfflineRoot) -> AuthorityRecord:
    for entry in inventory.authorities():
        if entry.chain and key_matches(key, load_certificate(anchor_der(entry)).public_key()):
            return entry
    what = f"{file.path} holds the root of no CA of cluster {file.cluster!r}"
    raise NotFoundError(what, hint="daskpki rotate-ca status")


def _record(session: Session, entry: AuthorityRecord, der: bytes) -> None:
    def decide(inventory: Inventory) -> list[Draft]:
        now = {known.generation: known for known in inventory.authorities()}[entry.generation]
        if now.root_crl != entry.root_crl:
            raise ConflictError("another command signed this root's CRL meanwhile", hint="run the command again")
        return [Draft(ROOT_CRL, {"generation": entry.generation, "crl": base64.b64encode(der).decode()})]

    session.commit(decide, session.stamp())


def root_crls(inventory: Inventory) -> list[RootCrl]:
    """What every root says, also of generations that are trusted no more; verified."""
    living = living_authorities(inventory)
    return [
        RootCrl(entry.generation, entry in living, _der(entry), verify_crl(_der(entry), _anchor(entry), now=None))
        for entry in inventory.authorities()
        if entry.root_crl is not None
    ]


def trusted_root_crls(authorities: Iterable[AuthorityRecord]) -> tuple[bytes, ...]:
    """The CRLs (DER) that belong in a trust document of these generations."""
    return tuple(_der(entry) for entry in authorities if entry.root_crl is not None)


def root_running_out(inventory: Inventory, now: datetime) -> int | None:
    """When the first root's CRL runs out, in seconds since the epoch, once less than a third of its life is left."""
    headers = [parse_header(der) for der in trusted_root_crls(living_authorities(inventory))]
    ends = [
        header.next_update
        for header in headers
        if seconds(now) > header.next_update - (header.next_update - header.this_update) // 3
    ]
    return min(ends, default=None)


def _anchor(entry: AuthorityRecord) -> x509.Certificate:
    return load_certificate(anchor_der(entry))


def _der(entry: AuthorityRecord) -> bytes:
    assert entry.root_crl is not None
    return base64.b64decode(entry.root_crl)
