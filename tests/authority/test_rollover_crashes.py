"""Each step of a rollover, killed at every change it makes to the store: the next command completes it.

By day it is killed either before or after a change, by turns; in long runs at both moments of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing

import pytest

from daskpki import CertificateAuthority, secret_names
from daskpki.authority.rollover import IDLE, Successor
from daskpki.credentials.sources import fetch_credential
from daskpki.credentials.verified import Pins
from daskpki.errors import DaskpkiError
from daskpki.identity import Role
from daskpki.pki.pem import fingerprint
from daskpki.pki.verify import verify_leaf
from daskpki.store.port import Store
from tests.support.clocks import Clock
from tests.support.crash_cases import ROLLOVERS, Case, Ending, emergency, found, issue, reissue, start
from tests.support.fragile import AFTER, BEFORE, FragileStore, Fuse, Killed
from tests.support.gsm_places import open_place
from tests.support.local_places import LocalPlace
from tests.support.nightly import by_day, sample
from tests.support.rollovers import check_ended, followed

LEAVES = ((Role.SCHEDULER, "scheduler"), (Role.WORKER, "worker"))


KINDS = ["local", "gsm"]


@pytest.fixture(scope="module", params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all points, of which each has a cluster of its own."""
    if request.param == "local":
        with closing(LocalPlace(tmp_path_factory.mktemp("local")).create()) as store:
            yield store
        return
    with open_place("grpc", None) as place, closing(place.factory()) as store:
        yield store


CASES = {
    case.name: case
    for case in (
        *ROLLOVERS,
        Case("emergency during a rollover", (), emergency, (found, start), Ending(IDLE)),
    )
}


def prepared(store: Store, cluster: str, case: Case) -> Clock:
    clock = Clock()
    ca = CertificateAuthority(store, cluster, clock=clock)
    ca.init()
    list(issue(ca, "scheduler", Role.SCHEDULER))
    for act in case.before:
        list(act(ca))
    return clock


def changes(store: Store, cluster: str, case: Case) -> int:
    """How many changes the step makes when nothing goes wrong."""
    clock, fuse = prepared(store, cluster, case), Fuse()
    list(case.act(CertificateAuthority(FragileStore(store, fuse), cluster, clock=clock)))
    return fuse.count


@pytest.mark.parametrize("name", sample(list(CASES), one_of=6))
def test_the_next_command_completes_what_was_killed(store: Store, name: str) -> None:
    case, stem = CASES[name], f"c{list(CASES).index(name)}"
    points = changes(store, stem, case)
    assert points >= 3
    for number in range(1, points + 1):
        for when in by_day([(BEFORE, AFTER)[number % 2]], night=[BEFORE, AFTER]):
            killed_and_completed(store, f"{stem}-{number}-{when}", case, Fuse(number, when))


def killed_and_completed(store: Store, cluster: str, case: Case, fuse: Fuse) -> None:
    clock = prepared(store, cluster, case)
    trust = followed(store, cluster, None, clock())
    with pytest.raises(Killed):
        list(case.act(CertificateAuthority(FragileStore(store, fuse), cluster, clock=clock)))
    trust = followed(store, cluster, trust, clock())
    clock.advance(minutes=11)  # what was reserved counts as given up
    ca = CertificateAuthority(store, cluster, clock=clock)
    list(case.act(ca))
    assert followed(store, cluster, trust, clock()) == ca.trust()
    assert case.ending
    check_ended(ca, case.ending)
    assert_usable(store, cluster, clock, Pins())


def without_the_old_key(store: Store, cluster: str, clock: Clock) -> CertificateAuthority:
    ca = CertificateAuthority(store, cluster, clock=clock)
    ca.rollover().emergency(Successor(), old_keys=False)
    list(reissue(ca, give_way=False))
    return ca


def key_lost(store: Store, cluster: str) -> Clock:
    clock = prepared(store, cluster, Case("", (), emergency, (found,)))
    store.secrets.delete(secret_names.ca_key_id(cluster, 1))
    return clock


@pytest.mark.parametrize("store", sample(KINDS, one_of=2), indirect=True)
def test_an_emergency_without_the_old_key_that_was_cut_off(store: Store) -> None:
    """Nobody else goes on until the new CA is published, each is told the command, and that begins or ends it."""
    fuse = Fuse()
    without_the_old_key(FragileStore(store, fuse), "lost", key_lost(store, "lost"))
    refused = 0
    for number, when in itertools.product(range(1, fuse.count + 1), (BEFORE, AFTER)):
        clock = key_lost(store, cluster := f"lost-{number}-{when}")
        with pytest.raises(Killed):
            without_the_old_key(FragileStore(store, Fuse(number, when)), cluster, clock)
        try:
            list(issue(CertificateAuthority(store, cluster, clock=clock), "w"))
        except DaskpkiError as refusal:
            assert "rotate-ca --emergency" in str(refusal.hint)
            assert "--old-key-lost" in str(refusal.hint)
            refused += 1
        clock.advance(minutes=11)
        ca = without_the_old_key(store, cluster, clock)
        check_ended(ca, Ending(IDLE))
        new_root_of_trust = Pins(sha256=fingerprint(ca.trust().active.certificate))
        assert_usable(store, cluster, clock, new_root_of_trust)
    assert 0 < refused < 2 * fuse.count


def assert_usable(store: Store, cluster: str, clock: Clock, pins: Pins) -> None:
    """Every leaf is trusted, and the CA issues."""
    for role, name in LEAVES:
        held = fetch_credential(store, cluster, role, name, pins=pins, now=clock())
        active, domain = [held.trust.active.certificate], held.trust.trust_domain
        verify_leaf(held.credential.leaf, held.credential.chain, active, now=clock(), trust_domain=domain)
    ca = CertificateAuthority(store, cluster, clock=clock)
    (issued,) = issue(ca, "w")
    assert issued.issuer == ca.trust().active.generation
