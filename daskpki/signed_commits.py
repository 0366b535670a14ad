"""Decides which commits of a log count: those signed by the CA that was active before them. Pure.

A signature covers the cluster, the signing generation and the commit's last record; the hash chain covers all earlier
records. It also covers a digest of the data that the store keeps around the commit (`place`). A copy keeps that digest,
but only the store in which it was made compares it with its data. The rules:

1. The generation that was active before a commit signs it.
2. If the commit makes another generation active and drops all others (an emergency), the new one signs as well.
3. Before any generation was active, the newest one that has a certificate after the commit signs. Until there is one,
   a single kind of commit needs no signature, the one with which `init-ca` begins: it closes the generations that were
   reserved but never created, and reserves the next one.
4. Any other signature that names a known generation must verify too.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from daskpki.errors import NotTrustedError
from daskpki.inventory import AuthorityRecord
from daskpki.pki import keys
from daskpki.pki.issuer import Issuer
from daskpki.pki.json_fields import compact_json, signing_input
from daskpki.pki.trust_document import ACTIVE, NEXT, RETIRING, Anchor
from daskpki.pki.verify import verify_signature
from daskpki.records import (
    CA_ACTIVATED,
    CA_CREATED,
    CA_RESERVED,
    CA_RETIRED,
    CA_RETIRING,
    EMPTY,
    CommitSignature,
    Head,
    Record,
)

_TYPE: Final = b"application/vnd.daskpki.commit.v1+json"
_RESERVATION: Final = frozenset(("generation", "key_uri", "sealing", "trust_domain", "settings"))
_STATUS: Final = {NEXT: CA_CREATED, ACTIVE: CA_ACTIVATED, RETIRING: CA_RETIRING}


class Generation(NamedTuple):
    """A CA generation, for the check of signatures: its status, and the certificate (DER) whose key signs."""

    status: str
    issuing: bytes | None


Generations = Mapping[int, Generation]


class Trusted(NamedTuple):
    """A trusted point of a log: its record, and the CA generations after it."""

    head: Head = EMPTY
    generations: Generations = MappingProxyType({})


def commit_bytes(cluster: str, generation: int, head: Head, place: str = "") -> bytes:
    """Make the bytes that a signature of one generation covers."""
    payload = {"cluster": cluster, "generation": generation, "seq": head.seq, "hash": head.hash, "place": place}
    return signing_input(_TYPE, compact_json(payload).reveal())


def sign_commit(cluster: str, issuer: Issuer, head: Head, place: str = "") -> CommitSignature:
    """Sign a commit that ends with `head` as one generation."""
    value = keys.sign(issuer.key, commit_bytes(cluster, issuer.generation, head, place))
    return CommitSignature(issuer.generation, value, place)


def generations_of(anchors: Iterable[Anchor]) -> dict[int, Generation]:
    """The generations of a trust document."""
    return {anchor.generation: Generation(_STATUS[anchor.state], anchor.issuing) for anchor in anchors}


def recorded_generations(authorities: Iterable[AuthorityRecord]) -> dict[int, Generation]:
    """The generations of an inventory."""
    return {
        entry.generation: Generation(entry.status, entry.issuing_der if entry.certificate else None)
        for entry in authorities
    }


def signers(before: Generations, records: Iterable[Record]) -> tuple[int, ...]:
    """Return the generations that must sign a commit of these records; none before one has a certificate."""
    records = list(records)
    active = _active(before)
    after = _after(before, records)
    if active is None:
        created = [number for number, known in after.items() if known.status in (CA_CREATED, CA_ACTIVATED)]
        return (max(created),) if created else ()
    now = _active(after)
    if now is not None and now != active and after[active].status == CA_RETIRED:
        return (active, now)
    return (active,)


def after_records(before: Trusted, records: Sequence[Record]) -> Trusted:
    """Return the point after trusted records."""
    return Trusted(records[-1].head, _after(before.generations, records)) if records else before


def verify_commits(cluster: str, since: Trusted, records: Iterable[Record]) -> Trusted:
    """Verify every commit after `since`, whose records follow it by their hashes, and return the point after them.

    Raises:
        NotTrustedError: a signature of a commit is missing or invalid; the message names the records.
    """
    point, pending = since, list[Record]()
    for record in records:
        pending.append(record)
        if record.signatures is not None:
            point, pending = _verified(cluster, point, pending), []
    if pending:
        point = _verified(cluster, point, pending)
    return point


def _verified(cluster: str, before: Trusted, records: list[Record]) -> Trusted:
    end = records[-1].head
    after = _after(before.generations, records)
    wanted = signers(before.generations, records)
    if not wanted and not _is_beginning(before.generations, records):
        raise NotTrustedError(f"{_named(records)} signed by no CA")
    found = set()
    for signature in records[-1].signatures or ():
        issuing = _issuing(before.generations, signature.generation) or _issuing(after, signature.generation)
        if issuing is None:
            continue
        what = f"{_named(records)} signed in the name of CA {signature.generation}, but the signature"
        data = commit_bytes(cluster, signature.generation, end, signature.place)
        verify_signature(issuing, signature.value, data, what)
        found.add(signature.generation)
    for generation in wanted:
        if generation not in found:
            raise NotTrustedError(f"{_named(records)} not signed by CA {generation}, which must sign")
    return Trusted(end, after)


def _issuing(generations: Generations, generation: int) -> bytes | None:
    """The certificate of a generation, or None. Callers try the state before a commit first: only a new CA adds one."""
    return generations[generation].issuing if generation in generations else None


def _named(records: list[Record]) -> str:
    first, last = records[0].seq, records[-1].seq
    return f"record {last} of the log is" if first == last else f"records {first} to {last} of the log are"


def _is_beginning(before: Generations, records: list[Record]) -> bool:
    """True if this is the commit with which `init-ca` begins, or begins again after an interruption."""
    *closed, last = records
    cut_off = [number for number, known in before.items() if known.status == CA_RESERVED]
    return (
        last.kind == CA_RESERVED
        and last.body.keys() == _RESERVATION
        and last.body["generation"] == max(before, default=0) + 1
        and all(record.kind == CA_RETIRED for record in closed)
        and [dict(record.body) for record in closed] == [{"generation": number} for number in cut_off]
    )


def _active(generations: Generations) -> int | None:
    return next((number for number, known in generations.items() if known.status == CA_ACTIVATED), None)


def _after(before: Generations, records: Iterable[Record]) -> dict[int, Generation]:
    """Return the generations after these records; records of other kinds change nothing."""
    known = dict(before)
    for record in records:
        if record.kind == CA_RESERVED:
            known[record.body["generation"]] = Generation(CA_RESERVED, None)
        elif record.kind == CA_CREATED:
            chain = record.body.get("chain") or ()
            issuing = base64.b64decode(chain[0] if chain else record.body["certificate"])
            known[record.body["generation"]] = Generation(CA_CREATED, issuing)
        elif record.kind in (CA_ACTIVATED, CA_RETIRING, CA_RETIRED) and record.body["generation"] in known:
            number = record.body["generation"]
            known[number] = known[number]._replace(status=record.kind)
    return known
