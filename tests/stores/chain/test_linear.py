"""The linear chain, case by case, on a secret in memory to which nothing happens by chance."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from daskpki.confidential import Confidential
from daskpki.errors import AmbiguousError, ConflictError, DisabledError, NotTrustedError
from daskpki.store.append_chain import ATTEMPTS, MOST_FOREIGN, AppendChain, Link, Tip
from daskpki.store.port import Payload, Version
from tests.support.chain_model import SECRET, Entries, EntriesCodec, follow, includes
from tests.support.simulator import SimulatedSecret, SimulatedStore

Linear = AppendChain[Entries]


class Store(SimulatedStore):
    """A calm secret, whose `latest` a test may hold back, and where another writer may slip in before an add."""

    def __init__(self) -> None:
        self.secret = SimulatedSecret(random.Random(0))
        self.secret.settle()
        super().__init__(self.secret, 0)
        self.held: int | None = None
        self.before_add: Callable[[], object] = lambda: None
        self.accesses = 0

    def add(self, secret: str, payload: Confidential) -> int:
        slip, self.before_add = self.before_add, lambda: None
        slip()
        return super().add(secret, payload)

    def access(self, secret: str, number: int) -> Confidential:
        self.accesses += 1
        return super().access(secret, number)

    def latest(self, secret: str) -> Payload:
        return Payload(self.held, self.access(secret, self.held)) if self.held else super().latest(secret)

    def put(self, seq: int, prev: int, *operations: str) -> int:
        """A version as some writer added it."""
        link = Link(seq, prev, operations[-1])
        return super().add(SECRET, EntriesCodec().encode(Entries(link, operations)))

    def states(self) -> list[str]:
        listed: list[Version] = list(self.versions(SECRET))
        return [version.state for version in reversed(listed)]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def linear(store: Store) -> Linear:
    return AppendChain(store, SECRET, EntriesCodec())


def number(linear: Linear) -> int | None:
    head = linear.head()
    return head.number if head else None


def test_there_is_no_head_before_the_first_append(linear: Linear) -> None:
    assert linear.tip() == Tip(None, 0)
    first = linear.append(follow, "a")
    assert first is not None
    assert (first.number, first.link) == (1, Link(1, 0, "a"))


def test_the_lowest_number_wins_a_tie(store: Store, linear: Linear) -> None:
    store.put(1, 0, "a")
    store.put(2, 1, "a", "b")
    store.put(2, 1, "a", "late")
    assert number(linear) == 2


def test_a_latecomer_with_a_small_seq_is_no_head(store: Store, linear: Linear) -> None:
    store.put(1, 0, "a")
    store.put(2, 1, "a", "b")
    store.put(3, 2, "a", "b", "c")
    store.put(2, 1, "a", "late")
    assert linear.tip().newest == 4
    assert number(linear) == 3


def test_a_stale_latest_is_followed_by_number(store: Store, linear: Linear) -> None:
    for operation in "abcd":
        linear.append(follow, operation)
    store.held = 2
    assert number(linear) == 4


def test_a_stale_latest_that_was_destroyed_is_replaced_by_the_list(store: Store, linear: Linear) -> None:
    for operation in "abcd":
        linear.append(follow, operation)
    store.destroy(SECRET, 2)
    store.held = 2
    assert number(linear) == 4


def test_a_known_tip_costs_one_access(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    tip = linear.tip()
    store.accesses = 0
    assert linear.tip(tip) == tip
    assert store.accesses == 1


def test_a_glance_is_one_access_where_nobody_can_stand_in_between(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    linear.append(follow, "b")
    store.accesses = 0
    assert linear.read_cached() == linear.tip()
    assert store.accesses == 1 + 2
    store.put(3, 2, "a", "b", "winner")
    store.put(3, 2, "a", "b", "loser")
    glanced = linear.read_cached().head
    assert glanced is not None
    assert glanced.number == 3


def test_a_loser_builds_again_on_the_winner(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    store.before_add = lambda: store.put(2, 1, "a", "rival")
    head = linear.append(follow, "b")
    assert head is not None
    assert (head.number, head.payload.operations) == (4, ("a", "rival", "b"))


def test_losers_go_by_a_later_winner_and_the_predecessor_stays(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    store.before_add = lambda: store.put(2, 1, "a", "rival")
    head = linear.append(follow, "b")
    assert head is not None
    linear.prune(head)
    assert store.states() == ["DESTROYED", "ENABLED", "DESTROYED", "ENABLED"]
    linear.prune(head, spare=[1])
    assert number(linear) == 4


def test_pruning_spares_what_it_is_told(store: Store, linear: Linear) -> None:
    for operation in "abcd":
        head = linear.append(follow, operation)
    assert head is not None
    linear.prune(head, spare=[1])
    assert store.states() == ["ENABLED", "DESTROYED", "ENABLED", "ENABLED"]


def test_nothing_is_added_when_the_builder_declines(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    head = linear.append(lambda _tip, _link: None, "b")
    assert head is not None
    assert (head.number, store.states()) == (1, ["ENABLED"])


def test_who_always_loses_gives_up(store: Store) -> None:
    waits: list[int] = []
    linear = AppendChain(store, SECRET, EntriesCodec(), pause=waits.append)

    def build(tip: Tip[Entries], link: Link) -> Entries:
        store.put(link.seq, link.prev, f"rival {link.seq}")
        return follow(tip, link)

    with pytest.raises(ConflictError, match="64 times"):
        linear.append(build, "a")
    assert waits == list(range(1, ATTEMPTS + 1))


def superseded_before_its_look(store: Store) -> Tip[Entries]:
    """Another writer's append of seq 2 is in, both were superseded, and both versions destroyed."""
    store.put(1, 0, "a")
    tip = AppendChain(store, SECRET, EntriesCodec()).tip()
    store.put(2, 1, "a", "x")
    store.put(2, 1, "a", "y")
    store.put(3, 2, "a", "x", "z")
    store.put(4, 4, "a", "x", "z", "w")
    for old in (2, 3, 4):
        store.destroy(SECRET, old)
    return tip


