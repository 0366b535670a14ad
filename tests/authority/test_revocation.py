"""Who is revoked: how many a trust document holds, what happens when it is full, and whom of dropped CAs it lists."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daskpki import CertificateAuthority
from daskpki.authority.ca_keys import KeyLocations, OfflineRoot
from daskpki.authority.creation import plan_ca
from daskpki.authority.crl import DROPPED_LIMIT
from daskpki.authority.rollover import Successor
from daskpki.authority.session import random_serial
from daskpki.confidential import Confidential
from daskpki.doctor.checks import check_fill
from daskpki.errors import DaskpkiError
from daskpki.identity import Role
from daskpki.pki.crl import every_revoked_serial
from daskpki.pki.trust_document import DroppedCa
from daskpki.records import RESERVED, REVOKING, Draft
from daskpki.store.port import Store
from tests.support.clocks import START, Clock
from tests.support.local_places import LocalPlace

PASSPHRASE = Confidential("of a test")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(LocalPlace(tmp_path).create()) as store:
        yield store


class Life:
    """A CA of one tier or two, and its successors."""

    def __init__(self, store: Store, clock: Clock, directory: Path, tiers: int = 1) -> None:
        self._directory, self._tiers = directory, tiers
        self.ca = CertificateAuthority(store, clock=clock, places=KeyLocations())
        self.ca.init(plan_ca("default", offline_root=self._root(1)))

    def _root(self, generation: int) -> OfflineRoot | None:
        if self._tiers == 1:
            return None
        return OfflineRoot(self._directory / f"root-{generation}.key", "default", lambda _new: PASSPHRASE)

    def rotate(self) -> None:
        rollover = self.ca.rollover()
        rollover.start(Successor(offline_root=self._root(self.ca.active().generation + 1)))
        rollover.promote()
        list(rollover.reissue(give_way=False))
        rollover.finish()
        self.ca.inventory()

    def issue(self, name: str) -> int:
        (issued,) = self.ca.issue(self.ca.requests(Role.CLIENT, [name]))
        return issued.record.serial

    def serials(self, name: str) -> set[int]:
        return {entry.serial for entry in self.ca.inventory().certificates(role="client", name=name)}

    def plant(self, count: int) -> None:
        """That many leaves whose revocation is still to be published."""
        now = int(START.timestamp())
        drafts = []
        for number in range(count):
            serial = f"{random_serial():x}"
            leaf = {"serial": serial, "role": "worker", "name": f"w-{number}", "issuer": self.ca.active().generation}
            drafts.append(Draft(RESERVED, {**leaf, "not_before": now, "not_after": now + 30 * 86_400}))
            drafts.append(Draft(REVOKING, {"serial": serial, "reason": "superseded"}))
        self.ca.session.commit(lambda _inventory: drafts)


@pytest.mark.parametrize("tiers", [1, 2])
@pytest.mark.parametrize("rotations", [1, 2])
def test_a_revocation_after_rotations_names_every_serial_that_may_be_connected(
    store: Store, clock: Clock, tmp_path: Path, rotations: int, tiers: int
) -> None:
    life = Life(store, clock, tmp_path, tiers)
    life.issue("bob")
    life.issue("alice")
    for _ in range(rotations):
        life.rotate()
    assert life.ca.trust().revoked_dropped == (), "who was renewed is not revoked"
    life.ca.revoke("client/bob")
    document = life.ca.trust()
    bobs = life.serials("bob")
    assert len(bobs) == rotations + 1
    assert every_revoked_serial(document) == bobs
    assert [entry.generation for entry in document.revoked_dropped] == list(range(1, rotations + 1))
    assert len({entry.issuer for entry in document.revoked_dropped}) == rotations


def test_who_was_revoked_before_the_ca_was_dropped_stays_listed_until_margin_and_grace_are_over(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    life = Life(store, clock, tmp_path)
    bob = life.issue("bob")
    life.ca.revoke("client/bob")
    life.rotate()
    (dropped,) = life.ca.trust().revoked_dropped
    assert dropped == DroppedCa(1, "default/daskpki CA 1", (bob,))
    clock.advance(days=31)  # its certificate has ended, and a day of margin is over; one of grace is not
    life.issue("carol")
    life.ca.revoke("client/carol")
    assert life.ca.trust().revoked_dropped == (dropped,)
    clock.advance(days=2)
    life.issue("dan")
    life.ca.revoke("client/dan")
    assert life.ca.trust().revoked_dropped == ()


@pytest.mark.parametrize("count", [DROPPED_LIMIT, DROPPED_LIMIT + 1])
def test_of_a_dropped_ca_with_too_many_revoked_nobody_stays(
    store: Store, clock: Clock, tmp_path: Path, count: int
) -> None:
    life = Life(store, clock, tmp_path)
    life.plant(count)
    life.rotate()
    (dropped,) = life.ca.trust().revoked_dropped
    assert dropped.issuer == "default/daskpki CA 1"
    assert (dropped.serials is None) is (count > DROPPED_LIMIT)


def test_a_leaf_that_ended_within_the_grace_is_revoked_with_its_name(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    life = Life(store, clock, tmp_path)
    first = life.issue("bob")
    clock.advance(days=25)
    second = life.issue("bob")
    clock.advance(days=5, seconds=3600)
    life.ca.revoke("client/bob")
    assert every_revoked_serial(life.ca.trust()) == {first, second}


def test_a_document_that_is_half_full_warns(
    store: Store, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life(store, clock, tmp_path)
    life.plant(700)
    life.issue("bob")
    life.ca.revoke("client/bob")
    assert not caplog.records
    assert not list(check_fill(life.ca.trust()))
    life.plant(700)
    life.issue("alice")
    life.ca.revoke("client/alice")
    (warned,) = [record for record in caplog.records if record.levelno == logging.WARNING][-1:]
    assert "full, since 1402 certificates are revoked" in warned.getMessage()
    (finding,) = check_fill(life.ca.trust())
    assert finding.remedy == "daskpki rotate-ca --emergency"


def test_a_full_document_names_the_emergency_which_begins_empty(store: Store, clock: Clock, tmp_path: Path) -> None:
    life = Life(store, clock, tmp_path)
    life.issue("bob")
    life.issue("alice")
    life.plant(3000)
    with pytest.raises(DaskpkiError, match="too many are revoked") as full:
        life.ca.revoke("client/bob")
    assert "daskpki rotate-ca --emergency" in str(full.value.hint)
    rollover = life.ca.rollover()
    rollover.emergency(Successor())
    assert [issued.record.name for issued in rollover.reissue(give_way=False)] == ["alice"]
    document = life.ca.trust()
    assert [anchor.generation for anchor in document.authorities] == [2]
    assert document.revoked_dropped == (DroppedCa(1, "default/daskpki CA 1", None),)
    assert next(life.ca.inventory().certificates(statuses=[REVOKING]), None) is None
    life.ca.revoke("client/alice")
    assert every_revoked_serial(life.ca.trust()) < life.serials("alice")
