"""What every `RecordLog` does when it repeats another store's log."""

from __future__ import annotations

import pytest

from daskpki.errors import CorruptError
from daskpki.records import EMPTY, ISSUED, chain
from daskpki.store.conformance.one_log import NOTE, OneLog, issued, log_head, reserved
from daskpki.store.conformance.writers import STAMP
from daskpki.store.port import RecordLog, Store


class MovedLogSuite(OneLog):
    """Copies."""

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