@pytest.mark.parametrize(("operation", "won"), [("x", True), ("y", False)])
def test_a_codec_that_knows_the_ancestors_settles_what_cannot_be_read(
    store: Store,
    operation: str,
    won: bool,  # noqa: FBT001
) -> None:
    linear = AppendChain(store, SECRET, EntriesCodec(), includes=includes)
    tip = superseded_before_its_look(store)
    proposal = follow(tip, tip.next_link(operation))
    seen = linear._scan(tip.newest + 1)
    assert linear._settle(proposal.link, proposal, seen, tip).won is won


def test_what_nobody_can_tell_is_ambiguous(store: Store, linear: Linear) -> None:
    tip = superseded_before_its_look(store)
    proposal = follow(tip, tip.next_link("x"))
    with pytest.raises(AmbiguousError, match="others wrote on"):
        linear._settle(proposal.link, proposal, linear._scan(2), tip)


def test_a_newest_version_that_a_stranger_destroyed_is_refused(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    linear.append(follow, "b")
    store.destroy(SECRET, 2)
    with pytest.raises(DisabledError, match="newest version 2"):
        linear.append(follow, "c")
    store.put(1, 0, "a")  # the last good version's payload once more
    assert number(linear) == 1
    linear.append(follow, "c")
    assert number(linear) == 4


def test_a_payload_that_is_none_is_named(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    store.secret.payloads.append(Confidential("{"))
    head = linear.head()
    assert head is not None
    assert head.number == 1, "it stops nobody"
    assert linear.foreign == {2: "no entries"}


def test_a_rider_is_no_head_and_goes_by_the_next_winner(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    rider = linear.add_rider(Entries(Link(0, 1, "rider"), ("segment",)))
    assert (rider, number(linear)) == (2, 1)
    head = linear.append(follow, "b")
    assert head is not None
    assert head.number == 3
    linear.prune(head)
    assert store.states() == ["ENABLED", "DESTROYED", "ENABLED"]


def test_versions_that_are_no_heads_are_passed_within_a_bound(store: Store, linear: Linear) -> None:
    """Whoever may add versions may add riders, too, which no command may go through without end."""
    linear.append(follow, "a")
    payload = EntriesCodec().encode(Entries(Link(0, 1, "rider"), ("segment",)))
    for _ in range(MOST_FOREIGN):
        store.add(SECRET, payload)
    assert number(linear) == 1
    store.add(SECRET, payload)
    with pytest.raises(NotTrustedError, match=f"more than {MOST_FOREIGN} versions from {MOST_FOREIGN + 2} down"):
        linear.head()
    assert store.accesses < 4 * MOST_FOREIGN


class Salted(EntriesCodec):
    """Encodes a payload each time in other bytes, as a signature of ECDSA is another one each time."""

    salt = ""

    def encode(self, payload: Entries) -> Confidential:
        self.salt += " "
        return Confidential(super().encode(payload).reveal() + self.salt.encode())


def test_a_resent_payload_is_the_same_bytes() -> None:
    sent: list[bytes] = []

    class Losing(Store):
        def add(self, secret: str, payload: Confidential) -> int:
            sent.append(payload.reveal())
            if len(sent) < 3:
                raise AmbiguousError("no answer")
            return super().add(secret, payload)

    head = AppendChain(Losing(), SECRET, Salted()).append(follow, "a")
    assert head is not None
    assert (len(sent), len(set(sent))) == (3, 1)
