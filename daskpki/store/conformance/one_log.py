"""What the tests of a `RecordLog` start from: an empty log, drafts for it, and two inventories compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from daskpki.inventory import Inventory
from daskpki.records import ISSUED, RESERVED, REVOKING, Draft, Head, Record
from daskpki.store.conformance.backing import Backing
from daskpki.store.port import RecordLog, Store

NOTE = Draft("note", {"text": "Ω\n", "list": [1, None, True, {"a": 0.5}]})


def reserved(serial: int, name: str = "w", *, role: str = "worker") -> Draft:
    """A reservation."""
    body = {"serial": f"{serial:x}", "role": role, "name": name, "issuer": 1, "not_before": 1, "not_after": 99}
    return Draft(RESERVED, body)


def issued(serial: int, version: int = 1) -> Draft:
    """Its confirmation."""
    return Draft(ISSUED, {"serial": f"{serial:x}", "fingerprint": f"{serial:064x}", "version": version})


def always(*drafts: Draft) -> Callable[[Inventory], Sequence[Draft]]:
    """Decide for these, whatever is there."""
    return lambda _: drafts


class OneLog:
    """The fixtures of every part of the suite."""

    @pytest.fixture
    def store(self, backing: Backing) -> Iterator[Store]:
        """A handle of the test's own."""
        with closing(backing.factory()) as store:
            yield store

    @pytest.fixture
    def log(self, store: Store) -> RecordLog:
        """An empty log."""
        return store.log("c")


def log_head(records: Sequence[Record]) -> Head:
    """The head that a log has after these records."""
    return Head(records[-1].seq, records[-1].hash)


def assert_same(view: Inventory, expected: Inventory) -> None:
    """Two inventories answer every question alike."""
    assert view.head == expected.head
    assert dict(view.published) == dict(expected.published)
    assert list(view.authorities()) == list(expected.authorities())
    entries = list(expected.certificates())
    assert list(view.certificates()) == entries
    for entry in entries:
        assert view.certificate(entry.serial) == entry
        assert view.current(entry.role, entry.name) == expected.current(entry.role, entry.name)
        if entry.fingerprint:
            assert view.by_fingerprint(entry.fingerprint) == entry
    for filters in ({"role": "worker"}, {"role": "client", "name": "alice"}, {"name": "w-0"}):
        assert list(view.certificates(**filters)) == list(expected.certificates(**filters))
    for statuses in ([RESERVED, REVOKING], [ISSUED], []):
        assert list(view.certificates(statuses=statuses)) == list(expected.certificates(statuses=statuses))
