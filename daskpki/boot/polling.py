"""Where a running node looks for newer material: the same source as at boot, by access only.

Version numbers go up by one, so after the first look each secret costs one request: the next number, usually a 404.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeVar

from daskpki import naming
from daskpki.boot.reading import Reader, newest_trust, read_credential
from daskpki.cluster.news import SignedTrust
from daskpki.errors import NotFoundError
from daskpki.handover import Handover
from daskpki.identity import parse_role
from daskpki.pki.credential import Credential
from daskpki.settings import GsmUrl, LocalUrl, parse_store_url

T = TypeVar("T")

_ATTEMPT: Final = 30.0
"""Seconds that one look may take; the next one comes soon."""

OpenReader = Callable[[], AbstractContextManager[Reader]]


class StoreSource:
    """`daskpki.cluster.watch.Source` over a store."""

    def __init__(self, handover: Handover, open_reader: OpenReader) -> None:
        self._handover = handover
        self._open = open_reader
        self._seen: dict[str, int] = {}

    def trust_after(self, epoch: int) -> SignedTrust | None:
        """See daskpki.cluster.watch.Source."""
        cluster = self._handover.cluster
        with self._open() as store:
            return self._news(store, naming.trust_id(cluster), lambda: _trust(store, cluster, epoch))

    def credential(self) -> Credential | None:
        """See daskpki.cluster.watch.Source; a node that was booted with --version keeps that one."""
        if self._handover.pinned:
            return None
        cluster, role, name = self._handover.cluster, parse_role(self._handover.role), self._handover.name
        with self._open() as store:
            secret = naming.credential_id(cluster, role, name)
            return self._news(store, secret, lambda: read_credential(store, cluster, role, name))

    def _news(self, store: Reader, secret: str, read: Callable[[], T]) -> T | None:
        """What `read` brings if the secret has a version that was not seen yet; at the first look it has."""
        number = self._newer(store, secret)
        if number is None:
            return None
        found = read()
        self._seen[secret] = number  # not before: a look that failed half-way is taken again
        return found

    def _newer(self, store: Reader, secret: str) -> int | None:
        seen = self._seen.get(secret)
        if seen is None:
            return store.latest(secret)[0]
        try:
            store.access(secret, seen + 1)
        except NotFoundError:
            return None
        return seen + 1


def _trust(store: Reader, cluster: str, epoch: int) -> SignedTrust | None:
    found = newest_trust(store, cluster)
    document = found.signed.document
    if document.epoch <= epoch:
        return None
    secret = naming.revoked_id(cluster)
    versions = [piece.version for part in document.crls for piece in part.pieces]
    return SignedTrust(found.data, {version: store.access(secret, version).reveal() for version in versions})


def open_source(handover: Handover, environ: Mapping[str, str] = os.environ) -> StoreSource | None:
    """The source of a node; None when its credential came from a directory, which is read once."""
    if handover.store is None:
        return None
    url = parse_store_url(handover.store)

    @contextmanager
    def reader() -> Iterator[Reader]:
        yield from _secret_manager(url, handover, environ) if isinstance(url, GsmUrl) else _local(url, environ)

    return StoreSource(handover, reader)


def _local(url: LocalUrl, environ: Mapping[str, str]) -> Iterator[Reader]:
    from daskpki.store.opening import open_store

    store = open_store(url, environ=environ)
    try:
        yield store.secrets
    finally:
        store.close()


def _secret_manager(url: GsmUrl, handover: Handover, environ: Mapping[str, str]) -> Iterator[Reader]:
    from daskpki.boot.retry import Patience
    from daskpki.boot.sources import open_secret_manager

    patience = Patience(time.monotonic() + _ATTEMPT, note=lambda _text: None)
    yield open_secret_manager(url, handover.endpoint, environ, patience)
