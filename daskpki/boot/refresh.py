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
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from daskpki import secret_names
from daskpki.boot.fetch import Material, Reader, parse_own_credential
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
from daskpki.settings import GsmUrl, LocalUrl, PluginUrl, StoreUrl, parse_store_url

if TYPE_CHECKING:
    from daskpki.credentials.one_file import CredentialFile

_KEPT: Final = 16
"""Versions that are kept in memory while the newest is looked for; the others are read again."""
_RIVALS: Final = 16
"""Versions that are put in order by their epochs: writers that meet leave few, and anybody may claim to be one."""

logger = logging.getLogger("distributed.daskpki")


class _Candidate(NamedTuple):
    """A version of the trust secret that claims a later epoch than what is in force; nothing of it is verified."""

    number: int
    data: Confidential
    document: TrustDocument


class TrustVersions:
    """A cluster's trust documents in a store, newest first, each of them read once.

    Whoever may add versions may put some that do not hold in front of the one that revokes him. So no version is
    believed about where to begin: all above the one in force are looked at, from the newest down, and the mark moves
    only to what is in force. `now` is in seconds since the epoch.
    """

    def __init__(self, cluster: str, now: Callable[[], float] = time.time) -> None:
        self._secret = secret_names.trust_id(cluster)
        self._now = now
        self._mark: int | None = None
        self._newest: int | None = None
        self._held: TrustDocument | None = None
        self._offered: _Candidate | None = None
        self._passed: set[int] = set()
        """Numbers above the mark that are of no use, whatever is in force: not later, or unreadable."""
        self._refused: dict[int, float] = {}
        """Numbers that did not hold after the document in force, and from when on that may be different."""

    def after(self, store: Reader, held: TrustDocument) -> Iterator[TrustMessage]:
        """See daskpki.cluster.refresh.Source; DisabledError when the very newest version cannot be read.

        What that one says must not be passed over silently.
        """
        self._begin(held)
        fresh, unreadable = self._climb(store, held)
        for candidate in self._candidates(store, fresh, held):
            self._offered = candidate
            yield TrustMessage(candidate.data, f"version {candidate.number} of {self._secret}")
            self._refuse(candidate)  # the next one was asked for
        if unreadable is not None:
            raise unreadable

    def _begin(self, held: TrustDocument) -> None:
        if self._offered is not None and self._offered.document == held:
            self._settle(self._offered.number)
        self._offered = None
        if held != self._held:  # which may vouch for what the one before did not
            self._held = held
            self._refused.clear()

    def _settle(self, number: int) -> None:
        """Take `number` for the version in force."""
        self._mark = number
        self._passed = {passed for passed in self._passed if passed > number}
        self._refused = {refused: moment for refused, moment in self._refused.items() if refused > number}

    def _refuse(self, candidate: _Candidate) -> None:
        """Look at it no more; but one of the future may hold once the clock, which may be wrong, has come to it."""
        begin = candidate.document.issued_at - CLOCK_SKEW
        self._refused[candidate.number] = begin if begin > self._now() else math.inf

    def _pass_over(self, number: int, error: DaskpkiError) -> None:
        self._passed.add(number)
        logger.warning("version %d of %s is no trust document that can be read: %s", number, self._secret, error)

    def _climb(self, store: Reader, held: TrustDocument) -> tuple[dict[int, Confidential], DisabledError | None]:
        """Find the newest number; what was read on the way, and why the newest itself cannot be read, if so."""
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
            # Kept at once: a look that is cut off half-way up a thousand versions goes on from there.
            fresh[number], self._newest, unreadable = data, number, None
            fresh.pop(number - _KEPT, None)

    def _candidates(self, store: Reader, fresh: dict[int, Confidential], held: TrustDocument) -> Iterator[_Candidate]:
        """Greatest epochs first among rivals; on a tie, the lowest number (`daskpki.store.append_chain`, rule 1)."""
        newest = max(fresh, default=self._newest or 0)
        rivals: list[_Candidate] = []
        in_force: int | None = None
        for number in range(newest, self._floor(newest, held), -1):
            if rivals and (number <= min(rival.document.prev for rival in rivals) or len(rivals) == _RIVALS):
                yield from sorted(rivals, key=_by_rank)
                rivals.clear()
            found = self._look_at(store, number, fresh)
            if found is not None and found.document.epoch > held.epoch:
                rivals.append(found)
            elif found is not None:
                self._passed.add(number)
                in_force = number if found.document == held else in_force
        yield from sorted(rivals, key=_by_rank)
        if in_force is not None:  # the first of them: anybody may add copies of it above what is to come
            self._settle(in_force)

    def _floor(self, newest: int, held: TrustDocument) -> int:
        """The number above which to look: what is in force lies above its predecessor, unless the secret is another."""
        if self._mark is not None:
            return self._mark
        return held.prev if held.prev < newest else 0

    def _look_at(self, store: Reader, number: int, fresh: dict[int, Confidential]) -> _Candidate | None:
        if number in self._passed or self._now() < self._refused.get(number, 0):
            return None
        try:
            data = fresh.pop(number, None) or store.access(self._secret, number)
            return _Candidate(number, data, parse_trust(data).document)
        except (NotFoundError, DisabledError, NotTrustedError) as error:
            self._pass_over(number, error)
            return None


def _by_rank(candidate: _Candidate) -> tuple[int, int]:
    return -candidate.document.epoch, candidate.number


_ATTEMPT: Final = 30.0
"""Seconds that one look may take; the next one comes soon."""


OpenReader = Callable[[], AbstractContextManager[Reader]]


