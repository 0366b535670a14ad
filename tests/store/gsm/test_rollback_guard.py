"""A log that is put back is noticed by whoever has seen a later one, at no request more, and accepted knowingly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError
from daskpki.records import Draft
from daskpki.settings import ENDPOINT
from daskpki.store.gsm.log import GsmRecordLog
from daskpki.store.gsm.store import GsmStore
from tests.support.drafts import STAMP, Leaf, new_ca, random_leaf
from tests.support.gsm_places import IMPATIENT, ONE_PLACE, GsmPlace

RECORDS = secret_names.records_id("c")
CHANCE = random.Random(5)
READS: dict[str, Callable[[GsmRecordLog], object]] = {
    "inventory": lambda log: log.inventory().head,
    "glance": lambda log: log.read_cached().head,
    "records": lambda log: list(log.records()),
    "commit": lambda log: log.commit(lambda _: [random_leaf(CHANCE).reserved()], STAMP),
    "authenticate": GsmRecordLog.authenticate,
}


@contextmanager
def operator(place: GsmPlace, home: Path) -> Iterator[GsmStore]:
    """The store as a user has it who remembers what was seen."""
    environ = {ENDPOINT: place.endpoint}
    with closing(GsmStore(place.url, environ=environ, policy=IMPATIENT, seen=home / "seen")) as store:
        yield store


def commit(place: GsmPlace, home: Path, *drafts: Draft) -> Confidential:
    """The payload of the head afterwards."""
    with operator(place, home) as store:
        store.log("c").commit(lambda _: drafts, STAMP)
        return store.secrets.latest(RECORDS).data


def issue(log: GsmRecordLog, leaves: Sequence[Leaf]) -> None:
    log.commit(lambda _: [leaf.reserved() for leaf in leaves], STAMP)
    log.commit(lambda _: [leaf.issued() for leaf in leaves], STAMP)


def put_back(place: GsmPlace, payload: Confidential) -> None:
    with closing(place.factory()) as store:
        labels = dict(store.secrets.describe(RECORDS).labels)
        store.secrets.delete(RECORDS)
        store.secrets.create(RECORDS, labels=labels)
        store.secrets.add(RECORDS, payload)


@pytest.mark.parametrize("read", READS)
def test_a_log_that_was_put_back_is_refused_until_that_is_accepted(place: GsmPlace, tmp_path: Path, read: str) -> None:
    commit(place, tmp_path, *new_ca(1))
    old = commit(place, tmp_path, random_leaf(CHANCE).reserved())
    commit(place, tmp_path, random_leaf(CHANCE).reserved())
    put_back(place, old)
    with operator(place, tmp_path) as store, pytest.raises(NotTrustedError, match="rolled back to an older") as no:
        READS[read](store.log("c"))
    (file,) = (tmp_path / "seen").iterdir()
    assert f"rm {file}" in str(no.value.hint)
    with operator(place, tmp_path / "a stranger") as store:
        READS[read](store.log("c"))
    file.unlink()  # the way that the hint names
    for _ in range(2):
        commit(place, tmp_path, random_leaf(CHANCE).reserved())


def test_a_log_that_is_gone_is_refused(place: GsmPlace, tmp_path: Path) -> None:
    commit(place, tmp_path, *new_ca(1))
    with closing(place.factory()) as store:
        store.secrets.delete(RECORDS)
    for read in ("inventory", "commit"):
        with operator(place, tmp_path) as store, pytest.raises(NotTrustedError, match="ends at record 0"):
            READS[read](store.log("c"))


def test_a_log_with_another_past_is_refused_though_it_is_longer(place: GsmPlace, tmp_path: Path) -> None:
    old = commit(place, tmp_path / "other", *new_ca(1))
    commit(place, tmp_path, random_leaf(CHANCE).reserved())
    put_back(place, old)
    for _ in range(3):
        with closing(place.factory()) as store:
            store.log("c").commit(lambda _: [random_leaf(CHANCE).reserved()], STAMP)
    with operator(place, tmp_path) as store, pytest.raises(NotTrustedError, match="rolled back"):
        store.log("c").inventory()


def test_what_was_only_read_is_remembered_as_well(place: GsmPlace, tmp_path: Path) -> None:
    old = commit(place, tmp_path / "other", *new_ca(1))
    commit(place, tmp_path / "other", random_leaf(CHANCE).reserved())
    with operator(place, tmp_path) as store:
        store.log("c").inventory()
    put_back(place, old)
    with operator(place, tmp_path) as store, pytest.raises(NotTrustedError, match="rolled back"):
        store.log("c").inventory()


def test_a_latest_that_lags_is_no_older_log(place: GsmPlace, tmp_path: Path) -> None:
    commit(place, tmp_path, *new_ca(1))
    place.server.latest_lag(place.name(RECORDS))
    for _ in range(2):
        commit(place, tmp_path, random_leaf(CHANCE).reserved())
    with operator(place, tmp_path) as store:
        head = store.log("c").read_cached().head
    with operator(place, tmp_path) as store:
        assert store.log("c").inventory().head == head


@ONE_PLACE
def test_it_costs_no_request_until_what_was_seen_lies_within_a_sealed_segment(place: GsmPlace, tmp_path: Path) -> None:
    """Then it costs one for each segment from there on."""
    commit(place, tmp_path, *new_ca(1))
    commit(place, tmp_path / "others", random_leaf(CHANCE).reserved())
    remembered = next((tmp_path / "seen").iterdir()).read_bytes()
    for sealed in (False, True):
        next((tmp_path / "seen").iterdir()).write_bytes(remembered)
        place.server.reset_journal()
        with operator(place, tmp_path) as store:
            store.log("c").inventory()
            head = store.log("c")._head()
        assert head is not None
        assert bool(head.segments) == sealed
        assert len(place.server.requests()) == 2 + len(head.segments)
        if not sealed:
            _fill(place, tmp_path / "others")


def _fill(place: GsmPlace, home: Path) -> None:
    with operator(place, home) as store:
        for _ in range(12):
            issue(store.log("c"), [random_leaf(CHANCE) for _ in range(150)])
