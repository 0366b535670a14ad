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
from typing import Final

from daskpki import secret_names
from daskpki.boot.fetch import Material, Reader, newest_trust, parse_own_credential
from daskpki.cluster.refresh import NullSource, Source
from daskpki.cluster.tls import KeyPair
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, DisabledError, NotFoundError
from daskpki.handover import Handover
from daskpki.identity import parse_role
from daskpki.pki.credential import certificate_pem, key_pem
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
    """`daskpki.cluster.refresh.Source` over a store."""

    def __init__(self, handover: Handover, open_reader: OpenReader) -> None:
        self._cluster = handover.cluster
        self._role, self._name = parse_role(handover.role), handover.name
        self._pinned = handover.pinned is not None
        self._open = open_reader
        self._trust = Versions(secret_names.trust_id(self._cluster))
        self._credential = Versions(secret_names.credential_id(self._cluster, self._role, self._name))

    def trust_after(self, epoch: int) -> Confidential | None:
        """See daskpki.cluster.refresh.Source."""
        with self._open() as store:
            newest = self._trust.newest(store)
            found = None if newest is None else newest_trust(store, self._cluster)
        if newest is not None:
            self._trust.seen = newest[0]  # not before: a look that failed half-way is taken again
        return found.data if found is not None and found.signed.document.epoch > epoch else None

    def credential(self) -> KeyPair | None:
        """See daskpki.cluster.refresh.Source; a node that was booted with --version keeps that one."""
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
    """`daskpki.cluster.refresh.Source` over a directory that `daskpki export` wrote, and may write again.

    Both raise what `daskpki.boot.fetch.read_directory` does, also for one that is being written just now.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def trust_after(self, epoch: int) -> Confidential | None:
        """See daskpki.cluster.refresh.Source."""
        found = self._read()
        document = found.trust.signed.document
        return found.trust.data if document.epoch > epoch else None

    def credential(self) -> KeyPair:
        """See daskpki.cluster.refresh.Source."""
        (credential,) = self._read().credentials
        return KeyPair(certificate_pem(credential), key_pem(credential))

    def _read(self) -> Material:
        from daskpki.boot.fetch import read_directory

        return read_directory(self._directory)


def open_source(handover: Handover, environ: Mapping[str, str] = os.environ) -> Source:
    """The source of a node; one that has nothing where neither a store nor a directory can be read."""
    if handover.directory is not None:
        return _open_directory(handover.directory)
    if handover.store is None:
        return NullSource()
    url = parse_store_url(handover.store)

    @contextmanager
    def reader() -> Iterator[Reader]:
        yield from _secret_manager(url, handover, environ) if isinstance(url, GsmUrl) else _local(url, environ)

    return StoreSource(handover, reader)


def _open_directory(directory: str) -> Source:
    source = DirectorySource(directory)
    try:
        source.credential()
    except DaskpkiError as error:  # the entrypoint read it, perhaps as another user (node --worker-user)
        logger.warning("this node learns by pushes alone, and of no newer credential: %s", error)
        return NullSource()
    return source


def _local(url: LocalUrl, environ: Mapping[str, str]) -> Iterator[Reader]:
    from daskpki.store.opening import open_store

    store = open_store(url, environ=environ)
    try:
        yield store.secrets
    finally:
        store.close()


def _secret_manager(url: GsmUrl, handover: Handover, environ: Mapping[str, str]) -> Iterator[Reader]:
    from daskpki.boot.fetch import open_secret_manager
    from daskpki.boot.http import RetryPolicy

    patience = RetryPolicy(time.monotonic() + _ATTEMPT, note=lambda _text: None)
    yield open_secret_manager(url, handover.endpoint, environ, patience)
