"""By what a command unlocks a local store: the files that its options name, the OS keyring, or a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daskpki.cli.asking import prompt
from daskpki.store.opening import Unlocking

if TYPE_CHECKING:
    from daskpki.confidential import Confidential


def unlocking(key_file: str | None, passphrase_file: str | None) -> Unlocking:
    """The ways to the master key that a run with these options has."""
    from daskpki.credentials.os_keyring import OSKeyring

    return Unlocking(
        key_file=Path(key_file) if key_file else None,
        passphrase_file=Path(passphrase_file) if passphrase_file else None,
        keyring=OSKeyring(),
        prompt=ask_passphrase,
    )


def ask_passphrase(*, new: bool) -> Confidential:
    """The store's passphrase from the terminal, twice when it is new."""
    question = "New passphrase of the local store: " if new else "Passphrase of the local store: "
    return prompt(question, "--passphrase-file FILE or --key-file FILE", confirm=new)
