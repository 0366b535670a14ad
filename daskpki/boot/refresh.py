"""Looks for newer material on a running node, in the source it booted from, by `access` only.

Version numbers go up by one, so after the first look each secret costs one request: the next number, usually a 404.
`latest` is read only once, since it may lag by minutes. A credential directory is read again as a whole; Kubernetes
replaces it in one step when the secret changes.

`TrustVersions` tries all versions of the trust secret above the one in force, newest first, and each refused version
once: a forged version hides no true one.
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
from typing import TYPE_CHECKING, Final, NamedTuple

from daskpki import secret_names
from daskpki.boot import fetch
from daskpki.boot.fetch import Reader, parse_own_credential, read_directory
from daskpki.cluster.refresh import NullSource, Source
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DaskpkiError, DisabledError, NotFoundError, NotTrustedError
from daskpki.handover import Handover
from daskpki.identity import parse_role
from daskpki.pki.credential import certificate_pem, key_pem
from daskpki.pki.crl import CLOCK_SKEW
from daskpki.pki.pem import CERTIFICATE, PRIVATE_KEY, encode_pem
from daskpki.pki.trust_document import TrustDocument, parse_trust
from daskpki.settings import StoreUrl, parse_store_url

if TYPE_CHECKING:
    from daskpki.credentials.credential_files import CredentialFiles

_KEPT: Final = 16
"""Versions kept in memory during a search for the newest; the others are read again."""
_RIVALS: Final = 16
"""Rivals that are sorted by epoch, at most: concurrent writers leave few, and a forger may add many."""

logger = logging.getLogger("distributed.daskpki")


class _Candidate(NamedTuple):
    """An unverified version of the trust secret that claims a later epoch than the document in force."""

    number: int
    data: Confidential
    document: TrustDocument


class TrustVersions:
    """A cluster's trust documents in a store, newest first, each read once.

    An account that may add versions can put invalid ones above the one that revokes it. So no version is trusted to
    say where to begin: all above the one in force are examined, from the newest down, and the mark moves only to the
    one in force. `now` is in seconds since the epoch.
    """

    def __init__(self, cluster: str, now: Callable[[], float] = time.time) -> None:
        self._secret = secret_names.trust_id(cluster)
        self._now = now
        self._mark: int | None = None
        self._newest: int | None = None
        self._held: TrustDocument | None = None
        self._offered: _Candidate | None = None
        self._passed: set[int] = set()
        """Numbers above the mark that are useless under any document in force: not later, or unreadable."""
        self._refused: dict[int, float] = {}
        """Numbers that were refused under the document in force, each with the time from which it may be valid."""

    def after(self, store: Reader, held: TrustDocument) -> Iterator[TrustMessage]:
        """Yield as `daskpki.cluster.refresh.Source` does; DisabledError if the newest version cannot be read.

        It may be a revocation, so it must not be skipped silently.
        """
        self._begin(held)
        fresh, unreadable = self._climb(store, held)
        for candidate in self._candidates(store, fresh, held):
            self._offered = candidate
            yield TrustMessage(candidate.data, f"version {candidate.number} of {self._secret}")
            # The caller refused it. One of the future may be valid once the clock, which may be wrong, reaches it.
            begin = candidate.document.issued_at - CLOCK_SKEW
            self._refused[candidate.number] = begin if begin > self._now() else math.inf
        if unreadable is not None:
            raise unreadable

    def _begin(self, held: TrustDocument) -> None:
        if self._offered is not None and self._offered.document == held:
            self._settle(self._offered.number)
        self._offered = None
        if held != self._held:  # under the newer one, refused documents may be valid
            self._held = held
            self._refused.clear()

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
        while True:
            number += 1
            try:
                data = store.access(self._secret, number)
            except DisabledError as error:
                unreadable = error
                continue
            except NotFoundError:
                return fresh, unreadable
            # Kept at once: a search that is interrupted half-way up a thousand versions resumes there.
            fresh[number], self._newest, unreadable = data, number, None
            fresh.pop(number - _KEPT, None)

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
"""Seconds for one look; the next one comes soon."""


OpenReader = Callable[[], AbstractContextManager[Reader]]


class StoreSource:
    """`daskpki.cluster.refresh.Source` over a store."""

    def __init__(self, handover: Handover, open_reader: OpenReader) -> None:
        self._cluster = handover.cluster
        self._role, self._name = parse_role(handover.role), handover.name
        self._pinned = handover.pinned is not None
        self._open = open_reader
        self._trust = TrustVersions(self._cluster)
        self._secret = secret_names.credential_id(self._cluster, self._role, self._name)
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
        """Find a newer credential; a node that was booted with --version keeps that version."""
        if self._pinned:
            return None
        if self._offered is not None and self._offered.certificates == held.certificates:
            self._in_use = self._number
        with self._open() as store:
            newest = self._newest(store)
        if newest is None:
            return None
        number, payload = newest
        credential = parse_own_credential(payload, self._cluster, self._role, self._name)
        self._number, self._offered = number, KeyPair(certificate_pem(credential), key_pem(credential))
        return self._offered

    def _newest(self, store: Reader) -> tuple[int, Confidential] | None:
        """Find the newest version after the one in use; DisabledError if it is unreadable."""
        found = store.latest(self._secret) if self._in_use is None else None
        number = found[0] if found else self._in_use or 0
        unreadable: DisabledError | None = None
        while True:
            number += 1
            try:
                found, unreadable = (number, store.access(self._secret, number)), None
            except DisabledError as error:
                unreadable = error
            except NotFoundError:
                break
        if unreadable is not None:
            raise unreadable
        return found


class DirectorySource:
    """`daskpki.cluster.refresh.Source` over a directory that `daskpki export` wrote, and may write again.

    Both methods raise the errors of `daskpki.boot.fetch.read_directory`, also while the directory is being written.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        """Yield the directory's document if it is later."""
        found = read_directory(self._directory)
        if found.trust.signed.document.epoch > held.epoch:
            yield TrustMessage(found.trust.data, self._directory)

    def credential(self, held: KeyPair | None = None) -> KeyPair:  # noqa: ARG002 - the protocol's signature
        """Read the directory's credential, newer or not."""
        (credential,) = read_directory(self._directory).credentials
        return KeyPair(certificate_pem(credential), key_pem(credential))


