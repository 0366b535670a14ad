"""Of a credential two versions stay, also after commands that died, or whose caller may not destroy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.identity import Role
from daskpki.store.gsm.store import GsmStore
from tests.support.clocks import Clock
from tests.support.fragile import AFTER, BEFORE, FragileStore, Fuse, Killed
from tests.support.gsm_places import GsmPlace, open_place

WORKER = secret_names.credential_id("default", Role.WORKER, "w")


@pytest.fixture
def place() -> Iterator[GsmPlace]:
    with open_place("grpc", None) as place:
        yield place


@pytest.fixture
def store(place: GsmPlace) -> Iterator[GsmStore]:
    with closing(place.factory()) as store:
        ca = CertificateAuthority(store, clock=Clock())
        ca.init()
        list(ca.issue(ca.requests(Role.WORKER, ["w"])))
        renew(ca)
        yield store


def renew(ca: CertificateAuthority) -> None:
    list(ca.renew([ca.find("worker/w")], give_way=False))


def killed(store: GsmStore, fuse: Fuse) -> None:
    with pytest.raises(Killed):
        renew(CertificateAuthority(FragileStore(store, fuse), clock=Clock()))


def active(place: GsmPlace) -> list[int]:
    return sorted(place.server.active_versions(place.name(WORKER)))


@pytest.mark.parametrize(
    "fuses", [[Fuse(2, AFTER)], [Fuse(4, BEFORE)], [Fuse(4, BEFORE), Fuse(2, AFTER), Fuse(4, BEFORE)]]
)
def test_the_next_renewal_destroys_what_a_killed_one_left(place: GsmPlace, store: GsmStore, fuses: list[Fuse]) -> None:
    """Killed once the version was added, before it was confirmed or before the older ones were destroyed."""
    for fuse in fuses:
        killed(store, fuse)
    assert active(place) == list(range(1, 3 + len(fuses)))
    renew(CertificateAuthority(store, clock=Clock()))
    assert active(place) == [2 + len(fuses), 3 + len(fuses)]


def test_a_renewal_costs_one_request_more_to_look(place: GsmPlace, store: GsmStore) -> None:
    ca = CertificateAuthority(store, clock=Clock())
    for _ in range(3):
        place.server.reset_journal()
        renew(ca)
        seen = [entry.method for entry in place.server.requests() if entry.secret_id == WORKER]
        assert seen[-3:] == ["AddSecretVersion", "ListSecretVersions", "DestroySecretVersion"]
    assert active(place) == [4, 5]


def test_a_list_that_lags_leaves_no_third(place: GsmPlace, store: GsmStore) -> None:
    ca = CertificateAuthority(store, clock=Clock())
    place.server.latest_lag(place.name(WORKER))
    for _ in range(3):
        renew(ca)
    assert active(place) == [4, 5]


def test_a_secret_that_is_gone_is_made_again(place: GsmPlace, store: GsmStore) -> None:
    store.secrets.delete(WORKER)
    renew(CertificateAuthority(store, clock=Clock()))
    assert active(place) == [1]
    assert store.secrets.describe(WORKER).labels["daskpki-name"] == "w"
