"""What a CA's life should have come to: the certificates and CAs that there are, worked out without any of our code."""

from __future__ import annotations

from daskpki.inventory import CertificateRecord

ISSUED = "issued"
HELD = "certificateHold"


class Model:
    """`states` is each serial's state as it should be; `newest` the newest serial of each name.

    `cas` are the generations in the trust document, of which one is `active`; it is `retiring` from the first time
    that another one took over until one of them is dropped.
    """

    def __init__(self) -> None:
        self.states: dict[int, str] = {}
        self.entries: dict[int, CertificateRecord] = {}
        self.newest: dict[str, int] = {}
        self.cas = {1}
        self.made = 1
        self.active = 1
        self.retiring = False

    def took_place(self, record: CertificateRecord) -> int:
        """A leaf was issued."""
        assert record.serial not in self.states
        assert record.issuer == self.active
        self.states[record.serial] = ISSUED
        self.entries[record.serial] = record
        self.newest[record.name] = record.serial
        return record.serial

    def is_over(self, serial: int, now: float) -> bool:
        return now > self.entries[serial].not_after

    def is_due(self, serial: int, now: float) -> bool:
        entry = self.entries[serial]
        third = (entry.not_after - entry.not_before) / 3
        ended = now >= entry.not_after - third or entry.issuer not in self.cas
        return self.states[serial] == ISSUED and ended

    def is_trusted(self, serial: int, now: float) -> bool:
        """Whether verifiers accept the leaf while they have a fresh CRL."""
        known = self.entries[serial].issuer in self.cas
        return known and self.states[serial] == ISSUED and not self.is_over(serial, now)

    def valid_elsewhere(self, now: float) -> set[int]:
        """The leaves in force that a rollover has still to issue anew."""
        valid = {serial for serial in self.newest.values() if self.states[serial] == ISSUED}
        return {
            serial for serial in valid if self.entries[serial].issuer != self.active and not self.is_over(serial, now)
        }

    def shown(self, serial: int, now: float) -> str:
        """The state that the inventory shows of a leaf that was not revoked."""
        if self.is_over(serial, now):
            return "expired"
        return ISSUED if self.newest[self.entries[serial].name] == serial else "superseded"

    def new_ca(self) -> int:
        """One is made, and trusted beside the others."""
        self.made += 1
        self.cas.add(self.made)
        return self.made

    def take_over(self, generation: int) -> None:
        """That one issues, and the one that did so far retires."""
        self.retiring = self.retiring or generation != self.active
        self.active = generation

    def drop_others(self) -> None:
        """Nothing is trusted any more but what the active one issued."""
        self.cas = {self.active}
        self.retiring = False
