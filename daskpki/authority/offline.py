"""The key of an offline root: in one file, sealed by a passphrase of its own, to be put away.

The file is made before the root's certificate is signed. A command that was cut off in between finds the file again,
opens it by its passphrase and goes on with that key; a file that holds anything else is never overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.files import read_private, write_and_read_back
from daskpki.pki.keys import KeyType, PrivateKey, generate_key, parse_key, serialize_key
from daskpki.store.sealing import context, open_with_passphrase, seal_with_passphrase

_SETTING: Final = "the offline root's file (--offline-root)"


class OfflineRoot(NamedTuple):
    """The root's file; `passphrase` is asked for when it is needed, `new` telling whether it is to be chosen."""

    path: Path
    cluster: str
    passphrase: Callable[[bool], Confidential]

    def make(self, kind: KeyType) -> PrivateKey:
        """The key in the file, durable on return: made now, or by a command that was cut off."""
        if os.path.lexists(self.path):
            return self.open()
        key = generate_key(kind)
        sealed = seal_with_passphrase(serialize_key(key), self.passphrase(True), context=self._context)
        write_and_read_back(self.path, sealed, called=_SETTING)
        return key

    def open(self) -> PrivateKey:
        """The key in the file; AccessDeniedError for a wrong passphrase or loose permissions, CorruptError."""
        sealed = read_private(self.path, called=_SETTING)
        return parse_key(open_with_passphrase(sealed, self.passphrase(False), context=self._context), _SETTING)

    @property
    def _context(self) -> bytes:
        return context("daskpki offline root", self.cluster)
