"""Newer material for the processes that this one starts: where the handover's own files lie, in memory."""

from __future__ import annotations

import os
import secrets
from collections import deque
from pathlib import Path
from typing import Final

from daskpki.cluster.keeper import Keeper
from daskpki.files import write_private
from daskpki.handover import Handover
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.pem import CERTIFICATE, encode_pem

_KEPT: Final = 64
"""Descriptors that stay open: a process that is being started may still read those of the last change."""


class Files:
    """Beside those of `handover`: memfds if its files are such, else files in the same directory on tmpfs."""

    def __init__(self, handover: Handover) -> None:
        own = Path(handover.key)
        self._directory = None if own.is_relative_to("/proc") else own.parent
        self._descriptors: deque[int] = deque()

    def with_trust(self, handover: Handover, keeper: Keeper) -> Handover:
        """The handover with the trust document that holds now."""
        assert keeper.signed is not None
        anchors = "".join(encode_pem(anchor, CERTIFICATE) for anchor in keeper.document.roots)
        return handover._replace(
            ca=self._put("ca.pem", anchors.encode()),
            trust=self._put("trust.json", keeper.signed.reveal()),
            pieces={number: self._put(f"revoked-{number}", piece) for number, piece in keeper.pieces.items()},
        )

    def with_credential(self, handover: Handover, credential: Credential) -> Handover:
        """The handover with a newer credential of the same identity."""
        return handover._replace(
            cert=self._put("cert.pem", certificate_pem(credential).encode()),
            key=self._put("key.pem", key_pem(credential).reveal()),
        )

    def _put(self, name: str, data: bytes) -> str:
        if self._directory is not None:
            path = self._directory / f"{secrets.token_hex(8)}-{name}"
            write_private(path, data)
            return str(path)
        descriptor = os.memfd_create(f"daskpki-{name}")
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        self._descriptors.append(descriptor)
        if len(self._descriptors) > _KEPT:
            os.close(self._descriptors.popleft())
        return f"/proc/{os.getpid()}/fd/{descriptor}"
