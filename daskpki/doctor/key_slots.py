"""By what a local store opens. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from daskpki.doctor.finding import Finding, note, ok, warning

_LOSS: Final = {
    "keyring": "the OS keyring of this user",
    "passphrase": "one passphrase",
    "keyfile": "one key file",
    "recovery": "a recovery code",
}


def check_slots(kinds: Sequence[str]) -> Iterator[Finding]:
    """A store with one way in is one loss away from the loss of its CA."""
    subject = "key slots"
    if len(kinds) == 1:
        way = _LOSS.get(kinds[0], kinds[0])
        yield warning(subject, f"the store opens by {way} only: who loses it loses the CA", "daskpki slot add recovery")
    elif "recovery" not in kinds:
        yield note(subject, f"{len(kinds)} ways in, no recovery code among them", "daskpki slot add recovery")
    else:
        yield ok(subject, f"{len(kinds)} ways in: {', '.join(kinds)}")
