"""The log as evidence: every record described, and the whole checked against what else is known of it.

What `verify_log` checks, each on its own:

1. Each record follows from the one before by its hash, and the head was written by someone who could (the store).
2. The newest trust document is signed by the CA, and the log's head that it names lies on the chain: a log that was
   cut off or rewritten after that signature is noticed.
3. The trust document is not older than the one that the log says was published.
4. The inventory, from which commands answer, is what the records say.
5. Where records were archived, a record says so, with the digest of what stands for them; with the archives at hand,
   their records lead to that, from the first one on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

from daskpki.archived import base_at, check_base
from daskpki.authority.archive_file import Archive, joined
from daskpki.authority.lookup import rfc3339
from daskpki.authority.publication import current_trust
from daskpki.authority.session import Session
from daskpki.errors import CorruptError
from daskpki.inventory import CERTIFICATE_KINDS, NO_BASE, Base, Inventory, ReplayedInventory
from daskpki.pki.trust import TrustDocument
from daskpki.records import ARCHIVED, EMPTY, Head, Record


class Audited(NamedTuple):
    """What a log that holds is: its head, and the trust document that vouches for it up to `trust.log`.

    It begins after record `begin`; `archived` are the records before that which were checked as well.
    """

    head: Head
    certificates: int
    trust: TrustDocument
    begin: Head
    archived: int


def verify_log(session: Session, archives: Iterable[Archive] = ()) -> Audited:
    """Check the log; CorruptError or NotTrustedError for what does not hold, NotFoundError without a CA.

    With the archives that were taken off it (UsageError unless they are all), it is checked from its first record.
    """
    log = session.log
    log.authenticate()
    view = log.inventory()
    trust = current_trust(session)
    base = log.base()
    check_base(base, log.records())
    replayed = _replay(base, log.records(), view.head, Head(*trust.log))
    _check_inventory(view, replayed)
    archived = _check_archives(archives, session.cluster, base, log.records())
    return Audited(view.head, sum(1 for _ in replayed.certificates()), trust, base.head, archived)


def _check_archives(archives: Iterable[Archive], cluster: str, base: Base, kept: Iterable[Record]) -> int:
    """How many archived records there are, which lead to the base and to what stands for them; 0 without archives."""
    given = list(archives)
    if not given:
        return 0
    records = list(joined(given, cluster, base.head))
    if base_at(base.head, NO_BASE, [*records, *kept]).certificates != base.certificates:
        raise CorruptError("the leaves that were kept of the archived records are not what those say", hint=_CHANGED)
    return len(records)


def _replay(base: Base, records: Iterator[Record], end: Head, vouched: Head) -> ReplayedInventory:
    """The inventory up to `end`; CorruptError unless the vouched head is among the records."""
    replayed, vouched_for = ReplayedInventory(base=base), vouched in (EMPTY, base.head)
    for record in records:
        vouched_for = vouched_for or (record.seq, record.hash) == vouched
        if record.seq <= end.seq:
            replayed.apply(record)
    if not vouched_for:
        raise CorruptError(
            f"the signed trust document names record {vouched.seq} with hash {vouched.hash[:16]}..., and the log has "
            "no such record: it was cut off or rewritten",
            hint="restore the store from a backup, and find out who could write to it",
        )
    return replayed


def _check_inventory(view: Inventory, replayed: ReplayedInventory) -> None:
    same = view.head == replayed.head and list(view.authorities()) == list(replayed.authorities())
    for shown, recorded in zip_longest(view.certificates(), replayed.certificates()):
        if shown != recorded:
            serial = f"{(recorded or shown).serial:x}"
            raise CorruptError(f"the inventory's entry of serial {serial} is not what the log says", hint=_CHANGED)
    if not same:
        raise CorruptError("the inventory's CAs are not what the log says", hint=_CHANGED)


_CHANGED = "someone changed the store's tables: restore it from a backup"


def describe_record(record: Record) -> dict[str, Any]:
    """A record as `--json` prints it; the names of its fields are part of the contract."""
    return {
        "seq": record.seq,
        "time": rfc3339(record.time),
        "who": record.who,
        "command": record.command,
        "operation": record.operation,
        "event": record.kind,
        "body": dict(record.body),
        "hash": record.hash,
    }


def subject(record: Record) -> str:
    """What a record is about, in a few words: a leaf, a CA, a publication."""
    body = record.body
    if record.kind in CERTIFICATE_KINDS:
        name = f"{body['role']}/{body['name']} " if "role" in body else ""
        return f"{name}serial {body['serial']}" + (f" ({body['reason']})" if "reason" in body else "")
    if record.kind == ARCHIVED:
        return f"records up to {body['seq']}, in a file of SHA-256 {body['file'][:16]}..."
    if "generation" in body:
        return f"CA generation {body['generation']}"
    if "epoch" in body:
        return f"trust document, epoch {body['epoch']}"
    return ", ".join(sorted(body))
