"""What the entrypoint says on stderr: notes while it waits, and one line with cause and remedy when it gives up."""

from __future__ import annotations

import sys

from daskpki.errors import DaskpkiError

_WHO = "daskpki-entrypoint"


def note(text: str) -> None:
    """Say something that is no error, in one write, since the programs of a node speak on the same stderr."""
    sys.stderr.write(f"{_WHO}: {text}\n")
    sys.stderr.flush()


def report(error: DaskpkiError) -> int:
    """Say what ended the boot; the exit code that goes with it."""
    remedy = f" ({error.hint})" if error.hint else ""
    note(f"error: {error}{remedy}")
    return error.exit_code
