"""An older trust document in the place of the newest, or none: noticed, since the log says what was published last.

What reads the document refuses it. What publishes goes on past what the log says instead, since every node that has
seen the newest one refuses another with its epoch, and CRLs of lower numbers.
"""

from __future__ import annotations

import logging

from daskpki import naming
from daskpki.authority.session import Session
from daskpki.errors import NotTrustedError
from daskpki.inventory import Inventory
from daskpki.pki.trust_document import TrustDocument
from daskpki.store.links import Head, Link, Tip
from daskpki.store.trust import TrustPayload


def published_epoch(inventory: Inventory) -> int:
    """The newest epoch that the log knows of; 0 before the first."""
    return int(inventory.published.get("epoch", 0))


def check_newest(document: TrustDocument, inventory: Inventory) -> None:
    """Raise NotTrustedError for a document that is older than the log; the log was read before it."""
    epoch = published_epoch(inventory)
    if document.epoch < epoch:
        raise NotTrustedError(
            f"the trust document has epoch {document.epoch}, and the log says that {epoch} was published: an older one "
            "was put back",
            hint="daskpki renew --due publishes a new one; find out who could write to the store",
        )


def is_put_back(session: Session, inventory: Inventory) -> bool:
    """Whether the newest document is older than the log says, in one request where it is not."""
    chain = session.anchor.chain
    epoch = published_epoch(inventory)
    return _epoch(chain.glance().head) < epoch and _epoch(chain.head()) < epoch


def past_what_was_published(session: Session, inventory: Inventory, tip: Tip[TrustPayload], link: Link) -> Link:
    """The link of the next document: `link`, or past the newest epoch of the log if an older document was put back."""
    epoch = published_epoch(inventory)
    if _epoch(tip.head) >= epoch or not is_put_back(session, inventory):
        return link  # a tip that is merely stale loses against the newest, and is looked for again
    return link._replace(seq=epoch + 1)


def is_past(tip: Tip[TrustPayload], link: Link) -> bool:
    """Whether what the tip says is older than what was published, and so nothing to go on from."""
    return link.seq > _epoch(tip.head) + 1


def warn_of_it(cluster: str, epoch: int) -> None:
    """Say that a document was published past what lay in the store."""
    what = "an older %s had been put back: epoch %d was made from the log; find out who could write to the store"
    logging.getLogger(__name__).warning(what, naming.trust_id(cluster), epoch)


def _epoch(head: Head[TrustPayload] | None) -> int:
    return head.link.seq if head else 0
