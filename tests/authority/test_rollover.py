"""What each step of a rollover refuses, and what nodes and other commands make of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from daskpki import CertificateAuthority, secret_names
from daskpki.authority.ca_keys import KeyLocations
from daskpki.authority.issuance import BATCH
from daskpki.authority.rollover import Successor
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, ConflictError, NotFoundError, NotTrustedError, PolicyError
from daskpki.identity import Role
from daskpki.pki.credential import certificate_pem, parse_credential
from daskpki.pki.trust import verify_trust
from daskpki.pki.trust_document import TrustDocument, parse_trust
from daskpki.records import CA_RETIRED, ISSUED, RESERVED
from daskpki.store.append_chain import trust_chain
from daskpki.store.local.store import LocalStore
from daskpki.store.port import Store
from tests.support.clocks import Clock
from tests.support.fragile import AFTER, FragileStore, Fuse, Killed, Meanwhile
from tests.support.local_places import LocalPlace


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(LocalPlace(tmp_path).create()) as store:
        yield store


@pytest.fixture
def ca(store: Store, clock: Clock) -> CertificateAuthority:
    authority = CertificateAuthority(store, clock=clock)
    authority.init()
    return authority


def issue(ca: CertificateAuthority, name: str, role: Role = Role.WORKER) -> int:
    (issued,) = ca.issue(ca.requests(role, [name]))
    return issued.record.serial


def promote(ca: CertificateAuthority) -> None:
    ca.rollover().start(Successor())
    ca.rollover().promote()
    list(ca.rollover().reissue())


def generations(trust: TrustDocument) -> list[tuple[int, str]]:
    return [(anchor.generation, anchor.state) for anchor in trust.authorities]


def test_steps_out_of_order_are_refused(ca: CertificateAuthority) -> None:
    with pytest.raises(ConflictError, match="no new CA to promote"):
        ca.rollover().promote()
    ca.rollover().start(Successor())
    with pytest.raises(ConflictError, match="CA 2 does not issue yet"):
        ca.rollover().finish()
    ca.rollover().promote()
    with pytest.raises(AlreadyExistsError, match="CA 2 issues, CA 1 retires"):
        ca.rollover().start(Successor())
    assert generations(ca.trust()) == [(1, "retiring"), (2, "active")]


def test_what_is_still_valid_is_not_cut_off_unasked(ca: CertificateAuthority) -> None:
    issue(ca, "w")
    ca.rollover().start(Successor())
    ca.rollover().promote()
    before = ca.trust()
    with pytest.raises(PolicyError, match="worker/w"):
        ca.rollover().finish()
    assert ca.trust() == before
    ca.rollover().finish(force=True)
    assert generations(ca.trust()) == [(2, "active")]


def test_what_ended_or_was_revoked_is_not_issued_anew(ca: CertificateAuthority, clock: Clock) -> None:
    issue(ca, "ended")
    clock.advance(days=31)
    issue(ca, "revoked")
    issue(ca, "valid")
    ca.revoke("worker/revoked")
    promote(ca)
    now = {(entry.name, entry.issuer) for entry in ca.inventory().certificates() if not entry.superseded}
    assert now == {("ended", 1), ("revoked", 1), ("valid", 2)}


def test_revoking_goes_on_for_both_cas(ca: CertificateAuthority) -> None:
    old = issue(ca, "w")
    ca.rollover().start(Successor())
    ca.rollover().promote()
    new = issue(ca, "v")
    ca.revoke(f"{old:x}", "keyCompromise")
    ca.revoke(f"{new:x}")
    verifier = ca.verifier()
    assert {generation: set(serials) for generation, serials in verifier._revoked.items()} == {1: {old}, 2: {new}}


def test_a_node_that_missed_every_step_in_between_follows_the_last(ca: CertificateAuthority, clock: Clock) -> None:
    issue(ca, "w")
    before = ca.trust()
    promote(ca)
    ca.rollover().finish()
    signed = parse_trust(newest(ca))
    assert generations(verify_trust(signed, previous=before, now=clock())) == [(2, "active")]


def newest(ca: CertificateAuthority) -> Confidential:
    return ca.session.store.secrets.latest(secret_names.trust_id("default")).data


def test_the_dropped_key_is_erased_and_its_leaves_are_not_trusted(
    ca: CertificateAuthority, store: Store, clock: Clock
) -> None:
    issue(ca, "w")
    leaf = leaf_of(store, "w")
    CertificateAuthority(store, clock=clock).verifier().verify(leaf)
    promote(ca)
    assert ca.rollover().finish()
    with pytest.raises(NotTrustedError):
        ca.verifier().verify(leaf)
    ca.verifier().verify(leaf_of(store, "w"))
    with pytest.raises(NotFoundError):
        store.secrets.describe(secret_names.ca_key_id("default", 1))


def leaf_of(store: Store, name: str) -> bytes:
    payload = store.secrets.latest(secret_names.credential_id("default", Role.WORKER, name)).data
    return certificate_pem(parse_credential(payload)).encode()


def test_an_emergency_drops_every_other_ca_at_once(ca: CertificateAuthority, store: Store) -> None:
    issue(ca, "w")
    leaf = leaf_of(store, "w")
    before = ca.trust()
    ca.rollover().start(Successor())
    made, _ = ca.rollover().emergency(Successor())
    assert made.generation == 3
    trust = ca.trust()
    assert generations(trust) == [(3, "active")]
    verify_trust(parse_trust(newest(ca)), previous=before, now=ca.session.now())
    with pytest.raises(NotTrustedError):
        ca.verifier().verify(leaf)
    list(ca.rollover().reissue(give_way=False))
    ca.verifier().verify(leaf_of(store, "w"))


def test_an_emergency_that_is_over_is_followed_by_another_one(ca: CertificateAuthority) -> None:
    for generation in (2, 3):
        assert ca.rollover().emergency(Successor())[0].generation == generation
        list(ca.rollover().reissue(give_way=False))


def test_a_node_that_missed_the_emergency_itself_follows_what_came_after_it(ca: CertificateAuthority) -> None:
    """It looks once a minute, and operators are quicker than that, above all on such a day."""
    issue(ca, "w")
    before = ca.trust()
    for _ in range(2):
        ca.rollover().emergency(Successor())
        issue(ca, "w")
    ca.revoke(f"{issue(ca, 'w'):x}")
    ca.revoke("worker/w")
    head = trust_chain(ca.session.store.secrets, "default").head()
    assert head is not None
    assert verify_trust(head.payload.signed, previous=before, now=ca.session.now()) == ca.trust()
    assert [word.generation for word in ca.trust().successions] == [1, 2]


def test_a_ca_that_never_issued_leaves_no_word(ca: CertificateAuthority) -> None:
    ca.rollover().start(Successor())
    ca.rollover().abort()
    assert ca.trust().successions == ()


def test_whoever_saw_an_earlier_ca_goes_on_with_the_present_one(ca: CertificateAuthority, store: Store) -> None:
    """Also one that lives long, as in a service of somebody's own."""
    other = CertificateAuthority(store, clock=ca.session.clock)
    issue(other, "w")
    requests = other.requests(Role.WORKER, ["w"])
    ca.rollover().emergency(Successor())
    (issued,) = other.issue(requests)
    assert issued.record.issuer == 2
    ca.rollover().emergency(Successor())
    assert [entry.issuer for entry in other.revoke("worker/w")] == [1, 2]
    pending = other.issue(other.requests(Role.WORKER, [f"w-{n}" for n in range(BATCH + 1)]))
    issuers = {next(pending).record.issuer}
    ca.rollover().emergency(Successor())
    issuers |= {leaf.record.issuer for leaf in pending}
    assert issuers == {3, 4}


