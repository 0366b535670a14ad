"""Revocations in the trust document: CRLs, when they are signed again, and the serials of dropped CAs.

The CRL of an offline root lists its intermediate alone, lasts a year, and is signed whenever the root's file is opened.
It is in the trust document beside the CRL of the intermediate, so that software which checks every certificate of a
chain (`openssl verify -crl_check_all`) has both. Each generation has its own root: an intermediate whose key was stolen
leaves the trust document together with its root, at once, by `rotate-ca --emergency`. The root can then revoke it,
for those who still trust that root elsewhere.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from daskpki.authority.ca_keys import OfflineRoot
from daskpki.authority.lookup import living_authorities
from daskpki.authority.session import Session
from daskpki.errors import ConflictError, NotFoundError, PolicyError
from daskpki.handover import USUAL
from daskpki.inventory import AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.certificates import load_certificate, name_text, seconds
from daskpki.pki.crl import (
    Crl,
    Revocation,
    crl_der,
    crl_part,
    is_crl_due,
    parse_header,
    sign_crl,
    verified_crls,
    verify_crl,
)
from daskpki.pki.issuer import Issuer
from daskpki.pki.profile import DAY, ROOT_CRL_LIFETIME
from daskpki.pki.trust_document import CrlPart, DroppedCa, TrustDocument
from daskpki.records import ABANDONED, CA_RETIRED, REVOKED, REVOKING, ROOT_CRL, Draft

CRL_MARGIN: Final = DAY + USUAL.grace
"""Seconds after notAfter for which a revocation is published.

That is a day for verifiers whose clocks lag, plus the time for which a connection may outlive its certificate on nodes
that use the default of `--grace`.
"""

DROPPED_LIMIT: Final = 500
"""Revoked serials of dropped CAs that a trust document lists: 16 octets each, so a sixth of a payload.

If the serials of a CA do not fit, every connection under that CA is cut off.
"""


def _published(inventory: Inventory, now: float) -> Iterator[CertificateRecord]:
    """The leaves that are revoked, being revoked or abandoned, and not long expired."""
    for entry in inventory.certificates(statuses=[REVOKING, REVOKED, ABANDONED]):
        if entry.not_after + CRL_MARGIN >= now:
            yield entry


def revocations(inventory: Inventory, generation: int, now: float) -> dict[int, Revocation]:
    """The entries of the CRL of that CA generation, by serial."""
    return {
        entry.serial: Revocation(entry.serial, entry.revoked_at or entry.reserved_at, entry.reason or "unspecified")
        for entry in _published(inventory, now)
        if entry.issuer == generation
    }


def revoked_dropped(inventory: Inventory, now: float) -> tuple[DroppedCa, ...]:
    """The revoked serials of the CAs that were dropped, oldest CA first.

    Connections outlive the CA that is dropped, and its key is erased, so there can be no newer CRL of it.
    """
    serials: dict[int, list[int]] = {}
    for revoked in _published(inventory, now):
        serials.setdefault(revoked.issuer, []).append(revoked.serial)
    found: list[DroppedCa] = []
    room = DROPPED_LIMIT
    for entry in reversed(inventory.authorities()):
        if entry.status == CA_RETIRED and entry.generation in serials:
            listed = tuple(sorted(serials[entry.generation]))
            fits = len(listed) <= room
            room -= len(listed) if fits else 0
            issuing = load_certificate(entry.issuing_der)
            found.insert(0, DroppedCa(entry.generation, name_text(issuing.subject), listed if fits else None))
    return tuple(found)


def present_crl(
    session: Session,
    inventory: Inventory,
    previous: TrustDocument | None,
    revoked: Mapping[int, Mapping[int, Revocation]],
    issuer: Issuer,
    *,
    least: int,
    fresh: bool = False,
) -> CrlPart:
    """The present CRL of one generation, of number `least` or more.

    Reuses the previous one if nothing changed and it is not due, unless a `fresh` one is wanted.
    """
    moment = session.now().timestamp()
    wanted = _not_forgotten(inventory, revoked.get(issuer.generation, {}), moment)
    wanted |= revocations(inventory, issuer.generation, moment)
    part = next((part for part in previous.crls if part.generation == issuer.generation), None) if previous else None
    due = fresh or previous is None or is_crl_due(previous, session.now())
    if part and not due and revoked[issuer.generation] == wanted:
        return part
    number = max(part.number + 1 if part else 1, least)
    return crl_part(issuer.generation, sign_crl(issuer, wanted.values(), number=number, now=session.now()))


def _not_forgotten(inventory: Inventory, before: Mapping[int, Revocation], now: float) -> dict[int, Revocation]:
    """Revocations of the previous document, except holds: each stays until CRL_MARGIN after notAfter.

    One that the log lacks stays for good.
    """
    kept = {}
    for serial, revocation in before.items():
        entry = inventory.certificate(serial)
        if revocation.reason != "certificateHold" and (entry is None or entry.not_after + CRL_MARGIN >= now):
            kept[serial] = revocation
    return kept


OFFLINE_ROOT: Final = "offline root"


class KeptCrl(NamedTuple):
    """A verified CRL of one generation; `state` is the CA's in the trust document, or OFFLINE_ROOT."""

    generation: int
    state: str
    der: bytes
    contents: Crl


