"""The CA from Python: what the commands do, without a shell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from datetime import timedelta
from pathlib import Path

import pytest

from daskpki import CertificateAuthority
from daskpki.authority.creation import plan_ca
from daskpki.authority.crl import revocations
from daskpki.authority.lookup import ABANDON_AFTER
from daskpki.authority.renewal import request_for
from daskpki.cluster.peer import parse_peer
from daskpki.credentials.sources import fetch_credential
from daskpki.credentials.verified import Pins
from daskpki.errors import AlreadyExistsError, NotFoundError, NotTrustedError, PolicyError, UsageError
from daskpki.identity import Role
from daskpki.pki.crl import revoked_serials
from daskpki.pki.profile import DAY, LEAF_BACKDATE, Grade, parse_ttl
from daskpki.records import ABANDONED, RESERVED
from daskpki.settings import LocalUrl
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.opening import open_store
from daskpki.store.port import Store
from tests.support.clocks import START, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url, unlock = LocalUrl(tmp_path / "store"), Unlocking(key_file=tmp_path / "key")
    with closing(open_store(url, unlock=unlock, create=True)) as store:
        yield store


@pytest.fixture
def ca(store: Store, clock: Clock) -> CertificateAuthority:
    authority = CertificateAuthority(store, clock=clock)
    authority.init()
    return authority


def issue(ca: CertificateAuthority, role: Role, *names: str, ttl: str | None = None) -> list[int]:
    return [leaf.record.serial for leaf in ca.issue(ca.requests(role, names, ttl=ttl))]


def test_nothing_issues_before_init(store: Store) -> None:
    with pytest.raises(NotFoundError, match="has no CA"):
        CertificateAuthority(store).active()


def test_init_is_once(ca: CertificateAuthority) -> None:
    with pytest.raises(AlreadyExistsError):
        ca.init()


def test_the_trust_document_follows_every_change(ca: CertificateAuthority) -> None:
    first = ca.trust()
    (serial,) = issue(ca, Role.CLIENT, "alice")
    assert ca.trust() == first  # issuing changes nobody's trust
    ca.revoke(f"{serial:x}", "keyCompromise")
    second = ca.trust()
    assert second.epoch == first.epoch + 1
    assert second.crls[0].number == first.crls[0].number + 1
    assert ca.inventory().head.seq >= second.log[0]


def test_due_is_two_thirds_of_a_life_and_renewing_ends_it(ca: CertificateAuthority, clock: Clock) -> None:
    issue(ca, Role.WORKER, "w", ttl="30d")
    issue(ca, Role.SCHEDULER, "s", ttl="90d")
    clock.now = START + timedelta(days=20) - timedelta(minutes=6)
    assert ca.due() == []
    clock.now = START + timedelta(days=20)
    assert [entry.name for entry in ca.due()] == ["w"]
    clock.now = START + timedelta(days=400)  # long expired: renewed all the same
    assert [entry.name for entry in ca.due()] == ["w", "s"]
    renewed = list(ca.renew(ca.due()))
    asked = [leaf.record.not_after - leaf.record.not_before - LEAF_BACKDATE + 1 for leaf in renewed]
    assert asked == [30 * DAY, 90 * DAY]
    assert ca.due() == []


@pytest.mark.parametrize("ttl", ["10m", "7d", "1h"])
def test_the_lifetime_that_is_asked_for_is_given_and_stays_the_same(
    ca: CertificateAuthority, clock: Clock, ttl: str
) -> None:
    issue(ca, Role.WORKER, "w", ttl=ttl)
    for number in range(50):
        entry = ca.find("worker/w")
        assert entry.not_after + 1 - int(clock.now.timestamp()) == parse_ttl(ttl), f"after {number} renewals"
        clock.now += timedelta(minutes=7)
        list(ca.renew([entry]))


def test_a_default_lifetime_that_was_cut_is_the_default_again(ca: CertificateAuthority, clock: Clock) -> None:
    """Ten days before its end the CA gives ten days; the next CA gives thirty, as the first one did."""
    end = ca.issuer().certificate.not_valid_after_utc
    clock.now = end - timedelta(days=10)
    issue(ca, Role.WORKER, "w")
    assert ca.find("worker/w").not_after == int(end.timestamp())
    assert request_for(ca.find("worker/w"), ca.policy().trust_domain, int(end.timestamp())).ttl is None


def test_a_renewal_keeps_names_and_gives_way(ca: CertificateAuthority, clock: Clock) -> None:
    names = ["x.worker.default.daskpki.internal"]
    list(ca.issue(ca.requests(Role.WORKER, ["w"], dns=names, ips=["10.0.0.5"])))
    clock.now += timedelta(days=25)
    due = ca.due()
    (leaf,) = ca.renew(due)
    assert leaf.record.sans == (f"dns:{names[0]}", "ip:10.0.0.5")
    assert list(ca.renew(due)) == []  # somebody was first
    assert len(list(ca.inventory().certificates(name="w"))) == 2


@pytest.mark.parametrize("release", [False, True], ids=["revoked", "released again"])
def test_who_was_revoked_since_it_was_found_due_is_not_renewed(
    ca: CertificateAuthority, clock: Clock, *, release: bool
) -> None:
    list(ca.issue(ca.requests(Role.CLIENT, ["alice"], ttl="30d")))
    clock.now += timedelta(days=25)
    (due,) = ca.due()
    ca.revoke("client/alice", "certificateHold")
    if release:
        ca.release("client/alice")
    assert len(list(ca.renew([due]))) == release


def test_a_renewal_takes_the_grade_from_the_record_and_a_new_leaf_does_not(
    ca: CertificateAuthority, clock: Clock, store: Store
) -> None:
    def grades() -> frozenset[Grade]:
        found = fetch_credential(store, "default", Role.CLIENT, "ops", pins=Pins(), now=clock.now)
        return parse_peer(found.credential.leaf).grades

    list(ca.issue(ca.requests(Role.CLIENT, ["ops"], grades=[Grade.ADMIN])))
    assert grades() == {Grade.ADMIN}
    clock.now += timedelta(days=25)
    list(ca.renew(ca.due()))
    assert grades() == {Grade.ADMIN}
    issue(ca, Role.CLIENT, "ops")
    assert grades() == frozenset()


class Interrupted:
    """The same store, but Ctrl-C comes when the leaf is about to be stored."""

    def __init__(self, store: Store) -> None:
        self.url, self.secrets = store.url, store.secrets
        self.log, self.events, self.memory = store.log, store.events, store.memory
        self.clusters, self.close = store.clusters, store.close

    def batch(self) -> AbstractContextManager[None]:
        raise KeyboardInterrupt


def test_a_reservation_that_died_is_abandoned_and_revoked(ca: CertificateAuthority, clock: Clock, store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        issue(CertificateAuthority(Interrupted(store), clock=clock), Role.WORKER, "w")
    (reserved,) = ca.inventory().certificates(statuses=[RESERVED])
    clock.now += timedelta(seconds=ABANDON_AFTER + 1)
    issue(CertificateAuthority(store, clock=clock), Role.WORKER, "v")
    (abandoned,) = ca.inventory().certificates(statuses=[ABANDONED])
    assert abandoned.serial == reserved.serial
    assert reserved.serial in revocations(ca.inventory(), 1, clock.now.timestamp())
    assert revoked_serials(ca.trust())[1].keys() == {reserved.serial}


def test_a_due_crl_is_signed_anew_by_the_next_command(ca: CertificateAuthority, clock: Clock) -> None:
    before = ca.trust().crls[0]
    clock.now = START + timedelta(days=11)
    issue(ca, Role.WORKER, "a")
    assert ca.trust().crls[0] == before
    clock.now = START + timedelta(days=12)
    issue(ca, Role.WORKER, "b")
    after = ca.trust().crls[0]
    assert (after.number, after.this_update) == (before.number + 1, int(clock.now.timestamp()))


def test_max_ttl_and_permitted_domains_are_the_cas_for_ever(store: Store) -> None:
    ca = CertificateAuthority(store, "strict")
    ca.init(plan_ca("strict", max_ttl="7d", permit_dns=["example.com"]))
    assert len(issue(ca, Role.WORKER, "w")) == 1
    with pytest.raises(PolicyError, match="over the maximum of 7d"):
        issue(ca, Role.WORKER, "w", ttl="8d")
    list(ca.issue(ca.requests(Role.WORKER, ["w"], dns=["w.example.com"])))
    with pytest.raises(PolicyError, match=r"w\.example\.org"):
        list(ca.issue(ca.requests(Role.WORKER, ["w"], dns=["w.example.org"])))


def test_verify_tells_states_apart(ca: CertificateAuthority, clock: Clock, store: Store) -> None:
    (serial,) = issue(ca, Role.CLIENT, "alice")
    held = fetch_credential(store, "default", Role.CLIENT, "alice", pins=Pins(), now=clock.now)
    assert ca.verifier().verify(held.credential.leaf).serial == serial
    clock.now = START + timedelta(days=31)
    with pytest.raises(NotTrustedError):
        ca.verifier().verify(held.credential.leaf)
    clock.now = START
    ca.revoke("client/alice")
    with pytest.raises(NotTrustedError, match="was revoked"):
        ca.verifier().verify(held.credential.leaf)


@pytest.mark.parametrize("cluster", ["", "Default", "a_b"])
def test_a_cluster_is_a_dns_label(store: Store, cluster: str) -> None:
    with pytest.raises(UsageError):
        CertificateAuthority(store, cluster)


def test_an_announced_address_stays_and_is_for_login_to_find(ca: CertificateAuthority) -> None:
    assert ca.announce("tls://Scheduler.example:8786")
    assert ca.trust().schedulers == ("tls://scheduler.example:8786",)
    assert not ca.announce("tls://scheduler.example")
    issue(ca, Role.CLIENT, "alice")
    ca.revoke("client/alice")
    assert ca.trust().schedulers == ("tls://scheduler.example:8786",)
    with pytest.raises(UsageError, match="not a scheduler's address"):
        ca.announce("tcp://scheduler.example:8786")
