"""The passphrase of the CA's own key: from its file, or asked for on a terminal, once in a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from daskpki.cli.asking import prompt

if TYPE_CHECKING:
    from daskpki.confidential import Confidential


_SETTING: Final = "the passphrase file of the CA's key (--ca-passphrase-file, DASKPKI_CA_PASSPHRASE_FILE)"


class CaPassphrase:
    """One passphrase for all the keys that a run opens and seals.

    Where it has opened a key, it is known to be right; one that seals a key first is asked for twice, since a slip of
    the finger would lose that key.
    """

    def __init__(self, file: str | None) -> None:
        self._file = file
        self._known: Confidential | None = None

    def opening(self) -> Confidential:
        """By which a key is opened."""
        return self._once(new=False)

    def sealing(self) -> Confidential:
        """By which a key is sealed."""
        return self._once(new=True)

    def _once(self, *, new: bool) -> Confidential:
        if self._known is None:
            self._known = self._read(new=new)
        return self._known

    def _read(self, *, new: bool) -> Confidential:
        if self._file is not None:
            from daskpki.store.local.unlocking import read_passphrase_file

            return read_passphrase_file(Path(self._file), _SETTING)
        question = "New passphrase of the CA's key: " if new else "Passphrase of the CA's key: "
        return prompt(question, "--ca-passphrase-file FILE", confirm=new)
