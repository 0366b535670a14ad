"""A random life of a CA against a model: issue, renew, revoke, hold, release, rotate, time, other operators.

What is revoked never verifies again, unless it was on hold, and what a dropped CA issued neither; numbers never go
back; a node that looks now and then follows every time; the inventory is what was done. DASKPKI_NIGHTLY=1 tries 500
lives of 50 steps on a local store and 100 on Secret Manager.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from daskpki import secret_names
from daskpki.authority.audit import verify_log
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.creation import plan_ca
from daskpki.authority.rollover import Successor
from daskpki.errors import AlreadyExistsError, ConflictError, NotTrustedError, PolicyError, UsageError
from daskpki.identity import Role
from daskpki.inventory import CertificateRecord
from daskpki.pki.credential import parse_credential
from daskpki.pki.pem import encode_pem
from daskpki.pki.trust_document import TrustDocument
from daskpki.store.port import Store
from tests.support.ca_model import HELD, ISSUED, Model
from tests.support.gsm_places import GsmPlace, open_place
from tests.support.local_places import LocalPlace
from tests.support.nightly import by_day
from tests.support.rollovers import followed

NAMES = ("w-0", "w-1", "w-2")
FINAL = ("keyCompromise", "superseded")
START = datetime(2027, 1, 1, tzinfo=UTC)
CRL_LIFE = timedelta(days=35)
DROPPED_MEANWHILE = 3
"""How many CAs in a row a node may have missed the end of."""


class Life(RuleBasedStateMachine):
    """What two operators do on a local store, and what becomes of it."""

    serials = Bundle("serials")
    operator = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.model = Model()
        self.held: dict[int, bytes] = {}
        self.numbers: tuple[int, dict[int, int]] = (0, {})
        self.node: TrustDocument | None = None
        self.dropped = 0
        self.open = ExitStack()

    def stores(self) -> tuple[str, list[Store]]:
        """A new cluster's name, and two stores that are the same one."""
        place = LocalPlace(Path(self.open.enter_context(tempfile.TemporaryDirectory())))
        place.create().close()
        return "c", [place.factory(), place.factory()]

    @initialize()
    def found(self) -> None:
        cluster, stores = self.stores()
        for store in stores:
            self.open.callback(store.close)
        clock = lambda: self.now  # noqa: E731
        self.operators = [
            CertificateAuthority(store, cluster, who=f"operator {n}", clock=clock) for n, store in enumerate(stores)
        ]
        self.operators[0].init(plan_ca(cluster, max_ttl="30d"))

    @property
    def seconds(self) -> float:
        return self.now.timestamp()

    @rule(target=serials, name=st.sampled_from(NAMES), operator=operator, days=st.integers(1, 30))
    def issue(self, name: str, operator: int, days: int) -> int:
        authority = self.operators[operator]
        (leaf,) = authority.issue(authority.requests(Role.WORKER, [name], ttl=f"{days}d"))
        self.held[leaf.record.serial] = self.stored(leaf.record)
        return self.model.took_place(leaf.record)

    def stored(self, record: CertificateRecord) -> bytes:
        """The leaf as it lies in the store now; its holder keeps it when newer ones have taken its place there."""
        assert record.version is not None
        session = self.operators[0].session
        secret = secret_names.credential_id(session.cluster, Role.WORKER, record.name)
        leaf = parse_credential(session.store.secrets.access(secret, record.version)).leaf
        return encode_pem(leaf, "CERTIFICATE").encode()

    @rule(operator=operator)
    def renew_what_is_due(self, operator: int) -> None:
        authority, model = self.operators[operator], self.model
        due = authority.due()
        assert {entry.serial for entry in due} == {n for n in model.newest.values() if model.is_due(n, self.seconds)}
        for leaf in authority.renew(due):
            model.took_place(leaf.record)
        assert not authority.due()

    @rule(serial=serials, operator=operator, reason=st.sampled_from((*FINAL, HELD)))
    def revoke(self, serial: int, operator: int, reason: str) -> None:
        changed = self.operators[operator].revoke(f"{serial:x}", reason)
        before = self.model.states[serial]
        expected = before == ISSUED or (before == HELD and reason != HELD)
        assert [entry.serial for entry in changed] == [serial] * expected
        if expected:
            self.model.states[serial] = reason

    @rule(serial=serials, operator=operator)
    def release(self, serial: int, operator: int) -> None:
        if self.model.states[serial] == HELD:
            assert [entry.serial for entry in self.operators[operator].release(f"{serial:x}")] == [serial]
            self.model.states[serial] = ISSUED
            return
        with pytest.raises((PolicyError, UsageError), match=r"final|not on hold"):
            self.operators[operator].release(f"{serial:x}")

    @rule(operator=operator)
    def start_a_rollover(self, operator: int) -> None:
        rollover, model = self.operators[operator].rollover(), self.model
        if model.retiring:
            with pytest.raises(AlreadyExistsError, match="under way"):
                rollover.start(Successor())
            return
        expected = max(model.cas) if len(model.cas) > 1 else model.new_ca()
        assert rollover.start(Successor())[0].generation == expected

    @rule(operator=operator)
    def promote(self, operator: int) -> None:
        rollover, model = self.operators[operator].rollover(), self.model
        if len(model.cas) == 1:
            with pytest.raises(ConflictError, match="no new CA"):
                rollover.promote()
            return
        model.take_over(max(model.cas))
        assert rollover.promote().generation == model.active
        self.reissue(operator)

    @rule(operator=operator)
    def abort(self, operator: int) -> None:
        model = self.model
        if model.retiring:
            model.take_over(min(model.cas))
        else:
            model.drop_others()
        assert self.operators[operator].rollover().abort().generation == model.active
        self.reissue(operator)

    @rule(operator=operator, force=st.booleans())
    def finish(self, operator: int, force: bool) -> None:  # noqa: FBT001 - drawn
        rollover, model = self.operators[operator].rollover(), self.model
        if len(model.cas) > 1 and not model.retiring:
            with pytest.raises(ConflictError, match="does not issue yet"):
                rollover.finish(force=force)
        elif model.valid_elsewhere(self.seconds) and not force:
            with pytest.raises(PolicyError, match="would be cut off"):
                rollover.finish()
        else:
            self.dropped += len(model.cas) > 1
            model.drop_others()
            assert rollover.finish(force=force)

    @rule(operator=operator)
    def emergency(self, operator: int) -> None:
        self.model.active = self.model.new_ca()
        self.model.drop_others()
        self.dropped += 1
        assert self.operators[operator].rollover().emergency(Successor())[0].generation == self.model.active
        self.reissue(operator)

    def reissue(self, operator: int) -> None:
        expected = {self.model.entries[serial].name for serial in self.model.valid_elsewhere(self.seconds)}
        issued = list(self.operators[operator].rollover().reissue())
        assert sorted(leaf.record.name for leaf in issued) == sorted(expected)
        for leaf in issued:
            self.model.took_place(leaf.record)

    @rule(days=st.integers(0, 12))
    def time_passes(self, days: int) -> None:
        self.now += timedelta(days=days, hours=1)

    @rule()
    def a_node_looks(self) -> None:
        """It was started anew, if it slept through too much."""
        previous = self.node if self.dropped <= DROPPED_MEANWHILE else None
        session = self.operators[0].session
        self.node, self.dropped = followed(session.store, session.cluster, previous, self.now), 0

    @rule(serial=serials, operator=operator)
    def verify(self, serial: int, operator: int) -> None:
        authority = self.operators[operator]
        trusted = False
        with suppress(NotTrustedError):
            trusted = authority.verifier().verify(self.held[serial]).serial == serial
        oldest = min(part.this_update for part in authority.trust().crls)
        fresh = self.now <= datetime.fromtimestamp(oldest, UTC) + CRL_LIFE
        assert trusted == (self.model.is_trusted(serial, self.seconds) and fresh)

    @invariant()
    @precondition(lambda self: hasattr(self, "operators"))
    def the_inventory_is_what_was_done(self) -> None:
        shown = {entry.serial: entry for entry in self.operators[0].inventory().certificates()}
        assert shown.keys() == self.model.states.keys()
        for serial, entry in shown.items():
            state = self.model.states[serial]
            if state == ISSUED:
                assert entry.state(self.seconds) == self.model.shown(serial, self.seconds)
            else:
                assert (entry.state(self.seconds), entry.reason) == ("revoked", state)

    @invariant()
    @precondition(lambda self: hasattr(self, "operators"))
    def numbers_never_go_back(self) -> None:
        trust = self.operators[0].trust()
        assert {anchor.generation for anchor in trust.authorities} == self.model.cas
        assert trust.active.generation == self.model.active
        epoch, crls = self.numbers
        assert trust.epoch >= epoch
        assert all(part.number >= crls.get(part.generation, 1) for part in trust.crls)
        self.numbers = trust.epoch, crls | {part.generation: part.number for part in trust.crls}

    def teardown(self) -> None:
        if hasattr(self, "operators"):
            verify_log(self.operators[1].session)
        self.open.close()


class LifeInTheCloud(Life):
    """The same on Secret Manager; one server has room for all lives, each with a cluster of its own."""

    place: GsmPlace
    clusters = itertools.count()

    def stores(self) -> tuple[str, list[Store]]:
        return f"c{next(self.clusters)}", [self.place.factory(), self.place.factory()]


def bounds(lives: int, *, night: int) -> settings:
    return settings(
        max_examples=by_day(lives, night=night),
        stateful_step_count=by_day(15, night=50),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="class")
def _server() -> Iterator[None]:
    with open_place("grpc", None) as place:
        LifeInTheCloud.place = place
        yield


TestLife = pytest.mark.timeout(by_day(180, night=14_400))(Life.TestCase)
TestLife.settings = bounds(8, night=500)
TestLifeInTheCloud = pytest.mark.timeout(by_day(180, night=14_400))(LifeInTheCloud.TestCase)
TestLifeInTheCloud = pytest.mark.usefixtures("_server")(TestLifeInTheCloud)
TestLifeInTheCloud.settings = bounds(3, night=100)
