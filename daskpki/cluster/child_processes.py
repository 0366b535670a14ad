"""Passes a parent's newest credential and trust document to its child processes, in memory, under a fixed path.

A nanny's worker process reads that path when it starts, and again while it runs (`parent_source`). So newer material
reaches it without a message, and no key leaves memory. A process that can open the path runs as the same user, and
could read the parent's memory anyway.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import defaultdict, deque
from pathlib import Path
from typing import Final

from daskpki.cluster.refresh import WholeSource
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager
from daskpki.confidential import Confidential
from daskpki.errors import UnavailableError
from daskpki.files import write_private
from daskpki.handover import Handover, encode_handover, load_handover
from daskpki.pki.pem import CERTIFICATE, encode_pem

_KEPT: Final = 16
"""Memfds of each name kept open: the newest, and old ones, since a child may still be reading an earlier handover."""


class ChildHandover:
    """Keeps the newest handover for child processes: in memfds like `handover`, or beside its files on tmpfs."""

    def __init__(self, handover: Handover) -> None:
        own = Path(handover.key)
        self._directory = None if own.is_relative_to("/proc") else own.parent
        self._descriptors: defaultdict[str, deque[int]] = defaultdict(deque)
        self._lock = threading.Lock()  # a trust document may come in the event loop, a credential in a poll's thread
        self.handover = handover
        self.path = self._put("handover.json", encode_handover(handover))
        self._board = self._descriptors["handover.json"].pop() if self._directory is None else None
        """The memfd of the handover, which each change replaces."""

    def keep_trust(self, manager: TrustManager) -> None:
        """Write the trust document in force."""
        with self._lock:
            assert manager.signed is not None
            anchors = "".join(encode_pem(anchor, CERTIFICATE) for anchor in manager.document.roots)
            ca, trust = self._put("ca.pem", anchors.encode()), self._put("trust.json", manager.signed.reveal())
            self._replace(self.handover._replace(ca=ca, trust=trust))

    def keep_credential(self, pair: KeyPair) -> None:
        """Write a newer credential of the same identity."""
        with self._lock:
            cert, key = self._put("cert.pem", pair.certificates.encode()), self._put("key.pem", pair.key.reveal())
            self._replace(self.handover._replace(cert=cert, key=key))

    def _replace(self, handover: Handover) -> None:
        """Replace the handover at `path` in one step, so that no reader sees half of it."""
        self.handover = handover
        data = encode_handover(handover)
        if self._board is None:
            write_private(Path(self.path), data, force=True)
            return
        newer = _memory_file("handover.json", data)
        os.dup2(newer, self._board, inheritable=False)
        os.close(newer)

    def _put(self, name: str, data: bytes) -> str:
        if self._directory is not None:
            path = self._directory / f"{secrets.token_hex(8)}-{name}"
            write_private(path, data)
            return str(path)
        kept = self._descriptors[name]
        kept.append(_memory_file(name, data))
        if len(kept) > _KEPT:
            os.close(kept.popleft())
        return f"/proc/{os.getpid()}/fd/{kept[-1]}"


def _memory_file(name: str, data: bytes) -> int:
    descriptor = os.memfd_create(f"daskpki-{name}")
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.fchmod(descriptor, 0o400)
    return descriptor


def parent_source(path: str) -> WholeSource:
    """Make a source over the handover of the parent process; reading it costs next to nothing.

    CorruptError if the handover is gone, since the parent has ended; UnavailableError if a file that it names is.
    """

    def read() -> tuple[Confidential, KeyPair]:
        handover = load_handover(path)
        try:
            cert, key, trust = (Path(each).read_bytes() for each in (handover.cert, handover.key, handover.trust))
        except OSError as error:
            raise UnavailableError(f"the parent's handover at {path} cannot be read: {error.strerror}") from None
        return Confidential(trust), KeyPair(cert.decode(), Confidential(key))

    return WholeSource(read, path)
