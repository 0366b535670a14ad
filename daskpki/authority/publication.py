"""The trust document: computed from the log, signed, and published as the next link of its chain.

It is always computed from the log *after* the event that makes it necessary, so the last command to publish publishes
everything, and the next command repairs one that died before publishing.

A rolled-back or deleted trust document is noticed by comparing it with the log, which has the last published epoch.
Commands that read the document refuse it. Commands that publish continue after the last epoch in the log instead, since
a node that has seen the newest document refuses another one of the same epoch, and CRLs with lower numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from daskpki import secret_names
from daskpki.authority.crl import present_crl, revoked_dropped, trusted_root_crls
from daskpki.authority.lookup import STATES, published_authorities
from daskpki.authority.session import Session, new_operation
from daskpki.errors import AlreadyExistsError, NotFoundError, NotTrustedError
from daskpki.inventory import AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.crl import crl_due, every_revoked_serial, next_update, revoked_serials
from daskpki.pki.trust import carried, sign_succession, sign_trust, verify_trust
from daskpki.pki.trust_document import (
    FORMAT,
    HALF_FULL,
    NEXT,
    READER,
    Anchor,
    TrustDocument,
    TrustPayload,
    fill,
    parse_trust,
)
from daskpki.records import PUBLISHED, REVOKED, REVOKING, Draft
from daskpki.store.append_chain import ChainHead, Link, Tip

_LOGGER: Final = logging.getLogger(__name__)


def current_trust(session: Session) -> TrustDocument:
    """The newest trust document, verified by the CAs in the log; NotFoundError before the first.

    NotTrustedError if an older one was put back.
    """
    inventory = session.log.inventory()  # read before the document: a publication that it shows must be there
    head = session.anchor.chain.head()
    if head is None:
        remedy = "daskpki renew --due publishes a new one" if inventory.published else "daskpki init-ca makes one"
        raise NotFoundError(f"cluster {session.cluster!r} has no trust document", hint=remedy)
    document = _verified(session, inventory, head.payload)
    check_not_older(document, inventory)
    return document


def _verified(session: Session, inventory: Inventory, payload: TrustPayload) -> TrustDocument:
    anchors = [entry.anchor_der for entry in inventory.authorities() if entry.certificate]
    return verify_trust(payload.signed, cluster=session.cluster, anchors=anchors, now=session.now())


def publish(
    session: Session,
    *,
    old_keys: bool = True,
    schedulers: Sequence[str] | None = None,
    adding: int | None = None,
    fresh_crls: bool = False,
) -> TrustDocument:
    """Sign and publish the present state of the log; raises the errors of opening the keys that sign it.

    `schedulers` are the addresses to announce from now on; None leaves those of the document before. `adding` is the CA
    that is shown for the first time. `fresh_crls` also signs CRLs again that are not due yet.

    Every CA of the document signs it. With `old_keys`, so does every CA that it drops; a dropped CA also signs a
    successor statement, for nodes that miss this very document. Unfinished revocations are recorded as done together
    with the publication. If an older document was put back, the new one continues after the last epoch in the log.
    """
    operation = new_operation()
    chain = session.anchor.chain
    revoking: list[CertificateRecord] = []
    before: list[TrustDocument] = []

    def build(tip: Tip[TrustPayload], link: Link) -> TrustPayload:
        inventory = session.log.read_cached()  # it has our own event; other writers publish theirs, which it may lack
        if tip.head is not None and tip.head.payload.signed.document.log[0] > inventory.head.seq:
            inventory = session.log.inventory()  # and it has all that the document before shows
        session.check(inventory)
        if tip.head is None:
            labels = secret_names.labels(session.cluster, secret_names.TRUST)
            with suppress(AlreadyExistsError):  # another writer was first, to the same end; `add` checks whose it is
                session.store.secrets.create(secret_names.trust_id(session.cluster), labels=labels)
        epoch = published_epoch(inventory)
        rolled_back = _epoch(tip.head) < epoch and is_rolled_back(session, inventory)
        if rolled_back:  # else a tip that is merely stale loses against the newest, and is looked for again
            link = link._replace(seq=epoch + 1)
        known = None if tip.head is None else _verified(session, inventory, tip.head.payload)
        previous = None if rolled_back else known
        before[:] = [previous] if previous else []
        revoking[:] = inventory.certificates(statuses=[REVOKING])
        # What the document shows stays, also while the log does not yet tell that it was published.
        shown = [adding, *(each.generation for each in known.authorities)] if known else [adding]
        living = published_authorities(inventory, shown)
        document = _compose(session, inventory, living, previous, link, fresh_crls=fresh_crls)
        left = _dropped(inventory, previous, document) if previous and old_keys else []
        if previous is not None:
            statements = [sign_succession(document.cluster, session.issuers(entry), document.active) for entry in left]
            document = document._replace(successions=carried([*previous.successions, *statements]))
        addresses = schedulers if schedulers is not None else known.schedulers if known else ()
        document = document._replace(schedulers=tuple(addresses))
        data = sign_trust(document, [session.issuers(entry) for entry in sorted([*left, *living])])
        return TrustPayload(data, parse_trust(data))

    head = chain.append(build, operation)
    assert head is not None, "build always makes a document"
    document = head.payload.signed.document
    session.anchor.note(document)
    _record(session, head, revoking, operation)
    if not before and document.epoch > 1:
        what = "%s was missing or older: epoch %d was made from the log; find out who could write to the store"
        _LOGGER.warning(what, secret_names.trust_id(session.cluster), document.epoch)
    chain.prune(head)
    if fill(document) >= HALF_FULL:
        what = "the trust document is %.0f %% full, since %d certificates are revoked; when it is full, only %s helps"
        number = len(every_revoked_serial(document))
        _LOGGER.warning(what, 100 * fill(document), number, "daskpki rotate-ca --emergency")
    return document


def _dropped(inventory: Inventory, previous: TrustDocument, document: TrustDocument) -> list[AuthorityRecord]:
    """The generations that signed documents until now and are no longer in this one."""
    now = {anchor.generation for anchor in document.authorities}
    gone = {anchor.generation for anchor in previous.authorities if anchor.state != NEXT} - now
    return [entry for entry in inventory.authorities() if entry.generation in gone]


def _record(
    session: Session, head: ChainHead[TrustPayload], revoking: Sequence[CertificateRecord], operation: str
) -> None:
    document = head.payload.signed.document
    dates = {"due": min(map(crl_due, document.crls)), "next_update": next_update(document)}
    states = {str(anchor.generation): anchor.state for anchor in document.authorities}
    published = Draft(PUBLISHED, {"epoch": document.epoch, "version": head.number, "authorities": states, **dates})

    def decide(inventory: Inventory) -> list[Draft]:
        now = [inventory.certificate(entry.serial) for entry in revoking]
        done = [entry for entry in now if entry is not None and entry.status == REVOKING]
        return [published, *(Draft(REVOKED, {"serial": f"{entry.serial:x}"}) for entry in done)]

    session.commit(decide, session.stamp(operation))


def _compose(
    session: Session,
    inventory: Inventory,
    living: Sequence[AuthorityRecord],
    previous: TrustDocument | None,
    link: Link,
    *,
    fresh_crls: bool,
) -> TrustDocument:
    revoked = revoked_serials(previous) if previous else {}
    least = 1 if previous else link.seq  # no CRL has a greater number than documents were published
    return TrustDocument(
        format=FORMAT,
        min_reader=READER,
        cluster=session.cluster,
        trust_domain=living[-1].trust_domain,
        epoch=link.seq,
        prev=link.prev,
        operation=link.operation,
        issued_at=int(session.now().timestamp()),
        authorities=tuple(
            Anchor(entry.generation, STATES[entry.status], entry.anchor_der, entry.chain_der) for entry in living
        ),
        crls=tuple(
            present_crl(session, inventory, previous, revoked, session.issuers(entry), least=least, fresh=fresh_crls)
            for entry in living
        ),
        log=inventory.head,
        schedulers=(),
        root_crls=trusted_root_crls(living),
        revoked_dropped=revoked_dropped(inventory, session.now().timestamp()),
    )


def published_epoch(inventory: Inventory) -> int:
    """The newest epoch in the log; 0 before the first."""
    return int(inventory.published.get("epoch", 0))


def check_not_older(document: TrustDocument, inventory: Inventory) -> None:
    """Raise NotTrustedError if the document is older than the log, which was read first."""
    epoch = published_epoch(inventory)
    if document.epoch < epoch:
        raise NotTrustedError(
            f"the trust document has epoch {document.epoch}, but the log has a publication of epoch {epoch}: an older "
            "document was put back",
            hint="daskpki renew --due publishes a new one; find out who could write to the store",
        )


def is_rolled_back(session: Session, inventory: Inventory) -> bool:
    """True if the newest document is older than the last publication in the log; one request suffices if it is not."""
    chain = session.anchor.chain
    epoch = published_epoch(inventory)
    return _epoch(chain.read_cached().head) < epoch and _epoch(chain.head()) < epoch


def _epoch(head: ChainHead[TrustPayload] | None) -> int:
    return head.link.seq if head else 0
