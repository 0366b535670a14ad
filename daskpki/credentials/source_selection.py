"""Selects the source of a credential. Pure.

The first of these that is set decides:

1. an explicit argument (`store=`);
2. what `daskpki-entrypoint exec` handed down (DASKPKI_HANDOVER), else a directory (DASKPKI_CREDENTIAL_DIR) or a
   file (DASKPKI_CREDENTIAL_FILE);
3. DASKPKI_SOURCE=store, the store by the workload's own identity;
4. the OS keyring.

If the selected source fails, that is an error: the next one is never tried instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from daskpki.errors import UsageError
from daskpki.handover import VARIABLE as HANDOVER
from daskpki.quoting import shortened

DIRECTORY: Final = "DASKPKI_CREDENTIAL_DIR"
FILE: Final = "DASKPKI_CREDENTIAL_FILE"
SOURCE: Final = "DASKPKI_SOURCE"


class CredentialSource(StrEnum):
    """Source from which a credential is read."""

    HANDOVER = "handed down"
    DIRECTORY = "directory"
    FILE = "file"
    STORE = "store"
    KEYRING = "keyring"


_CHOSEN: Final = {"store": CredentialSource.STORE, "keyring": CredentialSource.KEYRING}


class Wanted(NamedTuple):
    """The credential that the caller wants; None leaves a field open. `address` selects a login."""

    name: str | None = None
    cluster: str | None = None
    store: str | None = None
    address: str | None = None


class Choice(NamedTuple):
    """The source, the reason for it, and the settings that were passed over because of it."""

    source: CredentialSource
    why: str
    passed_over: tuple[str, ...]


def choose(wanted: Wanted, environ: Mapping[str, str]) -> Choice:
    """The source to use; UsageError for a DASKPKI_SOURCE that does not exist."""
    candidates = _candidates(wanted, environ) or [
        (CredentialSource.KEYRING, f"none of {DIRECTORY}, {FILE} and {SOURCE} is set")
    ]
    source, why = candidates[0]
    return Choice(source, why, tuple(reason for _, reason in candidates[1:]))


def _candidates(wanted: Wanted, environ: Mapping[str, str]) -> list[tuple[CredentialSource, str]]:
    """The sources that are set, in the order above, each with the reason."""
    found = []
    if wanted.store:
        found.append((CredentialSource.STORE, f"the store {shortened(wanted.store)} was asked for"))
    if environ.get(HANDOVER):
        found.append((CredentialSource.HANDOVER, f"daskpki-entrypoint set {HANDOVER}"))
    for source, variable in ((CredentialSource.DIRECTORY, DIRECTORY), (CredentialSource.FILE, FILE)):
        if environ.get(variable):
            found.append((source, f"{variable} is set"))  # unseen: it may be a key in place of a path
    if chosen := environ.get(SOURCE):
        if chosen not in _CHOSEN:
            raise UsageError(f"{SOURCE}={shortened(chosen)} is no source", hint=f"{SOURCE} is {' or '.join(_CHOSEN)}")
        found.append((_CHOSEN[chosen], f"{SOURCE} is {chosen}"))
    return found
