"""Which commits of a log count: those that the CA signed which was active in the state before. Pure.

One signature for each commit, over the cluster, the generation that signs and the commit's last record; the hash chain
covers all before it. It also covers the digest of what the store keeps around the commit (`place`), which a copy
carries along like the rest, and only the store where it was made compares with what it has. The rules:

1. A commit is signed by the generation that was active before it.
2. A commit by which one generation takes over at once, and the others are dropped (an emergency), is signed by the new
   one as well.
3. Before any generation was active, by the newest that the commit leaves with a certificate; and until there is one,
   a commit that does no more than reserve generations is signed by nobody. That is how `init-ca` begins.
4. Another signature that names a known generation and does not verify spoils the commit.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from daskpki.errors import NotTrustedError
from daskpki.inventory import AuthorityRecord
from daskpki.pki import keys
from daskpki.pki.certificates import load_certificate
from daskpki.pki.issuer import Issuer
from daskpki.pki.json_fields import compact_json
from daskpki.pki.trust_document import ACTIVE, NEXT, RETIRING, Anchor
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
_STATUS: Final = {NEXT: CA_CREATED, ACTIVE: CA_ACTIVATED, RETIRING: CA_RETIRING}


class Generation(NamedTuple):
    """A CA generation as far as signatures go: its status, and the certificate (DER) whose key signs."""

    status: str
    issuing: bytes | None


Generations = Mapping[int, Generation]


class Trusted(NamedTuple):
    """A point of a log that is taken for true: its record, and the CA generations after it."""

    head: Head = EMPTY
    generations: Generations = MappingProxyType({})


def signed_bytes(cluster: str, generation: int, head: Head, place: str = "") -> bytes:
    """What a signature covers: DSSE's pre-authentication encoding (PAE) of type and payload."""
    payload = {"cluster": cluster, "generation": generation, "seq": head.seq, "hash": head.hash, "place": place}
    body = compact_json(payload).reveal()
    return b"DSSEv1 %d %b %d %b" % (len(_TYPE), _TYPE, len(body), body)


def sign_commit(cluster: str, issuer: Issuer, head: Head, place: str = "") -> CommitSignature:
    """The signature of one generation over a commit that ends with `head`."""
    value = keys.sign(issuer.key, signed_bytes(cluster, issuer.generation, head, place))
    return CommitSignature(issuer.generation, value, place)


def generations_of(anchors: Iterable[Anchor]) -> dict[int, Generation]:
    """The generations of a trust document."""
    return {anchor.generation: Generation(_STATUS[anchor.state], anchor.issuing) for anchor in anchors}


def recorded_generations(authorities: Iterable[AuthorityRecord]) -> dict[int, Generation]:
    """The generations of an inventory."""
    found = {}
    for entry in authorities:
        issuing = entry.chain[0] if entry.chain else entry.certificate
        found[entry.generation] = Generation(entry.status, base64.b64decode(issuing) if issuing else None)
    return found


def signers(before: Generations, records: Iterable[Record]) -> tuple[int, ...]:
    """The generations that have to sign a commit of these records; none for one that `init-ca` begins with."""
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
    """The point to which records lead that are taken for true."""
    return Trusted(Head(records[-1].seq, records[-1].hash), _after(before.generations, records)) if records else before


def verify_commits(cluster: str, since: Trusted, records: Iterable[Record]) -> Trusted:
    """Check every commit after `since`, whose records follow it by their hashes, and return the point they lead to.

    Raises:
        NotTrustedError: a commit is not signed as it has to be; it names the records.
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
    end = Head(records[-1].seq, records[-1].hash)
    after = _after(before.generations, records)
    wanted = signers(before.generations, records)
    if not wanted and not _only_reserves(records):
        raise NotTrustedError(f"{_named(records)} signed by no CA")
    found = set()
    for signature in records[-1].signatures or ():
        issuing = _issuing(before.generations, signature.generation) or _issuing(after, signature.generation)
        if issuing is None:
            continue
        _verify(cluster, signature, issuing, end, records)
        found.add(signature.generation)
    for generation in wanted:
        if generation not in found:
            raise NotTrustedError(f"{_named(records)} not signed by CA {generation}, which was the one to sign")
    return Trusted(end, after)


def _issuing(generations: Generations, generation: int) -> bytes | None:
    """The certificate of a generation as it was before the commit; only a new one brings its own."""
    return generations[generation].issuing if generation in generations else None


def _verify(cluster: str, signature: CommitSignature, issuing: bytes, end: Head, records: list[Record]) -> None:
    key = load_certificate(issuing).public_key()
    assert isinstance(key, keys.PublicKey)
    what = f"{_named(records)} signed in the name of CA {signature.generation}, but the signature"
    keys.verify(key, signature.value, signed_bytes(cluster, signature.generation, end, signature.place), what)


def _named(records: list[Record]) -> str:
    first, last = records[0].seq, records[-1].seq
    return f"record {last} of the log is" if first == last else f"records {first} to {last} of the log are"


def _only_reserves(records: list[Record]) -> bool:
    """Whether it is what `init-ca` begins with, or begins again with after an interruption."""
    return all(record.kind in (CA_RESERVED, CA_RETIRED) for record in records)


def _active(generations: Generations) -> int | None:
    return next((number for number, known in generations.items() if known.status == CA_ACTIVATED), None)


def _after(before: Generations, records: Iterable[Record]) -> dict[int, Generation]:
    """The generations once these records have happened; those of other kinds change nothing."""
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
