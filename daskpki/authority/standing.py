"""Where a rollover stands, as the log alone says: which CAs there are, and whose leaves are still to be issued anew."""

from __future__ import annotations

from typing import Final, NamedTuple

from daskpki.authority.policy import active_authority, living_authorities
from daskpki.authority.undone import shows_authorities
from daskpki.inventory import FROM_REQUEST, AuthorityRecord, CertificateRecord, Inventory
from daskpki.records import CA_RETIRING, ISSUED, RELEASED

IDLE: Final = "none"
STARTED: Final = "started"
RETIRING: Final = "retiring"


class Standing(NamedTuple):
    """Where a rollover stands: the generations in the trust document, and the valid leaves of those that do not issue.

    `held` are those of them whose keys never travelled, so that only their holders can ask for new ones.
    """

    active: AuthorityRecord
    others: tuple[AuthorityRecord, ...]
    published: bool
    reissue: tuple[CertificateRecord, ...]
    held: tuple[CertificateRecord, ...]

    @property
    def phase(self) -> str:
        """IDLE, STARTED, or RETIRING (promoted, or taken back)."""
        if not self.others:
            return IDLE
        return RETIRING if any(entry.status == CA_RETIRING for entry in self.others) else STARTED

    @property
    def living(self) -> tuple[AuthorityRecord, ...]:
        """All generations in the trust document."""
        return (self.active, *self.others)

    @property
    def last_step(self) -> str:
        """What led here from `start`: promote, or after it abort; run again, it issues anew what is left."""
        newest = max(entry.generation for entry in self.living)
        return "promote" if self.active.generation == newest else "abort"


def standing(inventory: Inventory, cluster: str, now: float) -> Standing:
    """Where the log says that it stands; NotFoundError before `init-ca`."""
    active = active_authority(inventory, cluster)
    left = valid_elsewhere(inventory, active.generation, now)
    return Standing(
        active,
        tuple(entry for entry in living_authorities(inventory) if entry != active),
        shows_authorities(inventory),
        tuple(entry for entry in left if entry.key_type != FROM_REQUEST),
        tuple(entry for entry in left if entry.key_type == FROM_REQUEST),
    )


def valid_elsewhere(inventory: Inventory, generation: int, now: float) -> list[CertificateRecord]:
    """The leaves in force that do not come from that CA."""
    return [
        entry
        for entry in inventory.certificates(statuses=[ISSUED, RELEASED])
        if entry.issuer != generation and not entry.superseded and entry.not_after >= now
    ]
