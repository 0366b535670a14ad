"""What a command verified of the signed log, the next one of the same user does not verify again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from daskpki import CertificateAuthority
from daskpki.authority.audit import verify_log
from daskpki.authority.rollover import Successor
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from daskpki.records import ISSUED, RESERVED, Draft, Head
from tests.support.fragile import AFTER, FragileStore, Fuse, Killed
from tests.support.local_places import LocalPlace

LEAVES = 100_000 if os.environ.get("DASKPKI_NIGHTLY") else 10_000
BATCH = 5_000


@pytest.fixture
def local(tmp_path: Path) -> LocalPlace:
    place = LocalPlace(tmp_path)
    with closing(place.create()) as store:
        CertificateAuthority(store).init()
    return place


def drafts(first: int) -> Iterator[Draft]:
    now = int(datetime.now(UTC).timestamp())
    for number in range(first, first + BATCH):
        serial, name = f"{number + 1:x}", f"w-{number}"
        body = {"role": "worker", "name": name, "issuer": 1, "not_before": now - 60, "not_after": now + 10**7}
        yield Draft(RESERVED, {"serial": serial} | body)
        yield Draft(ISSUED, {"serial": serial, "fingerprint": f"{number:064x}", "version": 1})


def _given(batch: list[Draft], _inventory: object) -> list[Draft]:
    return batch


def record(place: LocalPlace, count: int) -> None:
    with closing(place.factory()) as store:
        session = CertificateAuthority(store).session
        for first in range(0, count, BATCH):
            batch = list(drafts(first))
            session.commit(partial(_given, batch), session.stamp())


def look(place: LocalPlace) -> int:
    """Calls of functions until the log and the tables of a new handle are authenticated."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    with closing(place.factory()) as store:
        authority = CertificateAuthority(store)
        sys.setprofile(count)
        try:
            assert authority.inventory().certificate(1) is not None
        finally:
            sys.setprofile(None)
    return calls


def test_what_was_verified_costs_later_commands_nothing(local: LocalPlace) -> None:
    """Verifying 100,000 leaves took each command 3 s until the next publication."""
    record(local, LEAVES)
    look(local)
    assert look(local) < LEAVES / 2
    with closing(local.factory()) as store:
        store.memory.forget()
    assert look(local) > 10 * LEAVES, "control"
    assert look(local) < LEAVES / 2


def test_a_signature_is_verified_until_it_was(local: LocalPlace) -> None:
    with closing(local.factory()) as store:
        ca = CertificateAuthority(store)
        list(ca.issue(ca.requests(Role.WORKER, ["a", "b"])))
        ca.inventory()
    for (trigger,) in local.sql("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'record'"):
        local.sql(f"DROP TRIGGER {trigger}")
    local.sql("UPDATE record SET signatures = NULL WHERE seq > (SELECT max(seq) - 2 FROM record)")
    with closing(local.factory()) as store:
        assert CertificateAuthority(store).inventory().head
        with pytest.raises(NotTrustedError, match="not signed by CA 1"):
            verify_log(CertificateAuthority(store).session)
    with closing(local.factory()) as store:
        store.memory.forget()
    with closing(local.factory()) as store, pytest.raises(NotTrustedError, match="not signed by CA 1"):
        CertificateAuthority(store).inventory()


def test_what_follows_another_ca_is_not_remembered(local: LocalPlace) -> None:
    """The generations are then no longer those that the document names."""
    with closing(local.factory()) as store:
        ca = CertificateAuthority(store)
        named = Head(*ca.trust().log)
        list(ca.issue(ca.requests(Role.WORKER, ["a"])))
        assert ca.inventory().head == store.memory.verified("default", named) != named
        fuse = 0
        while len(ca.inventory().authorities()) < 2:
            rollover = CertificateAuthority(FragileStore(store, Fuse(fuse := fuse + 1, AFTER))).rollover()
            with pytest.raises(Killed):
                rollover.start(Successor())
        before = store.memory.verified("default", named)
        assert CertificateAuthority(store).inventory().head.seq > before.seq
        assert store.memory.verified("default", named) == before
