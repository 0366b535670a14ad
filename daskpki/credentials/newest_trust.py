"""Keeps the newest trust document that a person's programs have seen, for the next program.

A running program learns of a revocation from its scheduler. One that starts later would use the document of
`daskpki login` or `daskpki export`, and might trust a scheduler that was revoked since. The document is public and
signed, and is verified like one that a scheduler pushes: changing or removing the file removes this memory, no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from daskpki.confidential import Confidential
from daskpki.files import is_there, make_private_directory, read_private, write_private
from daskpki.pki.json_fields import MAX_DOCUMENT

_DIRECTORY: Final = "trust"


class NewestTrust:
    """The newest trust document of one login or directory, by its id (`Contexts.id_of`)."""

    def __init__(self, home: Path, name: str) -> None:
        self._path = home / _DIRECTORY / f"{name}.json"

    def load(self) -> Confidential | None:
        """The document as it was signed, nothing of it verified; None when there is none. AccessDeniedError."""
        return Confidential(read_private(self._path, limit=MAX_DOCUMENT)) if is_there(self._path) else None

    def keep(self, signed: Confidential) -> None:
        """Put a document in the place of the one before; AccessDeniedError where nothing can be written."""
        make_private_directory(self._path.parent)
        write_private(self._path, signed.reveal(), force=True)

    def forget(self) -> None:
        """Remove the file, and with the last one the directory."""
        self._path.unlink(missing_ok=True)
        if self._path.parent.exists() and not any(self._path.parent.iterdir()):
            self._path.parent.rmdir()
