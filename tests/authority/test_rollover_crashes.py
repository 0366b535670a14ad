"""Each step of a rollover, killed at every change it makes to the store: the next command completes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import pytest

from daskpki import CertificateAuthority, naming
from daskpki.authority.rollover import Successor
from daskpki.credentials.fetching import fetch_credential
from daskpki.credentials.held import Pins
from daskpki.identity import Role
from daskpki.pki.trust import ACTIVE, TrustDocument, verify_trust
from daskpki.store.port import Store
from daskpki.store.trust import trust_chain
from tests.authority.clocks import Clock
from tests.authority.fragile import AFTER, BEFORE, FragileStore, Fuse, Killed
from tests.store.places import LocalPlace
from tests.store_gsm.places import open_place

LEAVES = ((Role.SCHEDULER, "scheduler"), (Role.CLIENT, "alice"))


@pytest.fixture(scope="module", params=["local", "gsm"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all points, of which each has a cluster of its own."""
    if request.param == "local":
        with closing(LocalPlace(tmp_path_factory.mktemp("local")).create()) as store:
            yield store
        return
    with open_place("grpc", None) as place, closing(place.factory()) as store:
        yield store


def promote(ca: CertificateAuthority) -> None:
    ca.rollover().promote()
    list(ca.rollover().reissue())


def abort(ca: CertificateAuthority) -> None:
    ca.rollover().abort()
    list(ca.rollover().reissue())


def emergency(ca: CertificateAuthority) -> None:
    ca.rollover().emergency(Successor())
    list(ca.rollover().reissue(give_way=False))


def start(ca: CertificateAuthority) -> None:
    ca.rollover().start(Successor())


def finish(ca: CertificateAuthority) -> None:
    ca.rollover().finish()


Step = Callable[[CertificateAuthority], None]


class Case(NamedTuple):
    """A step, those that lead up to it, and what is trusted once it is done: generations, the active one first."""

    before: tuple[Step, ...]
    step: Step
    trusted: tuple[int, ...] | None


CASES = {
    "start": Case((), start, None),
    "promote": Case((start,), promote, (2, 1)),
    "abort before promote": Case((start,), abort, (1,)),
    "abort after promote": Case((start, promote), abort, (1, 2)),
    "finish": Case((start, promote), finish, (2,)),
    "emergency": Case((), emergency, None),
    "emergency during a rollover": Case((start,), emergency, None),
}


class Node:
    """What a running node does: it reads the newest trust document, and believes what follows from the one before."""

    def __init__(self, store: Store, cluster: str, clock: Clock) -> None:
        self._chain = trust_chain(store.secrets, cluster)
        self._clock = clock
        self.trust: TrustDocument | None = None
        self.poll()

    def poll(self) -> None:
        head = self._chain.head()
        assert head is not None
        self.trust = verify_trust(head.payload.signed, previous=self.trust, now=self._clock())


def prepared(store: Store, cluster: str, before: tuple[Step, ...]) -> Clock:
    clock = Clock()
    ca = CertificateAuthority(store, cluster, clock=clock)
    ca.init()
    for role, name in LEAVES:
        list(ca.issue(ca.requests(role, [name])))
    for step in before:
        step(ca)
    return clock


def changes(store: Store, cluster: str, case: Case) -> int:
    """How many changes the step makes when nothing goes wrong."""
    clock, fuse = prepared(store, cluster, case.before), Fuse()
    case.step(CertificateAuthority(FragileStore(store, fuse), cluster, clock=clock))
    return fuse.count


@pytest.mark.parametrize("name", CASES)
def test_the_next_command_completes_what_was_killed(store: Store, name: str) -> None:
    case, stem = CASES[name], f"c{list(CASES).index(name)}"
    points = changes(store, stem, case)
    assert points >= 3
    for number in range(1, points + 1):
        for when in (BEFORE, AFTER):
            killed_and_completed(store, f"{stem}-{number}-{when}", case, Fuse(number, when))


def killed_and_completed(store: Store, cluster: str, case: Case, fuse: Fuse) -> None:
    clock = prepared(store, cluster, case.before)
    node = Node(store, cluster, clock)
    with pytest.raises(Killed):
        case.step(CertificateAuthority(FragileStore(store, fuse), cluster, clock=clock))
    node.poll()
    clock.advance(minutes=11)  # what was reserved counts as given up
    case.step(CertificateAuthority(store, cluster, clock=clock))
    node.poll()
    check_complete(store, cluster, case, node)
    assert_usable(store, cluster, clock)


def check_complete(store: Store, cluster: str, case: Case, node: Node) -> None:
    ca = CertificateAuthority(store, cluster, clock=node._clock)
    now = ca.rollover().standing()
    assert now.published
    assert not now.reissue
    assert node.trust == ca.trust()
    trusted = [anchor.generation for anchor in sorted(node.trust.authorities, key=lambda entry: entry.state != ACTIVE)]
    if case.trusted is not None:
        assert tuple(trusted) == case.trusted
    elif case.step is start:
        assert trusted[0] == 1
        assert len(trusted) == 2
    else:
        assert len(trusted) == 1
        assert trusted[0] > 1
    assert_keys_are_those_of(store, cluster, trusted)


def assert_keys_are_those_of(store: Store, cluster: str, trusted: list[int]) -> None:
    """No key outlives its CA; one that never got a certificate may be left."""
    kept = {info.id for info in store.secrets.select({"daskpki-cluster": cluster, "daskpki-kind": naming.CA_KEY})}
    certified = {
        naming.ca_key_id(cluster, entry.generation)
        for entry in store.log(cluster).inventory().authorities()
        if entry.certificate
    }
    assert kept & certified == {naming.ca_key_id(cluster, generation) for generation in trusted}


def assert_usable(store: Store, cluster: str, clock: Clock) -> None:
    """Every leaf is trusted, and the CA issues."""
    for role, name in LEAVES:
        held = fetch_credential(store.secrets, cluster, role, name, pins=Pins(), now=clock())
        assert held.credential.generation == held.trust.active.generation
    ca = CertificateAuthority(store, cluster, clock=clock)
    (issued,) = ca.issue(ca.requests(Role.WORKER, ["w"]))
    assert issued.record.issuer == ca.trust().active.generation