@pytest.mark.parametrize("lives", [True, False], ids=["one program", "commands"])
@pytest.mark.parametrize("missed", [3, 4, 5, 6])
def test_an_operator_follows_the_log_through_more_rollovers_than_a_document_has_statements_for(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, missed: int, *, lives: bool
) -> None:
    place = LocalPlace(tmp_path)
    with ExitStack() as opened:

        def operator(machine: str) -> CertificateAuthority:
            handle = LocalStore(place.directory, place.ways, seen=tmp_path / machine, clock=time.time)
            return CertificateAuthority(opened.enter_context(closing(handle)), clock=clock)

        place.create().close()
        ca, other = operator("busy"), operator("away")
        ca.init()
        issue(other, "w")
        other.session.store.close()  # which saves what it has seen
        other = operator("away")
        if lives:
            other.inventory()
        for _ in range(missed):
            ca.rollover().emergency(Successor())
            list(ca.rollover().reissue())
        before = ca.trust()
        assert (before.epoch, len(before.successions)) == (missed + 1, 3)
        assert issue(other, "w")
        assert other.trust() == before
        other.rollover().emergency(Successor())
        head = trust_chain(other.session.store.secrets, "default").head()
        assert head is not None
        assert verify_trust(head.payload.signed, previous=before, now=clock()) == other.trust()
    assert not [record for record in caplog.records if "first use" not in record.message]