class FileSource:
    """`daskpki.cluster.refresh.Source` over a credential file, which a kubelet or CSI driver replaces when it changes.

    The trust document is the one beside it, else the store's.
    """

    def __init__(self, file: str, store: Source) -> None:
        self._file = file
        self._store = store

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        """Yield the document beside the file, else the store's, if it is later."""
        _, beside = self._load()
        if beside is None:
            yield from self._store.trust_after(held)
        elif parse_trust(beside).document.epoch > held.epoch:
            yield TrustMessage(beside, self._file)

    def credential(self, held: KeyPair | None = None) -> KeyPair:  # noqa: ARG002 - the protocol's signature
        """Read the file's credential, newer or not; CorruptError for a payload without a key."""
        found, _ = self._load()
        if found.key is None:
            raise CorruptError("the credential file holds no key any more")
        certificates = "".join(encode_pem(der, CERTIFICATE) for der in (found.leaf, *found.chain))
        return KeyPair(certificates, Confidential(encode_pem(found.key.reveal(), PRIVATE_KEY)))

    def _load(self) -> tuple[CredentialFiles, Confidential | None]:
        from daskpki.credentials.credential_files import load_file

        return load_file(Path(self._file))


def open_source(handover: Handover, environ: Mapping[str, str] = os.environ) -> Source:
    """Open the source of a node; a NullSource if neither a store nor a directory can be read."""
    if handover.directory is not None:
        return _open_mounted(DirectorySource(handover.directory))
    store: Source = NullSource()
    if handover.store is not None:
        url = parse_store_url(handover.store)
        store = StoreSource(handover, partial(open_reader, url, handover.endpoint, environ))
    return store if handover.file is None else _open_mounted(FileSource(handover.file, store))


def open_reader(url: StoreUrl, endpoint: str | None, environ: Mapping[str, str]) -> AbstractContextManager[Reader]:
    """Open a store for one look; `endpoint` is another Secret Manager than Google's."""
    from daskpki.boot.http import RetryPolicy  # not at the start of a node

    policy = RetryPolicy(time.monotonic() + _ATTEMPT, note=lambda _text: None)
    return fetch.open_reader(url, endpoint, environ, policy)


def _open_mounted(source: DirectorySource | FileSource) -> Source:
    try:
        source.credential()
    except DaskpkiError as error:  # the entrypoint read it, perhaps as another user (node --worker-user)
        logger.warning("this node learns by pushes alone, and of no newer credential: %s", error)
        return NullSource()
    return source
