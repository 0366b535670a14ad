"""What every `RecordLog` does, as tests."""

from __future__ import annotations

from daskpki.store.conformance.appending import AppendingSuite
from daskpki.store.conformance.inventories import InventorySuite
from daskpki.store.conformance.moved_logs import MovedLogSuite


class RecordLogSuite(AppendingSuite, InventorySuite, MovedLogSuite):
    """Subclass it, and provide the fixture `backing`."""