def test_without_the_old_key_running_nodes_do_not_follow(ca: CertificateAuthority, store: Store) -> None:
    before = ca.trust()
    store.secrets.delete(secret_names.ca_key_id("default", 1))
    fresh = CertificateAuthority(store, clock=ca.session.clock)
    with pytest.raises(NotFoundError):
        fresh.rollover().emergency(Successor())
    assert fresh.trust() == before
    fresh.rollover().emergency(Successor(), old_keys=False)
    signed = parse_trust(newest(ca))
    verify_trust(signed, now=ca.session.now())  # a node that starts anew
    with pytest.raises(NotTrustedError, match="not signed by a CA of the one before"):
        verify_trust(signed, previous=before, now=ca.session.now())


def test_another_command_publishes_what_a_killed_finish_had_recorded(
    ca: CertificateAuthority, store: Store, clock: Clock
) -> None:
    promote(ca)
    with pytest.raises(Killed):
        CertificateAuthority(FragileStore(store, Fuse(1, AFTER)), clock=clock).rollover().finish()
    assert len(ca.trust().authorities) == 2
    issue(CertificateAuthority(store, clock=clock), "w")
    assert generations(ca.trust()) == [(2, "active")]


def test_of_two_new_cas_at_once_the_later_one_counts(ca: CertificateAuthority, store: Store, clock: Clock) -> None:
    def other() -> None:
        ca.rollover().start(Successor())

    reserved = Meanwhile(1, other)
    with pytest.raises(ConflictError):
        CertificateAuthority(FragileStore(store, reserved), clock=clock).rollover().start(Successor())
    status = {entry.generation: entry.status for entry in ca.inventory().authorities()}
    assert status[2] == CA_RETIRED
    assert generations(ca.trust()) == [(1, "active"), (3, "next")]


def test_a_leaf_of_a_ca_that_was_dropped_meanwhile_is_not_confirmed(
    ca: CertificateAuthority, store: Store, clock: Clock
) -> None:
    def roll_over() -> None:
        promote(ca)
        ca.rollover().finish()

    issue(CertificateAuthority(FragileStore(store, Meanwhile(1, roll_over)), clock=clock), "w")
    assert [(entry.issuer, entry.status) for entry in ca.inventory().certificates()] == [(1, RESERVED), (2, ISSUED)]


def test_the_new_ca_keeps_the_policy_and_may_add_domains(ca: CertificateAuthority) -> None:
    ca.rollover().start(Successor(permit_dns=("example.org",)))
    ca.rollover().promote()
    ca.check(ca.requests(Role.WORKER, ["w"], dns=["w.example.org"]))
    assert ca.policy().permitted_dns == ("default.daskpki.internal", "example.org")


