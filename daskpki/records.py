"""Records of all changes to a cluster's certificates, and the hash chain that links them.

Pure: a log passes records in and keeps the result. Every state change is recorded before it is signed:

    ca-reserved → ca-created → ca-activated / ca-retiring → ca-retired        (by generation)
    reserved → issued | abandoned;  issued → revoking → revoked → released    (by serial)
    published(epoch, version, due)                                            (the trust document)
    root-crl(generation, crl)                              (an offline root signed the CRL of its intermediate)

`daskpki.inventory` computes the state from them. One chain serves inventory and audit; each signed trust document has
the hash of its head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from daskpki.errors import CorruptError
from daskpki.pki.json_fields import as_text, base64_text, integer, octets

GENESIS: Final = "0" * 64
"""The hash before the first record."""

CA_RESERVED: Final = "ca-reserved"
CA_CREATED: Final = "ca-created"
CA_ACTIVATED: Final = "ca-activated"
CA_RETIRING: Final = "ca-retiring"
CA_RETIRED: Final = "ca-retired"
ROOT_CRL: Final = "root-crl"
RESERVED: Final = "reserved"
ISSUED: Final = "issued"
ABANDONED: Final = "abandoned"
REVOKING: Final = "revoking"
REVOKED: Final = "revoked"
RELEASED: Final = "released"
PUBLISHED: Final = "published"


class Stamp(NamedTuple):
    """Time of a commit in seconds since the epoch, id of the operation, user (as claimed) and command."""

    time: int
    operation: str
    who: str
    command: str


class Draft(NamedTuple):
    """An event to be appended; `body` has JSON values only."""

    kind: str
    body: Mapping[str, Any]


class CommitSignature(NamedTuple):
    """A CA generation's signature over a commit (`daskpki.signed_commits`).

    `place` is a digest of the data that a store keeps around the commit; empty if the store has another proof of it.
    """

    generation: int
    value: bytes
    place: str = ""


class Head(NamedTuple):
    """The newest record's number and hash; (0, GENESIS) for an empty log."""

    seq: int
    hash: str


EMPTY: Final = Head(0, GENESIS)


class Record(NamedTuple):
    """An appended event; `hash` covers this record and, through the one before, all earlier ones.

    The last record of a commit carries the commit's `signatures`, which may be none; all others carry None.
    """

    seq: int
    time: int
    operation: str
    who: str
    command: str
    kind: str
    body: Mapping[str, Any]
    hash: str
    signatures: tuple[CommitSignature, ...] | None = None

    @property
    def head(self) -> Head:
        """The head of a log that ends with this record."""
        return Head(self.seq, self.hash)


_HASHED: Final = 7
_MOST_SIGNATURES: Final = 4
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def record_hash(previous: str, fields: Sequence[Any]) -> str:
    """SHA-256, in hex, over the previous hash and the record's seven other fields as canonical JSON."""
    return hashlib.sha256(f"{previous}\n{_CANONICAL.encode(list(fields))}".encode()).hexdigest()


def chain(head: Head, drafts: Iterable[Draft], stamp: Stamp) -> list[Record]:
    """Make the records of these drafts, appended after `head`."""
    records = []
    for draft in drafts:
        fields = (head.seq + 1, *stamp, draft.kind, dict(draft.body))
        records.append(Record(*fields, record_hash(head.hash, fields)))
        head = records[-1].head
    return records


def commit_of(
    head: Head, drafts: Iterable[Draft], stamp: Stamp, sign: Callable[[Sequence[Record]], tuple[CommitSignature, ...]]
) -> list[Record]:
    """Make the commit of these drafts, appended after `head`, with its signatures at the last record."""
    records = chain(head, drafts, stamp)
    if records:
        records[-1] = records[-1]._replace(signatures=sign(records))
    return records


def encode_signatures(signatures: Iterable[CommitSignature]) -> list[list[Any]]:
    """Encode the signatures of a commit as JSON values."""
    return [[signature.generation, base64_text(signature.value), signature.place] for signature in signatures]


def parse_signatures(value: object) -> tuple[CommitSignature, ...]:
    """Parse the signatures of a commit; CorruptError."""
    if not isinstance(value, list) or len(value) > _MOST_SIGNATURES:
        raise CorruptError("the signatures of a commit are malformed")
    return tuple(map(_parse_signature, value))


def _parse_signature(value: object) -> CommitSignature:
    if not isinstance(value, list) or len(value) != len(CommitSignature._fields):
        raise CorruptError("the signature of a commit is malformed")
    generation = integer({"generation": value[0]}, "generation", "the signature of a commit", least=1)
    place = as_text(value[2], "the place of a commit's signature")
    return CommitSignature(generation, octets(value[1], "the signature of a commit"), place)


def verify_chain(head: Head, records: Iterable[Record]) -> Iterator[Record]:
    """Yield the records; CorruptError at the first one that does not follow from the one before."""
    for record in records:
        if record.seq != head.seq + 1 or record.hash != record_hash(head.hash, record[:_HASHED]):
            raise CorruptError(
                f"record {record.seq} does not follow from record {head.seq}: the log was changed",
                hint="restore the store from a backup, and find out who could write to it",
            )
        head = record.head
        yield record


def following(head: Head, records: Iterable[Record]) -> list[Record]:
    """Return the records of a log after `head`; CorruptError if they do not follow from it."""
    later = []
    for record in records:
        if record.seq > head.seq:
            later.append(record)
        elif record.seq == head.seq and record.hash != head.hash:
            raise CorruptError(f"record {record.seq} is not the one that is there: these are two different logs")
    return list(verify_chain(head, later))
