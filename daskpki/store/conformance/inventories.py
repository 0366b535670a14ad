"""What every `RecordLog` knows of a cluster's certificates: what its records say, whichever way they are kept."""

from __future__ import annotations

import secrets
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings

from daskpki.errors import CorruptError
from daskpki.inventory import ReplayedInventory
from daskpki.records import CA_CREATED, RELEASED, RESERVED, REVOKED, REVOKING, Draft
from daskpki.store.conformance.backing import Backing
from daskpki.store.conformance.histories import histories
from daskpki.store.conformance.one_log import NOTE, OneLog, always, assert_same, issued, reserved
from daskpki.store.conformance.writers import STAMP
from daskpki.store.port import RecordLog, Store


class InventorySuite(OneLog):
    """Inventories."""

    def test_an_event_out_of_order_is_refused(self, log: RecordLog) -> None:
        log.commit(always(reserved(1)), STAMP)
        with pytest.raises(CorruptError, match="never reserved"):
            log.commit(always(NOTE, issued(2)), STAMP)
        with pytest.raises(CorruptError, match="never reserved"):
            log.commit(always(Draft(CA_CREATED, {"generation": 7, "certificate": ""})), STAMP)
        assert [record.kind for record in log.records()] == [RESERVED]

    def test_an_inventory_stays_what_it_was(self, log: RecordLog) -> None:
        log.commit(always(reserved(1), issued(1)), STAMP)
        view = log.inventory()
        log.commit(always(reserved(2), issued(2)), STAMP)
        current = view.current("worker", "w")
        assert current is not None
        assert (view.head.seq, current.serial, current.superseded) == (2, 1, False)
        assert view.certificate(2) is None
        newer = log.inventory().current("worker", "w")
        assert newer is not None
        assert newer.serial == 2

    def test_a_leaf_keeps_what_was_recorded_of_it(self, log: RecordLog) -> None:
        serial = 2**159 + 1
        body = {**reserved(serial).body, "key_type": "rsa3072", "sans": ["dns:a.example", "ip:10.0.0.1"]}
        log.commit(always(Draft(RESERVED, body), issued(serial, 7)), STAMP)
        for event in (REVOKING, REVOKED):
            log.commit(always(Draft(event, {"serial": f"{serial:x}", "reason": "superseded", "at": 50})), STAMP)
        entry = log.inventory().by_fingerprint(f"{serial:064x}")
        assert entry is not None
        assert entry == log.inventory().certificate(serial)
        assert (entry.serial, entry.key_type, entry.sans) == (serial, "rsa3072", ("dns:a.example", "ip:10.0.0.1"))
        assert (entry.version, entry.status, entry.revoked_at, entry.reason) == (7, REVOKED, 50, "superseded")
        log.commit(always(Draft(RELEASED, {"serial": f"{serial:x}"})), STAMP)
        released = log.inventory().certificate(serial)
        assert released is not None
        assert (released.status, released.revoked_at, released.reason) == (RELEASED, None, None)

    def test_many_leaves_fit(self, log: RecordLog, backing: Backing) -> None:
        total, step = 600, 200
        for start in range(1, total, step):
            serials = range(start, start + step)
            log.commit(always(*(reserved(n << 80, f"w-{n}") for n in serials)), STAMP)
            log.commit(always(*(issued(n << 80) for n in serials)), STAMP)
        with closing(backing.factory()) as other:
            view = other.log("c").inventory()
            assert [entry.serial >> 80 for entry in view.certificates()] == list(range(1, total + 1))
            assert [entry.name for entry in view.certificates(name="w-77")] == ["w-77"]
            assert list(view.certificates(statuses=[RESERVED, REVOKING])) == []
            assert other.log("c").inventory().head.seq == 2 * total

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(history=histories())
    def test_the_inventory_is_what_the_records_say(
        self, store: Store, backing: Backing, history: list[list[Draft]]
    ) -> None:
        cluster = f"c{secrets.token_hex(8)}"  # each example has a log of its own in the same place
        with closing(backing.factory()) as other:
            for turn, drafts in enumerate(history):
                (other if turn % 2 else store).log(cluster).commit(always(*drafts), STAMP)
            assert_same(store.log(cluster).inventory(), ReplayedInventory(store.log(cluster).records()))
            assert_same(other.log(cluster).inventory(), ReplayedInventory(store.log(cluster).records()))
