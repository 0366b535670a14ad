"""Sources of newer material for a running node: the store, directory or file that it booted from, by `access` only.

Version numbers go up by one, so after the first poll each secret costs one request: the next number, usually a 404.
`latest` is read only once, since it may lag by minutes. A credential directory is read again as a whole; Kubernetes
replaces it in one step when the secret changes.

`TrustVersions` verifies all versions of the trust secret above the one in force, each once, so a forged version cannot
hide a valid one. Which of the valid ones counts is decided by `daskpki.store.append_chain`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from daskpki import secret_names
from daskpki.boot import fetch
from daskpki.boot.fetch import Reader, later_versions, read_directory
from daskpki.cluster.refresh import NullSource, Refused, Source, WholeSource
from daskpki.cluster.tls import KeyPair, key_pair
from daskpki.cluster.trust_updates import TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DaskpkiError, DisabledError, NotTrustedError, NotYetValidError
from daskpki.handover import Handover
from daskpki.identity import Role, parse_role
from daskpki.pki.credential import parse_own_credential
from daskpki.pki.crl import CLOCK_SKEW
from daskpki.pki.trust_document import TrustDocument, TrustPayload
from daskpki.settings import StoreUrl, parse_store_url
from daskpki.store.append_chain import AppendChain, ChainHead, Tip, first_after, trust_chain

if TYPE_CHECKING:
    from daskpki.store.port import SecretStore

logger = logging.getLogger("distributed.daskpki")


_Chain = AppendChain[TrustPayload]
_Seen = dict[int, ChainHead[TrustPayload] | None]


class TrustVersions:
    """Finds newer documents in a cluster's trust secret, by its append chain. `now` is in seconds since the epoch.

    An account that may add versions can put invalid ones above the one that revokes it. So each version above the
    document in force is verified against it, once, in the order of the numbers; those that are invalid do not count.
    Another document in force may make them valid, so the versions above that one are then verified again.
    """

    def __init__(self, cluster: str, now: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._secret = secret_names.trust_id(cluster)
        self._now = now
        self._held: TrustDocument | None = None
        self._tip: Tip[TrustPayload] | None = None
        """Point that the search under `_held` has reached."""
        self._again = math.inf
        """Time from which a document that was too new for this machine's clock may be valid."""

    def after(self, store: Reader, held: TrustDocument, refused: Refused) -> TrustMessage | None:
        """Find as `daskpki.cluster.refresh.Source` does; DisabledError if the newest version cannot be read.

        That version may be a revocation, so it must not be skipped silently.
        """
        chain = trust_chain(cast("SecretStore", store), self._cluster, partial(self._counts, held, refused))
        tip, seen = self._tip, _Seen()
        if tip is None or held != self._held or self._now() >= self._again:
            self._held, self._again = held, math.inf
            tip = self._start(store, chain, held, seen)
            self._tip = tip if tip.readable else None
        for later in chain.later(tip, seen):
            self._tip = tip = later  # at once: a search that is cut off half-way up a thousand versions resumes there
        if chain.foreign:
            newest, why = max(chain.foreign.items())
            found = len(chain.foreign)
            logger.warning("%s: found %d versions that do not count; version %d: %s", self._secret, found, newest, why)
        if tip.head is not None and tip.head.link.seq > held.epoch:
            return self._message(tip.head)
        chain.check_readable(tip)
        return None

    def _start(self, store: Reader, chain: _Chain, held: TrustDocument, seen: _Seen) -> Tip[TrustPayload]:
        """Return where the check of versions against `held` begins; adds the version that is judged here to `seen`."""
        if self._tip is not None:
            head = self._tip.head
            if head is not None and head.authentic and head.payload.signed.document == held:
                return Tip(head, head.number)
            return Tip(None, min(held.prev, self._tip.newest))
        try:
            newest, data = store.latest(self._secret)
        except DisabledError:
            return Tip(None, held.prev + 1, readable=False)
        latest = seen[newest] = chain.judge(newest, data)
        if latest is not None and latest.link.seq > held.epoch:
            return Tip(None, first_after(latest) - 1)
        # The document in force is a version after `held.prev`, unless this is another secret, without that number.
        start = Tip[TrustPayload](None, held.prev)
        is_here = held.prev <= newest or next(chain.later(start), None) is not None  # `latest` may lag
        return start if is_here else Tip(None, 0)

    def _counts(self, held: TrustDocument, refused: Refused, found: ChainHead[TrustPayload]) -> bool:
        from daskpki.pki.trust import verify_trust  # it loads the X.509 library

        signed, now = found.payload.signed, datetime.fromtimestamp(self._now(), UTC)
        if signed.document.epoch <= held.epoch:
            return False
        try:
            verify_trust(signed, now=now, cluster=self._cluster, previous=held)
        except NotTrustedError as error:
            refused(self._message(found), error)
            if isinstance(error, NotYetValidError):
                self._again = min(self._again, signed.document.issued_at - CLOCK_SKEW)
            raise
        return True

    def _message(self, found: ChainHead[TrustPayload]) -> TrustMessage:
        return TrustMessage(found.payload.data, f"version {found.number} of {self._secret}")


_ATTEMPT: Final = 30.0
"""Seconds for one poll; the next one comes soon."""


OpenReader = Callable[[], AbstractContextManager[Reader]]


class StoreSource:
    """`daskpki.cluster.refresh.Source` over a store; with `own`, also for newer versions of that credential.

    `own` is None for a client, and for a node that was booted with --version: the node keeps that version.
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

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:
        """Find the newest valid document; DisabledError if there is none, and the newest version is unreadable."""
        with self._open() as store:
            return self._trust.after(store, held, refused)

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
    """Open a store for one poll; `endpoint` is the address of a Secret Manager other than Google's."""
    from daskpki.boot.http import RetryPolicy  # not at the start of a node

    policy = RetryPolicy(time.monotonic() + _ATTEMPT, note=lambda _text: None)
    return fetch.open_reader(url, endpoint, environ, policy)