def kept_crls(trust: TrustDocument) -> list[KeptCrl]:
    """The verified CRLs of the document; an expired one counts too, since its revocations are still true."""
    states = {anchor.generation: anchor.state for anchor in trust.authorities}
    crls = verified_crls(trust)
    return [
        KeptCrl(part.generation, states[part.generation], crl_der(part), crls[part.generation]) for part in trust.crls
    ]


def running_out(inventory: Inventory, now: datetime) -> int | None:
    """The earliest nextUpdate of the CRLs, in seconds since the epoch, once less than a third of its life is left.

    Any command that opens the CA's key signs a CRL again after the first third, so none has run for weeks by then.
    """
    published = inventory.published
    if "next_update" not in published:
        return None
    third = (published["next_update"] - published["due"]) // 2
    return int(published["next_update"]) if now.timestamp() > published["next_update"] - third else None


STOLEN = "cACompromise"
"""The reason for which an intermediate is revoked (RFC 5280, 5.3.1)."""


def sign_root_crl(session: Session, file: OfflineRoot, *, revoke: bool = False) -> KeptCrl:
    """Sign the CRL of the root in that file again and record it; with `revoke`, its intermediate is on it for good.

    NotFoundError if no CA here has that root; PolicyError if the intermediate is still trusted; also the errors of
    opening the file. The caller publishes it if the state is OFFLINE_ROOT.
    """
    key = file.open()
    inventory = session.log.inventory()
    for entry in inventory.authorities():
        if entry.chain and key.public_key() == load_certificate(entry.anchor_der).public_key():
            break
    else:
        what = f"no CA of cluster {file.cluster!r} has the root whose key is in {file.path}"
        raise NotFoundError(what, hint="daskpki rotate-ca status")
    trusted = entry in living_authorities(inventory)
    if revoke and trusted:
        raise PolicyError(
            f"the intermediate of CA {entry.generation} is still trusted",
            hint="daskpki rotate-ca --emergency --offline-root NEWFILE replaces it first",
        )
    anchor = load_certificate(entry.anchor_der)
    before = None if entry.root_crl is None else verify_crl(_der(entry), anchor)
    revoked = dict(before.revoked) if before else {}
    if revoke:
        serial = load_certificate(entry.chain_der[0]).serial_number
        revoked.setdefault(serial, Revocation(serial, seconds(session.now()), STOLEN))
    root = Issuer(anchor, key, generation=entry.generation, root=anchor)
    number = before.number + 1 if before else 1
    der = sign_crl(root, revoked.values(), number=number, now=session.now(), lifetime=ROOT_CRL_LIFETIME)
    _record(session, entry, der)
    return KeptCrl(entry.generation, _root_state(trusted), der, verify_crl(der, anchor))


def _root_state(trusted: bool) -> str:  # noqa: FBT001 - one value
    return OFFLINE_ROOT if trusted else f"{OFFLINE_ROOT}, no longer trusted"


def _record(session: Session, entry: AuthorityRecord, der: bytes) -> None:
    def decide(inventory: Inventory) -> list[Draft]:
        now = {known.generation: known for known in inventory.authorities()}[entry.generation]
        if now.root_crl != entry.root_crl:
            raise ConflictError("another command signed this root's CRL meanwhile", hint="run the command again")
        return [Draft(ROOT_CRL, {"generation": entry.generation, "crl": base64.b64encode(der).decode()})]

    session.commit(decide, session.stamp())


def root_crls(inventory: Inventory) -> list[KeptCrl]:
    """The verified CRL of every root in the trust document, and of each replaced one that revoked its intermediate."""
    living, found = living_authorities(inventory), []
    for entry in inventory.authorities():
        if entry.root_crl is not None:
            contents = verify_crl(_der(entry), load_certificate(entry.anchor_der))
            if entry in living or contents.revoked:
                found.append(KeptCrl(entry.generation, _root_state(entry in living), _der(entry), contents))
    return found


def trusted_root_crls(authorities: Iterable[AuthorityRecord]) -> tuple[bytes, ...]:
    """The CRLs (DER) that belong in a trust document of these generations."""
    return tuple(_der(entry) for entry in authorities if entry.root_crl is not None)


def root_running_out(inventory: Inventory, now: datetime) -> int | None:
    """The earliest nextUpdate of the roots' CRLs, in seconds since the epoch, in the last third of its life."""
    headers = map(parse_header, trusted_root_crls(living_authorities(inventory)))
    return min((header.next_update for header in headers if is_root_crl_due(header, seconds(now))), default=None)


def is_root_crl_due(header: Crl, now: float) -> bool:
    """True in the last third of the life of an offline root's CRL."""
    return now > header.next_update - (header.next_update - header.this_update) // 3


def _der(entry: AuthorityRecord) -> bytes:
    assert entry.root_crl is not None
    return base64.b64decode(entry.root_crl)
