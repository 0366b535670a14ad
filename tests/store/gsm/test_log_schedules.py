"""The records log over random schedules: racing writers, crashes, cut-off adds, stale `latest`, sealing and pruning."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest

from daskpki.errors import AmbiguousError, UnavailableError
from daskpki.inventory import Inventory, ReplayedInventory
from daskpki.records import Draft, Record
from daskpki.store.gsm.api import RetryPolicy
from daskpki.store.gsm.log import GsmRecordLog
from daskpki.store.gsm.log_format import State
from daskpki.store.port import SecretStore
from tests.support.drafts import STAMP, Leaf, new_ca, random_leaf
from tests.support.nightly import by_day
from tests.support.simulator import Crash, SimulatedSecret, SimulatedStore

if TYPE_CHECKING:
    from daskpki.store.gsm.secrets import GsmSecrets

pytestmark = pytest.mark.usefixtures("one_thread")
ROOM = 4_000
SCHEDULES = by_day(3, night=100)


class OneThread(AbstractContextManager["OneThread"]):
    """A pool that reads when it is asked: a writer has one turn at a time, and takes it in its own thread."""

    map = staticmethod(map)

    def __init__(self, _readers: int) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskpki.store.gsm.log_view.ThreadPoolExecutor", OneThread)


class LogStore(SimulatedStore):
    """The simulated secret, with what the log asks for beyond the port."""

    def mark_ours(self, secret: str) -> None:
        """All are ours here."""

    def adding_once(self) -> SecretStore:
        return self


class LogRun:
    """One schedule; the time stands still but for the waits."""

    def __init__(self, seed: int, *, writers: int = 3, commits: int = 5) -> None:
        self.chance = random.Random(seed)
        self.secret = SimulatedSecret(self.chance)
        self.time = 0.0
        self.acknowledged: list[Record] = []
        self.faults: list[str] = []
        self.secret.baton.run([self._program(number, commits) for number in range(writers)])
        self.secret.settle()
        self.log = self.open(-1)

    def open(self, writer: int) -> GsmRecordLog:
        policy = RetryPolicy(self._sleep, lambda: self.time, self.chance.uniform, self._nonce, deadline=600.0)
        return GsmRecordLog(
            cast("GsmSecrets", LogStore(self.secret, writer)), "c", options=None, policy=policy, room=ROOM
        )

    def _nonce(self) -> str:
        return f"{self.chance.getrandbits(64):x}"

    def _sleep(self, seconds: float) -> None:
        self.time += seconds

    def _program(self, writer: int, commits: int) -> Callable[[], None]:
        def program() -> None:
            log = self.open(writer)
            for count in range(commits):
                try:
                    self._issue(log, writer * 100 + count)
                except Crash:
                    log = self.open(writer)
                except (AmbiguousError, UnavailableError):
                    continue
                except Exception as error:  # noqa: BLE001 - judged below
                    self.faults.append(repr(error))

        return program

    def _issue(self, log: GsmRecordLog, number: int) -> None:
        """As the authority does: reserve, then confirm what is still reserved; now and then a revocation."""
        leaves = [random_leaf(self.chance, names=6) for _ in range(self.chance.randrange(1, 6))]
        begin = new_ca(number + 1) if self.chance.random() < 0.1 else []
        self._commit(log, lambda _: [*begin, *(leaf.reserved() for leaf in leaves)], number)
        self._commit(log, lambda inventory: [_finish(inventory, leaf) for leaf in leaves], number)
        if self.chance.random() < 0.3:
            self._commit(log, lambda _: [leaves[0].revoking()], number)

    def _commit(self, log: GsmRecordLog, decide: Callable[[Inventory], Sequence[Draft]], number: int) -> None:
        self.acknowledged += log.commit(decide, STAMP._replace(operation=f"{number}"))

    def check(self) -> None:
        """Nothing acknowledged is lost, nothing doubled; what the head tells is what all the records tell."""
        assert not self.faults, self.faults
        records = list(self.log.records())
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert set(map(_identity, self.acknowledged)) <= set(map(_identity, records))
        events = [(record.kind, record.body["serial"]) for record in records if "serial" in record.body]
        assert len(set(events)) == len(events)
        self._check_inventory(records)
        head = self.log._head()
        assert head is not None
        assert head.state == State().after(records[: head.state.head.seq])  # as a copy of the log is judged

    def _check_inventory(self, records: Sequence[Record]) -> None:
        full, inventory = ReplayedInventory(records), self.log.inventory()
        assert inventory.head == full.head
        assert inventory.published == full.published
        assert inventory.authorities() == full.authorities()
        wanted = ["reserved", "revoking"]
        unfinished = sorted(inventory.certificates(statuses=wanted))
        assert unfinished == sorted(full.certificates(statuses=wanted))
        for entry in full.certificates():
            assert inventory.certificate(entry.serial) == entry
            assert inventory.current(entry.role, entry.name) == full.current(entry.role, entry.name)
            assert inventory.by_fingerprint(str(entry.fingerprint)) == full.by_fingerprint(str(entry.fingerprint))


def _constant(drafts: Sequence[Draft], _inventory: Inventory) -> Sequence[Draft]:
    return drafts


def _identity(record: Record) -> tuple[int, str]:
    return record.seq, record.hash


def _finish(inventory: Inventory, leaf: Leaf) -> Draft:
    entry = inventory.certificate(int(leaf.serial, 16))
    assert entry is not None
    assert entry.status == "reserved"
    return leaf.issued()


def test_nothing_committed_is_lost_or_doubled_and_the_head_tells_the_truth() -> None:
    sealed = 0
    for seed in range(SCHEDULES):
        run = LogRun(seed)
        try:
            run.check()
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}") from error
        sealed += sum(payload is not None for payload in run.secret.payloads)
    assert sealed > SCHEDULES  # segments stayed


def test_the_header_follows_from_the_records_after_several_segments_too() -> None:
    """Revocations are left unfinished here, so a header has leaves that earlier segments issued."""
    for seed in range(by_day(2, night=4)):
        run = LogRun(seed, commits=14)
        run.check()
        head = run.log._head()
        assert head is not None
        assert len(head.segments) > 2


def test_losers_and_orphans_are_gone_after_two_quiet_commits() -> None:
    for seed in range(by_day(10, night=30)):
        run = LogRun(seed, commits=3)
        for _ in range(2):
            drafts = [random_leaf(run.chance).reserved()]
            run.log.commit(partial(_constant, drafts), STAMP)
        head = run.log._head()
        assert head is not None
        readable = sum(payload is not None for payload in run.secret.payloads)
        assert readable - len(head.segments) <= 4
