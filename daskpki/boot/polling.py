"""Where a running node looks for newer material: the same source as at boot, by access only.

A store's version numbers go up by one, so after the first look each secret costs one request: the next number, usually
a 404. `latest` is asked for once only, since it may lag behind by minutes. A credential directory is read again as a
whole, which costs nothing; Kubernetes puts another in its place in one step when the secret changes.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

from daskpki import naming
from daskpki.boot.reading import Material, Reader, parse_own_credential
from daskpki.boot.trust_versions import TrustVersions
from daskpki.cluster.contexts import KeyPair
from daskpki.cluster.news import SignedTrust
from daskpki.cluster.watch import Nowhere, Source
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, DisabledError, NotFoundError
from daskpki.handover import Handover
from daskpki.identity import parse_role
from daskpki.pki.credential import certificate_pem, key_pem
from daskpki.pki.trust_document import TrustDocument
from daskpki.settings import GsmUrl, LocalUrl, parse_store_url

_ATTEMPT: Final = 30.0
"""Seconds that one look may take; the next one comes soon."""

logger = logging.getLogger("distributed.daskpki")

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
    """`daskpki.cluster.watch.Source` over a store."""

    def __init__(self, handover: Handover, open_reader: OpenReader) -> None:
        self._cluster = handover.cluster
        self._role, self._name = parse_role(handover.role), handover.name
        self._pinned = handover.pinned is not None
        self._open = open_reader
        self._trust = TrustVersions(self._cluster)
        self._credential = Versions(naming.credential_id(self._cluster, self._role, self._name))

    def trust_after(self, held: TrustDocument) -> Iterator[SignedTrust]:
        """See daskpki.cluster.watch.Source."""
        with self._open() as store:
            yield from self._trust.after(store, held)

    def credential(self) -> KeyPair | None:
        """See daskpki.cluster.watch.Source; a node that was booted with --version keeps that one."""
        if self._pinned:
            return None
        with self._open() as store:
            newest = self._credential.newest(store)
        if newest is None:
            return None
        number, payload = newest
        credential = parse_own_credential(payload, self._cluster, self._role, self._name)
        self._credential.seen = number
        return KeyPair(certificate_pem(credential), key_pem(credential))


class DirectorySource:
    """`daskpki.cluster.watch.Source` over a directory that `daskpki export` wrote, and may write again.

    Both raise what `daskpki.boot.sources.read_directory` does, also for one that is being written just now.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def trust_after(self, held: TrustDocument) -> Iterator[SignedTrust]:
        """See daskpki.cluster.watch.Source."""
        found = self._read()
        if found.trust.signed.document.epoch > held.epoch:
            yield SignedTrust(found.trust.data, self._directory)

    def credential(self) -> KeyPair:
        """See daskpki.cluster.watch.Source."""
        (credential,) = self._read().credentials
        return KeyPair(certificate_pem(credential), key_pem(credential))

    def _read(self) -> Material:
        from daskpki.boot.sources import read_directory

        return read_directory(self._directory)


def open_source(handover: Handover, environ: Mapping[str, str] = os.environ) -> Source:
    """The source of a node; one that has nothing where neither a store nor a directory can be read."""
    if handover.directory is not None:
        return _open_directory(handover.directory)
    if handover.store is None:
        return Nowhere()
    url = parse_store_url(handover.store)
    return StoreSource(handover, partial(open_reader, url, handover.endpoint, environ))


@contextmanager
def open_reader(url: LocalUrl | GsmUrl, endpoint: str | None, environ: Mapping[str, str]) -> Iterator[Reader]:
    """A store for one look; `endpoint` is another Secret Manager than Google's."""
    yield from _secret_manager(url, endpoint, environ) if isinstance(url, GsmUrl) else _local(url, environ)


def _open_directory(directory: str) -> Source:
    source = DirectorySource(directory)
    try:
        source.credential()
    except DaskpkiError as error:  # the entrypoint read it, perhaps as another user (node --worker-user)
        logger.warning("this node learns by pushes alone, and of no newer credential: %s", error)
        return Nowhere()
    return source


def _local(url: LocalUrl, environ: Mapping[str, str]) -> Iterator[Reader]:
    from daskpki.store.opening import open_store

    store = open_store(url, environ=environ)
    try:
        yield store.secrets
    finally:
        store.close()


def _secret_manager(url: GsmUrl, endpoint: str | None, environ: Mapping[str, str]) -> Iterator[Reader]:
    from daskpki.boot.retry import Patience
    from daskpki.boot.sources import open_secret_manager

    patience = Patience(time.monotonic() + _ATTEMPT, note=lambda _text: None)
    yield open_secret_manager(url, endpoint, environ, patience)
