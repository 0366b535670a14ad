"""Sources of newer material for a running node: the store, directory or file that it booted from, by `access` only.

Version numbers go up by one, so after the first poll each secret costs one request: the next number, usually a 404.
`latest` is read only once, since it may lag by minutes. A credential directory is read again as a whole; Kubernetes
replaces it in one step when the secret changes.

`TrustVersions` tries all versions of the trust secret above the one in force, newest first, and each refused version
once, so a forged version cannot hide a valid one.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.boot import fetch
from daskpki.boot.fetch import Reader, later_versions, read_directory
from daskpki.cluster.refresh import NullSource, Source, WholeSource
from daskpki.cluster.tls import KeyPair, key_pair
from daskpki.cluster.trust_updates import TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DaskpkiError, DisabledError, NotFoundError, NotTrustedError
from daskpki.handover import Handover
from daskpki.identity import Role, parse_role
from daskpki.pki.credential import parse_own_credential
from daskpki.pki.crl import CLOCK_SKEW
from daskpki.pki.trust_document import TrustDocument, parse_trust
from daskpki.settings import StoreUrl, parse_store_url

_KEPT: Final = 16
"""Versions kept in memory during the search for the newest; the others are read again."""
_RIVALS: Final = 16
"""Most rivals that are sorted by epoch: concurrent writers leave few, and a forger may add many."""

logger = logging.getLogger("distributed.daskpki")


class _Candidate(NamedTuple):
    """An unverified version of the trust secret that claims a later epoch than the document in force."""

    number: int
    data: Confidential
    document: TrustDocument


class TrustVersions:
    """Reads a cluster's trust documents from a store, newest first, each once. `now` is in seconds since the epoch.

    An account that may add versions can put invalid ones above the one that revokes it. So no version decides where the
    search begins: all versions above the one in force are examined, from the newest down, and the mark moves only to
    the one in force.
    """

    def __init__(self, cluster: str, now: Callable[[], float] = time.time) -> None:
        self._secret = secret_names.trust_id(cluster)
        self._now = now
        self._mark: int | None = None
        self._newest: int | None = None
        self._held: TrustDocument | None = None
        self._offered: _Candidate | None = None
        self._passed: set[int] = set()
        """Numbers above the mark that are useless whatever is in force: of an older epoch, or unreadable."""
        self._refused: dict[int, float] = {}
        """Numbers that were refused under the document in force, each with the time from which it may be valid."""

    def after(self, store: Reader, held: TrustDocument) -> Iterator[TrustMessage]:
        """Yield as `daskpki.cluster.refresh.Source` does; DisabledError if the newest version cannot be read.

        It may be a revocation, so it must not be skipped silently.
        """
        if self._offered is not None and self._offered.document == held:
            self._settle(self._offered.number)
        self._offered = None
        if held != self._held:  # under the newer one, refused documents may be valid
            self._held = held
            self._refused.clear()
        fresh, unreadable = self._climb(store, held)
        for candidate in self._candidates(store, fresh, held):
            self._offered = candidate
            yield TrustMessage(candidate.data, f"version {candidate.number} of {self._secret}")
            # The caller refused it. A document of the future may be valid later: this machine's clock may be wrong.
            begin = candidate.document.issued_at - CLOCK_SKEW
            self._refused[candidate.number] = begin if begin > self._now() else math.inf
        if unreadable is not None:
            raise unreadable

    def _settle(self, number: int) -> None:
        """Note that `number` is the version in force."""
        self._mark = number
        self._passed = {passed for passed in self._passed if passed > number}
        self._refused = {refused: moment for refused, moment in self._refused.items() if refused > number}

    def _climb(self, store: Reader, held: TrustDocument) -> tuple[dict[int, Confidential], DisabledError | None]:
        """Find the newest number; return the payloads read on the way, and the error if the newest is unreadable."""
        fresh: dict[int, Confidential] = {}
        unreadable: DisabledError | None = None
        number = self._newest
        if number is None:
            try:
                number, data = store.latest(self._secret)
                fresh[number], self._newest = data, number
            except DisabledError as error:
                number, unreadable = held.prev, error
        try:
            for later, data in later_versions(store, self._secret, number):
                # Kept at once: a search that is interrupted half-way up a thousand versions resumes there.
                fresh[later], self._newest, unreadable = data, later, None
                fresh.pop(later - _KEPT, None)
        except DisabledError as error:
            unreadable = error
        return fresh, unreadable

    def _candidates(self, store: Reader, fresh: dict[int, Confidential], held: TrustDocument) -> Iterator[_Candidate]:
        """Yield rivals by descending epoch, on a tie the lowest number first (`daskpki.store.append_chain`, rule 1)."""
        newest = max(fresh, default=self._newest or 0)
        rivals: list[_Candidate] = []
        in_force: int | None = None
        # The document in force lies above its predecessor, unless this is another secret.
        floor = self._mark if self._mark is not None else held.prev if held.prev < newest else 0
        for number in range(newest, floor, -1):
            if rivals and (number <= min(rival.document.prev for rival in rivals) or len(rivals) == _RIVALS):
                yield from sorted(rivals, key=_by_rank)
                rivals.clear()
            found = self._read(store, number, fresh)
            if found is not None and found.document.epoch > held.epoch:
                rivals.append(found)
            elif found is not None:
                self._passed.add(number)
                in_force = number if found.document == held else in_force
        yield from sorted(rivals, key=_by_rank)
        if in_force is not None:  # the lowest: a forger may add copies of it above later documents
            self._settle(in_force)

    def _read(self, store: Reader, number: int, fresh: dict[int, Confidential]) -> _Candidate | None:
        if number in self._passed or self._now() < self._refused.get(number, 0):
            return None
        try:
            data = fresh.pop(number, None) or store.access(self._secret, number)
            return _Candidate(number, data, parse_trust(data).document)
        except (NotFoundError, DisabledError, NotTrustedError) as error:
            self._passed.add(number)
            logger.warning("version %d of %s is no trust document that can be read: %s", number, self._secret, error)
            return None


def _by_rank(candidate: _Candidate) -> tuple[int, int]:
    return -candidate.document.epoch, candidate.number


_ATTEMPT: Final = 30.0
"""Seconds for one poll; the next one comes soon."""


OpenReader = Callable[[], AbstractContextManager[Reader]]


class StoreSource:
    """`daskpki.cluster.refresh.Source` over a store; with `own`, also for newer versions of that credential.

    A client has no `own`, nor has a node that was booted with --version, since it keeps that version.
    """

    def __init__(self, cluster: str, open_reader: OpenReader, own: tuple[Role, str] | None = None) -> None:
        self._cluster = cluster
        self._own = own
        self._open = open_reader
        self._trust = TrustVersions(cluster)
        self._in_use: int | None = None
        """Version of the credential in use, as far as known."""
        self._number: int | None = None
        self._offered: KeyPair | None = None
        """The newest credential found, of version `_number`."""

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        """Yield later documents; those of the store's newest versions first."""
        with self._open() as store:
            yield from self._trust.after(store, held)

    def credential(self, held: KeyPair) -> KeyPair | None:
        """Find a newer credential; DisabledError if the newest version is unreadable."""
        if self._own is None:
            return None
        if self._offered is not None and self._offered.certificates == held.certificates:
            self._in_use = self._number
        secret = secret_names.credential_id(self._cluster, *self._own)
        with self._open() as store:
            newest = store.latest(secret) if self._in_use is None else None
            for later in later_versions(store, secret, newest[0] if newest else self._in_use or 0):
                newest = later
        if newest is None:
            return None
        number, payload = newest
        credential = parse_own_credential(payload, self._cluster, *self._own)
        self._number, self._offered = number, key_pair(credential)
        return self._offered