def test_a_sealed_key_is_followed_by_a_sealed_one(store: Store, clock: Clock) -> None:
    def passphrase() -> Confidential:
        return Confidential("correct horse")

    ca = CertificateAuthority(store, clock=clock, places=KeyLocations(seal=passphrase, unseal=passphrase))
    ca.init()
    later = CertificateAuthority(store, clock=clock, places=KeyLocations(unseal=passphrase))
    later.rollover().start(Successor())
    for generation in (1, 2):
        assert (
            b'"sealing": "passphrase"'
            in store.secrets.latest(secret_names.ca_key_id("default", generation)).data.reveal()
        )
    thief = CertificateAuthority(store, clock=clock)
    with pytest.raises(NotTrustedError, match="sealed by its own passphrase"):
        thief.issuer()


def test_a_ca_that_could_not_issue_what_is_valid_does_not_take_over_again(ca: CertificateAuthority) -> None:
    ca.rollover().start(Successor(permit_dns=("example.org",)))
    ca.rollover().promote()
    (named,) = ca.issue(ca.requests(Role.SCHEDULER, ["s"], dns=["s.example.org"]))
    issue(ca, "w")
    before = ca.trust()
    with pytest.raises(PolicyError, match="CA 1 could not renew scheduler/s, so nothing was changed") as refused:
        ca.rollover().abort()
    assert ca.trust() == before
    assert "daskpki revoke scheduler/s" in str(refused.value.hint)
    ca.revoke(f"{named.record.serial:x}", "superseded")  # the way that the hint names
    assert ca.rollover().abort().generation == 1
    assert [leaf.record.name for leaf in ca.rollover().reissue()] == ["w"]


def test_an_emergency_that_was_cut_off_is_gone_on_with_and_nothing_else_is_done(
    ca: CertificateAuthority, store: Store, clock: Clock
) -> None:
    before = ca.trust()
    with pytest.raises(Killed):  # the log says that CA 1 is dropped, and the trust document does not yet
        CertificateAuthority(FragileStore(store, Fuse(5, AFTER)), clock=clock).rollover().emergency(Successor())
    assert ca.rollover().status().active.generation == 2
    assert generations(ca.trust()) == [(1, "active")]
    others: list[Callable[[], object]] = [
        ca.rollover().abort,
        lambda: issue(ca, "w"),
        lambda: ca.announce("tls://10.0.0.5:8786"),
    ]
    for other in others:
        with pytest.raises(PolicyError, match="rotate-ca --emergency was cut off"):
            other()
    assert generations(ca.trust()) == [(1, "active")]
    assert ca.rollover().emergency(Successor())[0].generation == 2
    followed = verify_trust(parse_trust(newest(ca)), previous=before, now=ca.session.now())
    assert generations(followed) == [(2, "active")]


def test_a_ca_whose_key_is_lost_before_it_issued_is_dropped_without_it(ca: CertificateAuthority, store: Store) -> None:
    ca.rollover().start(Successor())
    store.secrets.delete(secret_names.ca_key_id("default", 2))
    fresh = CertificateAuthority(store, clock=ca.session.clock)
    fresh.rollover().abort()
    assert generations(fresh.trust()) == [(1, "active")]


def test_what_a_dropped_ca_issued_is_due_at_once(ca: CertificateAuthority) -> None:
    issue(ca, "w")
    assert ca.due() == []
    ca.rollover().start(Successor())
    ca.rollover().promote()
    assert ca.due() == [], "the old CA is trusted still"
    ca.rollover().finish(force=True)
    assert [leaf.record.issuer for leaf in ca.renew(ca.due())] == [2]
    assert ca.due() == []


def test_aborting_without_the_key_that_has_to_sign_changes_nothing(ca: CertificateAuthority, store: Store) -> None:
    ca.rollover().start(Successor())
    store.secrets.delete(secret_names.ca_key_id("default", 1))
    fresh = CertificateAuthority(store, clock=ca.session.clock)
    before = fresh.inventory().head
    with pytest.raises(NotFoundError, match="the key of CA 1"):
        fresh.rollover().abort()
    assert fresh.inventory().head == before
