"""What every `RecordLog` does when it is cut for an archive, and when it repeats another store's log."""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import Final

import pytest

from daskpki.archived import base_at
from daskpki.errors import ConflictError, CorruptError
from daskpki.inventory import NO_BASE, ReplayedInventory
from daskpki.records import EMPTY, ISSUED, RESERVED, Draft, Head, chain, verify_chain
from daskpki.store.conformance.backing import Backing
from daskpki.store.conformance.one_log import NOTE, OneLog, always, assert_same, issued, log_head, reserved
from daskpki.store.conformance.writers import STAMP
from daskpki.store.port import RecordLog, Store


class MovedLogSuite(OneLog):
    """Cuts and copies."""

    def test_another_stores_records_are_adopted_as_they_are(self, store: Store, log: RecordLog) -> None:
        first, second = STAMP, STAMP._replace(time=STAMP.time + 1, who="someone else")
        records = chain(EMPTY, [NOTE, reserved(1)], first)
        records += chain(log_head(records), [issued(1), NOTE], second)
        log.adopt(records[:3])
        log.adopt(records[:2])  # they are here
        log.adopt(records[1:])
        assert list(log.records()) == records
        assert store.log("c").authenticate() == log_head(records)
        entry = log.inventory().certificate(1)
        assert entry is not None
        assert (entry.status, entry.reserved_at) == (ISSUED, STAMP.time)
        for foreign in (chain(EMPTY, [NOTE] * 4, second), chain(EMPTY, [NOTE] * 5, second)):
            with pytest.raises(CorruptError):
                log.adopt(foreign)
        with pytest.raises(CorruptError):
            log.adopt(chain(log_head(records)._replace(seq=9), [NOTE], second))
        assert list(log.records()) == records

    def test_what_was_archived_is_cut_off_and_the_rest_goes_on(self, log: RecordLog, backing: Backing) -> None:
        seen = fill(log)
        end = log.sealed(before=50, upto=seen.seq)
        assert end.seq > 0, "of the leaves that end at 10, some can be cut off everywhere"
        everything = list(log.records())
        assert log.sealed(before=5, upto=seen.seq) == EMPTY
        assert log.sealed(before=50, upto=end.seq - 1).seq < end.seq
        base = base_at(end, log.base(), everything)
        log.cut(base, [NOTE], STAMP, seen=seen)
        with closing(backing.factory()) as other:
            for each in (log, other.log("c")):
                assert each.base() == base
                assert list(each.records())[:-1] == everything[end.seq :]
                assert list(verify_chain(end, each.records()))[-1].kind == NOTE.kind
                assert each.authenticate() == each.inventory().head
                assert_same(each.inventory(), ReplayedInventory(each.records(), base))
            assert other.log("c").inventory().certificate(_SERIALS[0]) is None
            other.log("c").commit(always(reserved(3), issued(3)), STAMP)
        assert log.inventory().certificate(3) is not None
        assert log.sealed(before=5, upto=seen.seq) == end, "it begins there now"

    def test_a_log_is_not_cut_by_what_was_read_before_others_wrote(self, log: RecordLog, backing: Backing) -> None:
        seen = fill(log)
        base = base_at(log.sealed(before=50, upto=seen.seq), log.base(), log.records())
        with closing(backing.factory()) as other:
            other.log("c").commit(always(NOTE), STAMP)
        with pytest.raises(ConflictError, match="went on meanwhile"):
            log.cut(base, [NOTE], STAMP, seen=seen)
        assert log.base() == NO_BASE
        assert [record.seq for record in log.records()] == list(range(1, seen.seq + 2))

    def test_a_copy_begins_where_its_original_does(self, store: Store, log: RecordLog) -> None:
        seen = fill(log)
        base = base_at(log.sealed(before=50, upto=seen.seq), log.base(), log.records())
        log.cut(base, [NOTE], STAMP, seen=seen)
        copy = store.log("copy")
        for _ in range(2):
            copy.begin(base)
            assert (copy.inventory().head, copy.authenticate()) == (base.head, base.head)
            assert_same(copy.inventory(), ReplayedInventory((), base))
        copy.adopt(list(log.records()))
        assert list(copy.records()) == list(log.records())
        assert_same(copy.inventory(), log.inventory())
        with pytest.raises(CorruptError, match="begins elsewhere"):
            copy.begin(base._replace(head=seen))


_SERIALS: Final = [int.from_bytes(hashlib.sha256(b"%d" % n).digest()[:16], "big") for n in range(1_500)]
"""As hard to compress as real ones."""


def fill(log: RecordLog) -> Head:
    """Leaves that end at 10, more than a payload holds, then some that end at 99; the log's head."""
    for start in range(0, len(_SERIALS), 500):
        some = _SERIALS[start : start + 500]
        old = [Draft(RESERVED, {**reserved(serial, f"w-{serial}").body, "not_after": 10}) for serial in some]
        log.commit(always(*old), STAMP)
        log.commit(always(*map(_confirmed, some)), STAMP)
    return log_head(log.commit(always(reserved(1), reserved(2), issued(1), issued(2)), STAMP))


def _confirmed(serial: int) -> Draft:
    digest = hashlib.sha256(f"{serial}".encode()).hexdigest()
    return Draft(ISSUED, {"serial": f"{serial:x}", "fingerprint": digest, "version": 1})