def directory_source(directory: str) -> WholeSource:
    """Make a source over a directory that `daskpki export` wrote, and may write again.

    It raises the errors of `daskpki.boot.fetch.read_directory`, also while the directory is being written.
    """

    def read() -> tuple[Confidential, KeyPair]:
        found = read_directory(directory)
        (credential,) = found.credentials
        return found.trust.data, key_pair(credential)

    return WholeSource(read, directory)


def file_source(file: str, cluster: str, store: Source) -> WholeSource:
    """Make a source over a credential file, which a kubelet or CSI driver replaces when it changes.

    The trust document is the one beside it, else that of `store`. CorruptError for a payload without a key.
    """
    from daskpki.credentials.credential_files import load_file

    def read() -> tuple[Confidential | None, KeyPair]:
        found, beside = load_file(Path(file), cluster)
        if found.key is None:
            raise CorruptError("the credential file has no key any more")
        return beside and beside.data, key_pair(found)

    return WholeSource(read, file, store)


def open_source(handover: Handover, environ: Mapping[str, str] = os.environ) -> Source:
    """Open the source of a node; a NullSource if neither a store nor a directory can be read."""
    store: Source = NullSource()
    if handover.store is not None:
        url = parse_store_url(handover.store)
        own = None if handover.pinned else (parse_role(handover.role), handover.name)
        store = StoreSource(handover.cluster, partial(open_reader, url, handover.endpoint, environ), own)
    if handover.directory is not None:
        mounted = directory_source(handover.directory)
    elif handover.file is not None:
        mounted = file_source(handover.file, handover.cluster, store)
    else:
        return store
    try:
        mounted.credential()
    except DaskpkiError as error:  # the entrypoint read it, perhaps as another user (node --worker-user)
        logger.warning(
            "this node gets newer trust documents only if they are pushed to it, and no newer credential: %s", error
        )
        return NullSource()
    return mounted


def open_reader(url: StoreUrl, endpoint: str | None, environ: Mapping[str, str]) -> AbstractContextManager[Reader]:
    """Open a store for one poll; `endpoint` is another Secret Manager than Google's."""
    from daskpki.boot.http import RetryPolicy  # not at the start of a node

    policy = RetryPolicy(time.monotonic() + _ATTEMPT, note=lambda _text: None)
    return fetch.open_reader(url, endpoint, environ, policy)
