"""Which credential a program started here would use, and why."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from daskpki.credentials.choice import Source, Wanted
from daskpki.credentials.expiry import Ending, ending
from daskpki.credentials.sources import Surroundings, obtain, renewal
from daskpki.pki.certificates import load_certificate
from daskpki.pki.pem import fingerprint


class Whoami(NamedTuple):
    """The credential in use. `passed_over` are settings that lost to `why`; `renewal` is a command. Times are UTC."""

    identity: str
    cluster: str
    source: Source
    why: str
    passed_over: tuple[str, ...]
    serial: int
    fingerprint: str
    not_before: datetime
    not_after: datetime
    epoch: int
    end: Ending
    renewal: str


def whoami(wanted: Wanted, here: Surroundings) -> Whoami:
    """Find and verify the credential as a program would; raises what `sources.obtain` raises."""
    obtained = obtain(wanted, here)
    held, choice = obtained.held, obtained.choice
    leaf = load_certificate(held.credential.leaf)
    return Whoami(
        identity=held.credential.identity.uri,
        cluster=held.credential.cluster,
        source=choice.source,
        why=choice.why,
        passed_over=choice.passed_over,
        serial=leaf.serial_number,
        fingerprint=fingerprint(held.credential.leaf),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        epoch=held.trust.epoch,
        end=ending(held.credential.leaf, held.trust, here.now),
        renewal=renewal(obtained, wanted, here),
    )
