"""A client of weeks: before it dials again, it looks where its credential came from, but only once that makes sense."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from distributed import Client, Scheduler

import daskpki
from daskpki.cluster.refresh import NullSource, OnDial
from daskpki.cluster.security import PkiSecurity
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager
from daskpki.identity import Role
from tests.support.cluster_material import DAY, NOW, Authority, Leaf

pytestmark = pytest.mark.cluster

LIFE = 3 * DAY
FRESH, AGED = NOW, -2.5 * DAY


@pytest.fixture
def own() -> Authority:
    return Authority()


def alice(authority: Authority, at: timedelta = NOW) -> Leaf:
    return authority.leaf(Role.CLIENT, "alice", at=at, ttl=int(LIFE.total_seconds()))


def put(authority: Authority, leaf: Leaf, directory: Path) -> None:
    authority.files(leaf, directory)
    (directory / "trust.json").write_bytes(authority.signed(authority.document()).reveal())


def connect(authority: Authority, security: PkiSecurity) -> None:
    scheduler = PkiSecurity({Role.SCHEDULER: authority.enforcement(authority.leaf(Role.SCHEDULER))})

    async def scenario() -> None:
        async with (
            Scheduler(security=scheduler, host="127.0.0.1", port=0, dashboard_address=":0") as running,
            Client(running.address, security=security, asynchronous=True, set_as_default=False),
        ):
            pass

    asyncio.run(scenario())


@pytest.mark.parametrize("begun", [AGED, FRESH], ids=["aged", "fresh"])
def test_what_was_renewed_is_used_for_the_next_connection(
    own: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: timedelta
) -> None:
    first, renewed = alice(own, begun), alice(own)
    put(own, first, tmp_path / "alice")
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "alice"))
    security = daskpki.security()
    put(own, renewed, tmp_path / "alice")
    connect(own, security)
    used = security.enforcement(Role.CLIENT).pair.certificates
    assert used == (renewed if begun is AGED else first).pair.certificates


def test_a_place_that_is_gone_leaves_what_there_is(
    own: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = alice(own, AGED)
    put(own, first, tmp_path / "alice")
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "alice"))
    security = daskpki.security()
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "gone"))
    connect(own, security)
    assert security.enforcement(Role.CLIENT).pair.certificates == first.pair.certificates


class Counting(NullSource):
    """Has nothing, and counts how often it was asked."""

    asked = 0

    def credential(self) -> KeyPair | None:
        self.asked += 1
        return None


def test_a_place_is_asked_at_most_once_a_minute(own: Authority) -> None:
    document, source, hands = own.document(), Counting(), [0.0]
    enforcement = own.enforcement(alice(own, AGED))
    on_dial = OnDial(enforcement, TrustManager(enforcement, document), source, clock=lambda: hands[0])
    for moment in (0, 1, 59, 60, 61, 119, 120):
        hands[0] = moment
        asyncio.run(on_dial())
    assert source.asked == 3


def test_a_dial_with_no_reason_to_look_delays_no_look(own: Authority) -> None:
    document, source, hands = own.document(), Counting(), [0.0]
    enforcement = own.enforcement(alice(own))
    begin = TrustManager(enforcement, document).lifetime.not_before
    ages = iter([LIFE / 2, LIFE * 3 / 4])  # before two thirds of it, nothing newer is to be expected
    on_dial = OnDial(
        enforcement,
        TrustManager(enforcement, document),
        source,
        now=lambda: begin + next(ages).total_seconds(),
        clock=lambda: hands[0],
    )
    for moment, asked in ((0, 0), (1, 1)):
        hands[0] = moment
        asyncio.run(on_dial())
        assert source.asked == asked
