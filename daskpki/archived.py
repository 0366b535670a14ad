"""What a log keeps in place of records that went into an archive. Pure.

A log is cut after one record. All up to there is in a file from then on; the log keeps the number and the hash of that
record, the CAs, what was published last, and the leaves that later records are about (a `Base`). The first record after
the cut (`archived`) names the base's digest, so the hash chain covers what stands for the part that is gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from daskpki.errors import CorruptError
from daskpki.inventory import (
    CERTIFICATE_KINDS,
    NO_BASE,
    AuthorityRecord,
    Base,
    CertificateRecord,
    ReplayedInventory,
)
from daskpki.records import ARCHIVED, RESERVED, REVOKING, Draft, Head, Record

_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def base_at(end: Head, base: Base, records: Iterable[Record]) -> Base:
    """What stands for the records up to `end`, of a log that so far begins with `base`."""
    at_end = ReplayedInventory(base=base)
    mentioned: set[int] = set()
    for record in records:
        if record.seq <= end.seq:
            at_end.apply(record)
        elif record.kind in CERTIFICATE_KINDS and record.kind != RESERVED:
            mentioned.add(int(record.body["serial"], 16))
    kept = [
        entry for entry in at_end.certificates() if entry.serial in mentioned or entry.status in (RESERVED, REVOKING)
    ]
    return Base(end, tuple(at_end.authorities()), at_end.published, tuple(kept))


def archived_draft(base: Base, file_sha256: str) -> Draft:
    """The event that a log was cut: where, what stands for it, and in which file it is (SHA-256 in hex)."""
    return Draft(ARCHIVED, {"seq": base.head.seq, "hash": base.head.hash, "base": digest(base), "file": file_sha256})


def check_base(base: Base, records: Iterable[Record]) -> None:
    """Raise CorruptError unless one of the log's records says that it was cut just so."""
    if base == NO_BASE:
        return
    wanted = {"seq": base.head.seq, "hash": base.head.hash, "base": digest(base)}
    if not any(record.kind == ARCHIVED and wanted.items() <= record.body.items() for record in records):
        raise CorruptError(
            f"no record says that the log was cut after record {base.head.seq}, with what stands for it now",
            hint="restore the store from a backup, and find out who could write to it",
        )


def digest(base: Base) -> str:
    """SHA-256, in hex, of all that the base says."""
    return hashlib.sha256(_CANONICAL.encode(encode_base(base)).encode()).hexdigest()


def encode_base(base: Base) -> dict[str, Any]:
    """The base as a JSON object."""
    return {
        "head": list(base.head),
        "authorities": encode_entries(base.authorities),
        "published": dict(base.published),
        "certificates": encode_entries(base.certificates),
    }


def parse_base(data: Mapping[str, Any]) -> Base:
    """The base in such an object; CorruptError."""
    try:
        authorities = tuple(map(parse_authority, data["authorities"]))
        return Base(Head(*data["head"]), authorities, data["published"], tuple(map(parse_leaf, data["certificates"])))
    except (KeyError, TypeError) as error:
        raise CorruptError(f"what stands for the archived records is malformed ({error})") from error


def encode_entries(entries: Sequence[AuthorityRecord | CertificateRecord]) -> list[dict[str, Any]]:
    """Entries as JSON objects; what is not known of one is left out, so that a field more changes no digest."""
    return [
        {
            field: list(value) if isinstance(value, tuple) else value
            for field, value in entry._asdict().items()
            if value is not None
        }
        for entry in entries
    ]


def parse_authority(entry: Mapping[str, Any]) -> AuthorityRecord:
    """A CA generation in such an object; KeyError, TypeError."""
    return AuthorityRecord(**{**entry, "chain": tuple(entry["chain"])})


def parse_leaf(entry: Mapping[str, Any]) -> CertificateRecord:
    """A leaf in such an object; KeyError, TypeError."""
    return CertificateRecord(**{**entry, "sans": tuple(entry["sans"])})
