"""Deletes a cluster: revokes its leaves, then destroys its keys, credentials and other secrets (docs/adr/0016).

The last trust document, its revocation list and the log stay until the last leaf has expired: a node that finds no
newer document goes on with the one it has, and could never learn of the revocation. The same command removes them after
that.

Only a secret whose id begins with the cluster's prefix *and* whose labels name the cluster is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from daskpki import secret_names
from daskpki.authority.ca_keys import OWN_STORE
from daskpki.authority.revocation import may_be_connected, revoke
from daskpki.errors import NotFoundError
from daskpki.handover import USUAL
from daskpki.identity import Role
from daskpki.inventory import CertificateRecord, Inventory
from daskpki.records import ISSUED, RELEASED, REVOKING

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority

REASON: Final = "cessationOfOperation"
_KEPT: Final = (secret_names.TRUST, secret_names.RECORDS, secret_names.EVENTS)
# Keys of the CA last: an interrupted run can then still revoke and publish when it is run again.
_ORDER: Final = (*Role, secret_names.SECRET, secret_names.CA_KEY)


class Deletion(NamedTuple):
    """The plan of a deletion: how many leaves it revokes, and what it deletes.

    `now` and `later` are ids of secrets: those to delete at once, and those to delete after `kept_until`, when no leaf
    has a connection left. `user_secrets` are names, `keys_elsewhere` URIs of CA keys.
    """

    revoked: int
    now: tuple[str, ...]
    user_secrets: tuple[str, ...]
    later: tuple[str, ...]
    keys_elsewhere: tuple[str, ...]
    kept_until: int | None


def plan_deletion(authority: CertificateAuthority) -> Deletion:
    """Plan the deletion of a cluster; NotFoundError if there is none."""
    session = authority.session
    inventory, now = authority.inventory(), session.now().timestamp()
    order = (*_ORDER, *_KEPT)
    owned = session.store.secrets.select({"daskpki-cluster": session.cluster})
    ids = [info.id for info in owned if secret_names.is_ours(info.labels, session.cluster)]
    named = [(secret, *secret_names.kind_and_name(session.cluster, secret)) for secret in ids]
    found = sorted((one for one in named if one[1] in order), key=lambda one: (order.index(one[1]), one[0]))
    if not found:
        raise NotFoundError(f"there is no cluster {session.cluster!r} in {session.store.url}", hint="daskpki list")
    # Revoked leaves count: a node that keeps an older document trusts them until they end, and their connections
    # for the grace after that.
    ends = max((leaf.not_after for leaf in inventory.certificates() if leaf.fingerprint), default=0) + USUAL.grace
    ended = ends < now
    kept = [secret for secret, kind, _ in found if kind in _KEPT]
    gone = [secret for secret, kind, _ in found if kind in _ORDER]
    return Deletion(
        revoked=len(_valid(inventory, now)),
        now=(*gone, *(kept if ended else ())),
        user_secrets=tuple(name for _, kind, name in found if kind == secret_names.SECRET),
        later=() if ended else tuple(kept),
        keys_elsewhere=tuple(one.key_uri for one in inventory.authorities() if one.key_uri != OWN_STORE),
        kept_until=None if ended else ends,
    )


def _valid(inventory: Inventory, now: float) -> list[CertificateRecord]:
    """Leaves that may have connections, and those that an interrupted revocation left unpublished."""
    return [
        leaf
        for leaf in inventory.certificates(statuses=(ISSUED, RELEASED, REVOKING))
        if leaf.status == REVOKING or may_be_connected(leaf, now)
    ]


def revoke_all(authority: CertificateAuthority) -> Sequence[CertificateRecord]:
    """Revoke every leaf that may have connections, and publish; errors of opening the CA's keys come before that."""
    session = authority.session
    now = session.now().timestamp()
    if not _valid(authority.inventory(), now):
        return ()
    authority.open_living()
    return revoke(session, lambda inventory: _valid(inventory, now), REASON)


def delete_secrets(authority: CertificateAuthority, planned: Deletion, report: Callable[[str], None]) -> None:
    """Delete the secrets that are due now, and report each id; a missing one is skipped."""
    secrets = authority.session.store.secrets
    for secret in planned.now:
        try:
            secrets.delete(secret)
        except NotFoundError:
            continue
        report(secret)
