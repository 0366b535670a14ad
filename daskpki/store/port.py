"""The ports that every store implements: `SecretStore` for payloads, `RecordLog` for records, `Store` for both.

`SecretStore` has Secret Manager's model: secrets with labels, and numbered versions with a state and an immutable
payload. Every implementation keeps these rules:

- Versions are numbered 1, 2, 3, ... without gaps; a payload never changes. Reading a version **by number** is strongly
  consistent; `latest` is a hint that may lag by minutes, and is the highest number in *any* state.
- Nothing else is a source of truth. Payloads that must be linear (the trust document, the log) form an append chain:
  compare-and-append over version numbers (`daskpki.store.append_chain`).
- A secret without daskpki's labels is never written to, changed or deleted (`NotOursError`).

Errors, the same from every store: NotFoundError, AlreadyExistsError, DisabledError, AccessDeniedError,
CorruptError, ConflictError (an etag or head that moved), UnavailableError (nothing was done, try again),
AmbiguousError (a write may or may not have been done), UsageError (payload too large, malformed id).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from daskpki.confidential import Confidential
from daskpki.inventory import Inventory
from daskpki.records import CommitSignature, Draft, Head, Record, Stamp
from daskpki.store.rollback_guard import RollbackGuard

ENABLED: Final = "ENABLED"
DISABLED: Final = "DISABLED"
DESTROYED: Final = "DESTROYED"


Judge = Callable[[Head, Callable[[int], Iterator[Record]]], Collection[str]]
"""Decides whether a log counts, given its head and a function that reads its records after a number.

The records follow from one another by their hashes, and lead to the head. Returns the places that the signatures of the
last commit cover; raises NotTrustedError if the log does not count.
"""

Sign = Callable[[Inventory, Sequence[Record], str], tuple[CommitSignature, ...]]
"""Signs a commit, given the state before it, its records, and the digest of the data around them ("" for none)."""


def unsigned(_before: Inventory, _records: Sequence[Record], _place: str) -> tuple[CommitSignature, ...]:
    """Sign nothing, for a log on which no decision depends."""
    return ()


class SecretInfo(NamedTuple):
    """A secret without its payloads. `etag` guards changes; `created` is in seconds since the epoch."""

    id: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    etag: str
    created: int


class Version(NamedTuple):
    """One version without its payload; `state` is ENABLED, DISABLED or DESTROYED."""

    number: int
    state: str
    created: int


class Payload(NamedTuple):
    """A version's number and its bytes."""

    number: int
    data: Confidential


class SecretStore(Protocol):
    """Secrets, their versions and payloads."""

    def create(
        self, secret: str, *, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
    ) -> SecretInfo:
        """Create a secret without versions; AlreadyExistsError if it exists (ours or not)."""

    def describe(self, secret: str) -> SecretInfo:
        """Return a secret's labels, annotations and etag; NotFoundError."""

    def select(self, labels: Mapping[str, str]) -> Iterator[SecretInfo]:
        """Find our secrets that carry all these labels, ordered by id; eventually consistent."""

    def update(
        self,
        secret: str,
        *,
        etag: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> SecretInfo:
        """Replace labels or annotations if the etag is still current; ConflictError, NotOursError."""

    def delete(self, secret: str, *, etag: str | None = None) -> None:
        """Delete the secret and all versions for good; NotFoundError, ConflictError, NotOursError."""

    def add(self, secret: str, payload: Confidential) -> int:
        """Add a version and return its number; NotFoundError, NotOursError, UsageError, AmbiguousError."""

    def access(self, secret: str, number: int) -> Confidential:
        """Read the payload of one version; NotFoundError, DisabledError, CorruptError."""

    def latest(self, secret: str) -> Payload:
        """Read number and payload of `latest`, which may be stale; NotFoundError, DisabledError."""

    def versions(self, secret: str) -> Iterator[Version]:
        """List all versions, newest first; eventually consistent, never a source of truth."""

    def enable(self, secret: str, number: int) -> None:
        """Make a disabled version readable again; DisabledError if it is destroyed."""

    def disable(self, secret: str, number: int) -> None:
        """Make a version unreadable until it is enabled; DisabledError if it is destroyed."""

    def destroy(self, secret: str, number: int) -> None:
        """Destroy a version's payload for good; a second call does nothing."""


class RecordLog(Protocol):
    """One cluster's append-only, hash-chained log, and the inventory computed from it."""

    def inventory(self) -> Inventory:
        """Return a consistent view of all records up to now; empty if there are none.

        A head that the log's judge refuses is skipped if another head counts; otherwise NotTrustedError, CorruptError.
        """

    def read_cached(self) -> Inventory:
        """Return a view that may be a moment old, at less cost: enough before a commit, which sees the newest."""

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Stream the records with `seq > after`, in order; CorruptError if the chain is broken."""

    def authenticate(self) -> Head:
        """Read the log from its first record, with every check that this store can make, and return its head.

        Raises:
            CorruptError: a record does not follow from the one before, or the head was not written by an operator.
        """

    def adopt(self, records: Sequence[Record]) -> None:
        """Append records of the same cluster's log in another store unchanged; those that are here already are skipped.

        Raises:
            CorruptError: they do not follow from the records here.
        """

    def commit(
        self, decide: Callable[[Inventory], Sequence[Draft]], stamp: Stamp, sign: Sign = unsigned
    ) -> Sequence[Record]:
        """Append the drafts that `decide` returns, signed by `sign`, in one step, durable on return.

        `decide` sees the state to which the records are appended, and runs again if another writer was first, so it
        must have no other effect. If it raises, the exception is passed on and nothing is appended. An empty result
        appends nothing either.
        """


class Store(Protocol):
    """Keeps the secrets and logs of any number of clusters."""

    @property
    def url(self) -> str:
        """The store's URL: `local:/path`, `gsm://PROJECT`, `gsm://PROJECT/LOCATION`."""

    @property
    def secrets(self) -> SecretStore:
        """The payloads."""

    def log(self, cluster: str, judge: Judge | None = None) -> RecordLog:
        """The log of one cluster, as far as it counts by `judge`; its first commit creates it."""

    def events(self, cluster: str) -> RecordLog:
        """The log of changes to the cluster's user secrets: for people, and no decision depends on it."""

    @property
    def memory(self) -> RollbackGuard:
        """The log heads and trust documents of the store that this user has seen."""

    def batch(self) -> AbstractContextManager[None]:
        """Let writes within the block share one durable step at its end, if the store can; otherwise each is durable.

        A writer acknowledges its writes only after the batch has ended; an exception may undo all of them.
        """

    def clusters(self) -> Sequence[str]:
        """The names of the clusters kept here, sorted."""

    def close(self) -> None:
        """Release files, connections and the master key; using the store afterwards is an error."""
