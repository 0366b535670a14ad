"""Verifies everything that Dask will rely on; otherwise Dask does not start.

`daskpki.credentials.verified` has the rules for everyone: signature, pins and epoch of the trust document; chain,
purpose, lifetime, identity, key and revocation of the credential. A boot also checks that this is the credential it
asked for, and waits a bounded time for a wrong clock, which often corrects itself a moment later.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from daskpki.boot.fetch import Material
from daskpki.boot.settings import Settings
from daskpki.errors import CorruptError, NotTrustedError, UnavailableError
from daskpki.identity import Role
from daskpki.pki.credential import Credential
from daskpki.pki.trust_document import TrustDocument

_TOLERANCE: Final = 60.0
"""Seconds of skew that explain no failure: certificates and trust documents allow for some minutes."""
_POLL: Final = 0.5
"""Seconds between two looks at a clock that is wrong."""


class Clocks(NamedTuple):
    """This machine's clocks (wall, monotonic), in seconds, and how to wait."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


def verify_in_time(material: Material, settings: Settings, clocks: Clocks, *, patience: float) -> TrustDocument:
    """Return the verified trust document; after a failure under a wrong clock, wait `patience` seconds for the clock.

    Raises NotTrustedError, or UnavailableError with both times if the clock stays wrong.
    """
    end = clocks.monotonic() + patience
    while True:
        now = datetime.fromtimestamp(clocks.wall(), UTC)
        try:
            return verify_material(material, settings, now)
        except NotTrustedError as error:
            if isinstance(error, CorruptError) or material.date is None:
                raise
            true_time = material.date.now(clocks.monotonic())
            if abs(now.timestamp() - true_time) <= _TOLERANCE:
                raise
            failure = error
        if clocks.monotonic() >= end:
            raise UnavailableError(
                f"this machine's clock says {now:%Y-%m-%d %H:%M:%S}, but Secret Manager's says "
                f"{datetime.fromtimestamp(true_time, UTC):%Y-%m-%d %H:%M:%S} (UTC): {failure}",
                hint="set this machine's clock (chronyc makestep), and see that a time server is reachable",
            )
        clocks.sleep(_POLL)


def verify_material(material: Material, settings: Settings, now: datetime) -> TrustDocument:
    """Return the trust document if it and every credential are valid at `now`; NotTrustedError, CorruptError."""
    for credential, role in zip(material.credentials, settings.roles, strict=True):
        _check_asked_for(credential, role)
    document = material.trust.signed.document
    from daskpki.credentials.verified import Pins, verify_credential

    pins = Pins(material.anchors, settings.ca_sha256, settings.min_epoch)
    for credential in material.credentials:
        document = verify_credential(credential, material.trust.data, pins=pins, now=now).trust
    if settings.freshness.stale_trust == "refuse":  # a node that starts has new peers only
        from daskpki.pki.crl import check_fresh

        check_fresh(document, now)
    return document


def _check_asked_for(credential: Credential, role: Role) -> None:
    identity = credential.identity
    if credential.key is None:
        raise NotTrustedError(
            f"the credential of {identity.slug} has no key: it stayed where the request was made",
            hint="set DASKPKI_CREDENTIAL_DIR to the directory on that machine",
        )
    if identity.role is not role:
        raise NotTrustedError(
            f"{identity.uri} has the role {identity.role.value}, but a {role} is to be started",
            hint=f"give the {role}'s credential: daskpki export {role} writes it to a directory; "
            "or unset DASKPKI_CREDENTIAL_DIR, so that the store is asked",
        )
