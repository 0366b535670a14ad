"""What the log's head carries so that commands need not read the sealed segments: the state at their end. Pure.

`State` holds the CA generations, what was published last, and the leaves whose story is not at an end (reserved or
revoking). So issuing costs the same whether ten or a hundred thousand certificates came before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from daskpki.errors import CorruptError
from daskpki.inventory import (
    AUTHORITY_KINDS,
    CERTIFICATE_KINDS,
    AuthorityRecord,
    CertificateRecord,
    authority_after,
    certificate_after,
)
from daskpki.pki.fields import as_object
from daskpki.records import EMPTY, PUBLISHED, RESERVED, REVOKING, Head, Record

UNFINISHED: Final = (RESERVED, REVOKING)
"""The statuses of leaves that some command has yet to bring to an end."""

MAX_UNFINISHED: Final = 250
"""How many of them a header carries; where there are more, they are looked up in the segments."""


class State(NamedTuple):
    """The state after the record `head`; `unfinished` is None where it takes the segments to know it."""

    head: Head = EMPTY
    authorities: tuple[AuthorityRecord, ...] = ()
    published: Mapping[str, Any] = {}
    unfinished: tuple[CertificateRecord, ...] | None = ()

    def after(self, records: Iterable[Record]) -> State:
        """The state once these records have followed."""
        authorities = {entry.generation: entry for entry in self.authorities}
        published = self.published
        leaves = _Unfinished(self.unfinished)
        head = self.head
        for record in records:
            if record.kind in CERTIFICATE_KINDS:
                leaves.apply(record)
            elif record.kind in AUTHORITY_KINDS:
                generation = record.body["generation"]
                authorities[generation] = authority_after(authorities.get(generation), record)
            elif record.kind == PUBLISHED and record.body["epoch"] > published.get("epoch", 0):
                published = record.body
            head = Head(record.seq, record.hash)
        in_order = tuple(authorities[generation] for generation in sorted(authorities))
        return State(head, in_order, published, leaves.result())

    def with_unfinished(self, entries: tuple[CertificateRecord, ...]) -> State:
        """The same state with the unfinished leaves filled in, unless they are too many for a header."""
        return self._replace(unfinished=None if len(entries) > MAX_UNFINISHED else entries)


class _Unfinished:
    """The unfinished leaves while records pass by, and the serials that came to life before anything known here."""

    def __init__(self, known: tuple[CertificateRecord, ...] | None) -> None:
        self._entries = {entry.serial: entry for entry in known or ()}
        self._complete = known is not None
        self._foreign: set[int] = set()

    def apply(self, record: Record) -> None:
        serial = int(record.body["serial"], 16)
        entry = self._entries.get(serial)
        if entry is None and record.kind != RESERVED:
            change = self._foreign.add if record.kind == REVOKING else self._foreign.discard
            change(serial)
            return
        entry = certificate_after(entry, record)
        if entry.status in UNFINISHED:
            self._entries[serial] = entry
        else:
            del self._entries[serial]

    def result(self) -> tuple[CertificateRecord, ...] | None:
        if not self._complete or self._foreign or len(self._entries) > MAX_UNFINISHED:
            return None
        return tuple(self._entries.values())


def encode_state(state: State) -> dict[str, Any]:
    """The state as a JSON object."""
    unfinished = None if state.unfinished is None else encode_entries(state.unfinished)
    return {
        "head": list(state.head),
        "authorities": encode_entries(state.authorities),
        "published": dict(state.published),
        "unfinished": unfinished,
    }


def parse_state(data: Mapping[str, Any]) -> State:
    """The state in such an object; CorruptError."""
    try:
        unfinished = data["unfinished"]
        return State(
            Head(*data["head"]),
            tuple(map(parse_authority, data["authorities"])),
            as_object(data["published"], "what the log's header says was published"),
            None if unfinished is None else tuple(map(parse_leaf, unfinished)),
        )
    except (KeyError, TypeError) as error:
        raise CorruptError(f"the log's header is malformed ({error})") from error


def encode_entries(entries: Sequence[AuthorityRecord | CertificateRecord]) -> list[dict[str, Any]]:
    """Entries as JSON objects; what is not known of one is left out."""
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
