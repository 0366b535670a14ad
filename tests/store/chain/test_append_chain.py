"""The linear chain, case by case, on a secret in memory to which nothing happens by chance."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from daskpki.confidential import Confidential
from daskpki.errors import AmbiguousError, ConflictError, DisabledError, NotTrustedError
from daskpki.store.append_chain import ATTEMPTS, MOST_FOREIGN, AppendChain, ChainHead, Link, Tip
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
        self.after_add: Callable[[], object] = lambda: None
        self.accesses = 0
        self.destroyed: list[int] = []

    def add(self, secret: str, payload: Confidential) -> int:
        slip, self.before_add = self.before_add, lambda: None
        slip()
        number = super().add(secret, payload)
        cut, self.after_add = self.after_add, lambda: None
        cut()
        return number

    def access(self, secret: str, number: int) -> Confidential:
        self.accesses += 1
        return super().access(secret, number)

    def latest(self, secret: str) -> Payload:
        return Payload(self.held, self.access(secret, self.held)) if self.held else super().latest(secret)

    def destroy(self, secret: str, number: int) -> None:
        self.destroyed.append(number)
        super().destroy(secret, number)

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
    for operation in "abc":
        linear.append(follow, operation)
    tip = linear.tip()
    store.accesses = 0
    assert linear.tip(tip) == tip
    assert store.accesses == 1
    store.put(4, 3, "a", "b", "c", "d")
    assert linear.tip(tip).newest == 4


def test_a_search_goes_on_from_its_last_tip_and_reads_an_unreadable_version_again(store: Store, linear: Linear) -> None:
    for seq, operations in enumerate(("a", "ab", "abc"), 1):
        store.put(seq, seq - 1, *operations)
    store.destroy(SECRET, 3)
    tips = list(linear.later(Tip(None, 0)))
    assert [(tip.head and tip.head.number, tip.newest, tip.readable) for tip in tips] == [
        (1, 1, True),
        (2, 2, True),
        (2, 3, False),
    ]
    store.accesses = 0
    assert list(linear.later(tips[0])) == tips[1:]
    assert list(linear.later(tips[2])) == [tips[2]]
    assert store.accesses == 3 + 2
    store.put(3, 2, "a", "b", "d")
    assert list(linear.later(tips[2]))[-1] == linear.tip()


@pytest.mark.parametrize("seq", [1, 2])
def test_a_known_head_stays_when_latecomers_follow_it(store: Store, linear: Linear, seq: int) -> None:
    linear.append(follow, "a")
    linear.append(follow, "b")
    tip = linear.tip()
    store.put(seq, seq - 1, "late")
    assert linear.tip(tip) == Tip(tip.head, 3)


def test_what_is_below_a_version_that_does_not_count_is_read_once(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    linear.append(follow, "b")
    store.secret.payloads.append(Confidential("{"))
    store.accesses = 0
    assert number(linear) == 2
    assert store.accesses == 3


def test_versions_of_which_none_counts_have_no_head(store: Store, linear: Linear) -> None:
    store.secret.payloads += [Confidential("{")] * 3
    assert linear.tip() == Tip(None, 3)
    assert set(linear.foreign) == {1, 2, 3}


@pytest.mark.parametrize("before", [0, 1, 300])
def test_a_glance_is_one_access_where_nobody_can_stand_in_between(store: Store, linear: Linear, before: int) -> None:
    store.secret.payloads += [None] * before
    store.put(1, 0, "a")
    store.put(2, before + 1, "a", "b")
    store.accesses = 0
    assert linear.read_cached() == linear.tip()
    assert store.accesses == 1 + 2
    store.put(3, before + 2, "a", "b", "winner")
    store.put(3, before + 2, "a", "b", "loser")
    glanced = linear.read_cached().head
    assert glanced is not None
    assert glanced.number == before + 3


def test_a_glance_takes_no_rider_for_a_head(linear: Linear) -> None:
    linear.append(follow, "a")
    linear.add_rider(Entries(Link(0, 1, "rider"), ("segment",)))
    assert linear.read_cached() == linear.tip()


def signed(authentic: str) -> Callable[[ChainHead[Entries]], bool]:
    """Judges heads by their operation: upper case is not signed, and of the others only these links are authentic."""

    def counts(head: ChainHead[Entries]) -> bool:
        if head.link.operation.isupper():
            raise NotTrustedError(f"version {head.number} is not signed")
        return head.link.operation in authentic

    return counts


def test_versions_with_an_authentic_link_go_before_all_others(store: Store) -> None:
    linear = AppendChain(store, SECRET, EntriesCodec(), counts=signed("ab"))
    store.put(1, 0, "a")
    store.put(2, 1, "a", "b")
    store.put(3, 2, "a", "b", "x")
    assert linear.read_cached() == linear.tip()
    tip = linear.tip()
    assert (tip.head and tip.head.number, tip.newest) == (2, 3)
    assert [head and head.authentic for head in map(linear._read, (2, 3))] == [True, False]


def test_a_rider_is_left_to_the_head_that_names_it(store: Store) -> None:
    linear = AppendChain(store, SECRET, EntriesCodec(), counts=signed(""))
    rider = Entries(Link(0, 1, "RIDER"), ("RIDER",))
    assert linear.read(linear.add_rider(rider)) == rider
    assert linear.read(store.put(1, 0, "HEAD")) is None


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        ([2], "version 2 does not count (version 2 is not signed)"),
        ([2, 3], "versions 2-3 do not count (version 3 is not signed)"),
        ([2, 3, 5, 6, 7, 9], "versions 2-3, 5-7, 9 do not count (version 9 is not signed)"),
        ([299, 300], "versions 299-300 do not count (version 300 is not signed)"),
    ],
)
def test_versions_that_do_not_count_are_named(
    store: Store, foreign: list[int], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(1, 0, "a")
    for number in range(2, foreign[-1] + 1):
        store.put(2, 1, "FOREIGN") if number in foreign else store.put(0, 1, "rider")
    store.held = 1
    AppendChain(store, SECRET, EntriesCodec(), counts=signed("a")).tip()
    (said,) = caplog.messages
    assert said.startswith(f"{SECRET}: {message}; find out who added them, then remove each: ")
    assert said.endswith(f" destroy {foreign[-1]} --secret={SECRET}")


def test_a_loser_builds_again_on_the_winner(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    store.before_add = lambda: store.put(2, 1, "a", "rival")
    head = linear.append(follow, "b")
    assert head is not None
    assert (head.number, head.payload.operations) == (4, ("a", "rival", "b"))


@pytest.mark.parametrize("operations", ["ab", "abc"])
def test_an_undisturbed_append_costs_no_look(store: Store, linear: Linear, operations: str) -> None:
    for operation in operations:
        linear.append(follow, operation)
    tip = linear.tip()
    store.accesses = 0
    assert linear.propose(tip, follow(tip, tip.next_link("mine"))).won
    assert store.accesses == 0


@pytest.mark.parametrize("rival", ["a rival", "z rival"])
@pytest.mark.parametrize("operations", ["ab", "abc"])
def test_a_loser_looks_at_what_came_in_between_and_at_nothing_else(
    store: Store, linear: Linear, operations: str, rival: str
) -> None:
    for operation in operations:
        linear.append(follow, operation)
    tip = linear.tip()
    link = tip.next_link("mine")
    store.before_add = lambda: store.put(link.seq, link.prev, *operations, rival)
    store.accesses = 0
    outcome = linear.propose(tip, follow(tip, link))
    assert store.accesses == 2, "the rival and the end"
    assert (outcome.won, outcome.tip.newest) == (False, tip.newest + 2)
    assert outcome.tip.head == linear.head()


def test_a_number_in_a_secret_that_was_made_again_is_no_win(store: Store, linear: Linear) -> None:
    for operation in "abc":
        linear.append(follow, operation)
    tip = linear.tip()
    store.before_add = store.secret.payloads.clear
    assert not linear.propose(tip, follow(tip, tip.next_link("mine"))).won


def cut_off() -> None:
    raise AmbiguousError("no answer")


def test_an_add_that_was_cut_off_is_found_and_not_repeated(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    store.after_add = cut_off
    head = linear.append(follow, "b")
    assert head is not None
    assert (head.number, store.states()) == (2, ["ENABLED"] * 2)


@pytest.mark.parametrize(("first", "won"), [("mine", True), ("a rival", False), ("z rival", False)])
def test_an_add_that_was_cut_off_is_settled_among_those_that_went_on(
    store: Store,
    linear: Linear,
    first: str,
    won: bool,  # noqa: FBT001
) -> None:
    linear.append(follow, "a")
    tip = linear.tip()

    def others() -> None:
        store.put(2, 1, "a", first)
        store.put(3, 2, "a", first, "next")
        cut_off()

    store.before_add = others
    store.accesses = 0
    outcome = linear.propose(tip, follow(tip, tip.next_link("mine")))
    assert outcome.won is won
    assert store.accesses == 4, "versions 2 and 3 and the end, then 2 on the way back"
    assert (number(linear), store.states()) == (3, ["ENABLED"] * 3)


def test_an_add_that_was_cut_off_is_repeated_when_only_latecomers_came(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    linear.append(follow, "b")
    tip = linear.tip()

    def latecomer() -> None:
        store.put(2, 1, "a", "late")
        cut_off()

    store.before_add = latecomer
    store.accesses = 0
    assert linear.propose(tip, follow(tip, tip.next_link("mine"))).won
    assert store.accesses == 4, "version 3 and the end, after each of the two adds"
    assert number(linear) == 4


@pytest.mark.parametrize("write", ["propose", "add_rider"])
def test_a_write_that_is_never_confirmed_is_sent_six_times(write: str) -> None:
    waits: list[int] = []
    sent: list[Confidential] = []

    class Silent(Store):
        def add(self, secret: str, payload: Confidential) -> int:  # noqa: ARG002 - there is one secret
            sent.append(payload)
            raise AmbiguousError("no answer")

    linear = AppendChain(Silent(), SECRET, EntriesCodec(), pause=waits.append)
    payload = Entries(Link(1, 0, "mine"), ("mine",))
    with pytest.raises(AmbiguousError, match="does not confirm the write"):
        linear.propose(Tip(None, 0), payload) if write == "propose" else linear.add_rider(payload)
    assert len(sent) == 6
    assert waits == [1, 2, 3, 4, 5, 6]


def test_losers_go_by_a_later_winner_and_the_predecessor_stays(store: Store, linear: Linear) -> None:
    linear.append(follow, "a")
    store.before_add = lambda: store.put(2, 1, "a", "rival")
    head = linear.append(follow, "b")
    assert head is not None
    linear.prune(head)
    assert store.states() == ["DESTROYED", "ENABLED", "DESTROYED", "ENABLED"]
    linear.prune(head)
    assert number(linear) == 4


def test_pruning_goes_32_versions_down_and_destroys_none_twice(store: Store, linear: Linear) -> None:
    for _ in range(36):
        head = linear.append(follow, "x")
    assert head is not None
    store.put(1, 0, "late")
    store.destroy(SECRET, 20)
    store.destroyed.clear()
    linear.prune(head)
    assert head.number == 36
    assert store.destroyed == [entry for entry in range(34, 3, -1) if entry != 20]
    store.destroyed.clear()
    linear.prune(head)
    assert store.destroyed == []


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
    assert linear._settle(proposal.link, proposal, linear._last(tip)).won is won


class Newer(EntriesCodec):
    """Refuses a payload of a newer format."""

    def decode(self, data: Confidential) -> Entries:
        if data.reveal() == b"newer":
            raise NotTrustedError("format 2")
        return super().decode(data)


@pytest.mark.parametrize("between", [None, Confidential("{"), Confidential("newer")])
def test_a_walk_back_ends_at_what_cannot_be_read(store: Store, between: Confidential | None) -> None:
    linear = AppendChain(store, SECRET, Newer(), includes=includes)
    store.put(1, 0, "a")
    tip = linear.tip()
    store.put(2, 1, "a", "x")
    store.secret.payloads.append(between)
    store.put(4, 3, "a", "x", "z", "w")
    proposal = follow(tip, tip.next_link("x"))
    assert linear._settle(proposal.link, proposal, linear._last(tip)).won


def test_what_nobody_can_tell_is_ambiguous(store: Store, linear: Linear) -> None:
    tip = superseded_before_its_look(store)
    proposal = follow(tip, tip.next_link("x"))
    with pytest.raises(AmbiguousError, match="others wrote on"):
        linear._settle(proposal.link, proposal, linear._last(tip))


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
    with pytest.raises(NotTrustedError, match="more than 4096 versions from 4098 down"):
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
