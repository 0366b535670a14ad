"""The options of an offline root: its file, and the passphrase by which that is sealed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daskpki.cli.asking import prompt
from daskpki.errors import UsageError

if TYPE_CHECKING:
    from daskpki.authority.offline import OfflineRoot
    from daskpki.cli.invocation import Invocation
    from daskpki.confidential import Confidential


def offline_root(invocation: Invocation, path: Path | None, passphrase_file: Path | None) -> OfflineRoot | None:
    """The root's file that the options name; UsageError for a passphrase without a file."""
    if path is None:
        if passphrase_file is not None:
            raise UsageError("--root-passphrase-file is for the file of --offline-root", hint="--offline-root FILE")
        return None
    from daskpki.authority.offline import OfflineRoot

    def passphrase(new: bool) -> Confidential:
        if passphrase_file is not None:
            from daskpki.store.local.unlocking import read_passphrase_file

            return read_passphrase_file(passphrase_file, "the file of --root-passphrase-file")
        question = "New passphrase of the offline root: " if new else "Passphrase of the offline root: "
        return prompt(question, "--root-passphrase-file FILE", confirm=new)

    return OfflineRoot(path, invocation.cluster, passphrase)