class Versions:
    """The versions of one secret, followed by number."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.seen: int | None = None

    def newest(self, store: Reader) -> tuple[int, Confidential] | None:
        """Number and payload of the newest version above `seen`, if there is one; `seen` is the caller's to move.

        DisabledError when the very newest cannot be read: what it says must not be passed over silently.
        """
        found = store.latest(self.secret) if self.seen is None else None
        number = found[0] if found else self.seen or 0
        unreadable: DisabledError | None = None
        while True:
            number += 1
            try:
                found, unreadable = (number, store.access(self.secret, number)), None
            except DisabledError as error:
                unreadable = error
            except NotFoundError:
                break
        if unreadable is not None:
            raise unreadable
        return found


class StoreSource:
    """`daskpki.cluster.refresh.Source` over a store."""

    def __init__(self, handover: Handover, open_reader: OpenReader) -> None:
        self._cluster = handover.cluster
        self._role, self._name = parse_role(handover.role), handover.name
        self._pinned = handover.pinned is not None
        self._open = open_reader
        self._trust = TrustVersions(self._cluster)
        self._number: int | None = None
        self._offered: KeyPair | None = None
        """The newest credential that was found, and its version; `seen` moves to it once it is in use."""
        self._credential = Versions(secret_names.credential_id(self._cluster, self._role, self._name))

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        """See daskpki.cluster.refresh.Source."""
        with self._open() as store:
            yield from self._trust.after(store, held)

    def credential(self, held: KeyPair) -> KeyPair | None:
        """See daskpki.cluster.refresh.Source; a node that was booted with --version keeps that one."""
        if self._pinned:
            return None
        if self._offered is not None and self._offered.certificates == held.certificates:
            self._credential.seen = self._number
        with self._open() as store:
            newest = self._credential.newest(store)
        if newest is None:
            return None
        number, payload = newest
        credential = parse_own_credential(payload, self._cluster, self._role, self._name)
        self._number, self._offered = number, KeyPair(certificate_pem(credential), key_pem(credential))
        return self._offered


class DirectorySource:
    """`daskpki.cluster.refresh.Source` over a directory that `daskpki export` wrote, and may write again.

    Both raise what `daskpki.boot.fetch.read_directory` does, also for one that is being written just now.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        """See daskpki.cluster.refresh.Source."""
        found = self._read()
        if found.trust.signed.document.epoch > held.epoch:
            yield TrustMessage(found.trust.data, self._directory)

    def credential(self, held: KeyPair | None = None) -> KeyPair:  # noqa: ARG002 - the protocol's signature
        """See daskpki.cluster.refresh.Source."""
        (credential,) = self._read().credentials
        return KeyPair(certificate_pem(credential), key_pem(credential))

    def _read(self) -> Material:
        from daskpki.boot.fetch import read_directory

        return read_directory(self._directory)


class FileSource:
    """`daskpki.cluster.refresh.Source` over a credential file, which a kubelet or CSI driver replaces when it changes.

    The trust document is the one beside it, else what `store` has.
    """

    def __init__(self, file: str, store: Source) -> None:
        self._file = file
        self._store = store

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        """See daskpki.cluster.refresh.Source."""
        beside = self._load().trust
        if beside is None:
            yield from self._store.trust_after(held)
        elif parse_trust(beside).document.epoch > held.epoch:
            yield TrustMessage(beside, self._file)

    def credential(self, held: KeyPair | None = None) -> KeyPair:  # noqa: ARG002 - the protocol's signature
        """See daskpki.cluster.refresh.Source; CorruptError for a payload without a key."""
        found = self._load()
        if found.key is None:
            raise CorruptError("the credential file holds no key any more")
        certificates = "".join(encode_pem(der, CERTIFICATE) for der in (found.leaf, *found.chain))
        return KeyPair(certificates, Confidential(encode_pem(found.key.reveal(), PRIVATE_KEY)))

    def _load(self) -> CredentialFile:
        from daskpki.credentials.one_file import load_file

        return load_file(Path(self._file))


def open_source(handover: Handover, environ: Mapping[str, str] = os.environ) -> Source:
    """The source of a node; one that has nothing where neither a store nor a directory can be read."""
    if handover.directory is not None:
        return _open_mounted(DirectorySource(handover.directory))
    store: Source = NullSource() if handover.store is None else _open_store(handover, handover.store, environ)
    return store if handover.file is None else _open_mounted(FileSource(handover.file, store))


def _open_store(handover: Handover, store: str, environ: Mapping[str, str]) -> Source:
    return StoreSource(handover, partial(open_reader, parse_store_url(store), handover.endpoint, environ))


@contextmanager
def open_reader(url: StoreUrl, endpoint: str | None, environ: Mapping[str, str]) -> Iterator[Reader]:
    """A store for one look; `endpoint` is another Secret Manager than Google's."""
    yield from _secret_manager(url, endpoint, environ) if isinstance(url, GsmUrl) else _local(url, environ)


def _open_mounted(source: DirectorySource | FileSource) -> Source:
    try:
        source.credential()
    except DaskpkiError as error:  # the entrypoint read it, perhaps as another user (node --worker-user)
        logger.warning("this node learns by pushes alone, and of no newer credential: %s", error)
        return NullSource()
    return source


def _local(url: LocalUrl | PluginUrl, environ: Mapping[str, str]) -> Iterator[Reader]:
    from daskpki.store.opening import open_store

    store = open_store(url, environ=environ)
    try:
        yield store.secrets
    finally:
        store.close()


def _secret_manager(url: GsmUrl, endpoint: str | None, environ: Mapping[str, str]) -> Iterator[Reader]:
    from daskpki.boot.fetch import open_secret_manager
    from daskpki.boot.http import RetryPolicy

    patience = RetryPolicy(time.monotonic() + _ATTEMPT, note=lambda _text: None)
    yield open_secret_manager(url, endpoint, environ, patience)
