"""What every `RecordLog` does with records: it chains them and reads them back, and appends all or none of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing

import pytest

from daskpki.errors import AccessDeniedError, ConflictError, NotTrustedError, UnavailableError
from daskpki.inventory import Inventory
from daskpki.records import (
    EMPTY,
    ISSUED,
    RESERVED,
    CommitSignature,
    Draft,
    Head,
    Record,
    Stamp,
    commit_of,
    verify_chain,
)
from daskpki.store.conformance.backing import Backing
from daskpki.store.conformance.one_log import NOTE, OneLog, always, issued, log_head, reserved
from daskpki.store.conformance.writers import STAMP, append_records, processes, run, threads
from daskpki.store.port import RecordLog, Store


class AppendingSuite(OneLog):
    """Commits and reads."""

    def test_an_empty_log_is_read_without_making_it(self, store: Store, log: RecordLog) -> None:
        view = log.inventory()
        assert (view.head, view.published) == (EMPTY, {})
        assert (view.certificate(1), view.current("worker", "w"), view.by_fingerprint("0" * 64)) == (None, None, None)
        assert (list(view.certificates()), list(view.authorities()), list(log.records())) == ([], [], [])
        assert list(store.clusters()) == []

    def test_what_is_committed_is_chained_and_read_back(self, log: RecordLog, backing: Backing) -> None:
        odd = Stamp(2**33, "id-2", "jörg@büro", "daskpki issue --name 'a b'\n")
        first = log.commit(always(NOTE, reserved(1)), STAMP)
        second = log.commit(always(issued(1)), odd)
        expected = commit_of(EMPTY, [NOTE, reserved(1)], STAMP, lambda _: ())
        expected += commit_of(log_head(expected), [issued(1)], odd, lambda _: ())
        assert [*first, *second] == expected
        assert list(log.records()) == expected
        assert list(verify_chain(EMPTY, log.records())) == expected
        with closing(backing.factory()) as other:
            assert list(other.log("c").records()) == expected
            assert other.log("c").inventory().head == log_head(expected)

    def test_a_commit_keeps_its_signatures(self, log: RecordLog, backing: Backing) -> None:
        made = (CommitSignature(1, b"\x00one", "ab"), CommitSignature(2, b"two"))
        asked = []

        def sign(view: Inventory, records: Sequence[Record], _place: str) -> tuple[CommitSignature, ...]:
            asked.append((view.head, [record.kind for record in records]))
            return made

        log.commit(always(NOTE, NOTE), STAMP, sign)
        assert asked == [(EMPTY, [NOTE.kind, NOTE.kind])]
        with closing(backing.factory()) as other:
            assert [record.signatures for record in other.log("c").records()] == [None, made]

    def test_a_log_is_as_its_judge_says(self, log: RecordLog, backing: Backing) -> None:
        records = log.commit(always(NOTE, NOTE), STAMP)
        asked = []

        def judge(head: Head, after: Callable[[int], Iterator[Record]]) -> Collection[str]:
            asked.append((head, list(after(1))))
            raise NotTrustedError("no")

        with closing(backing.factory()) as other:
            judged = other.log("c", judge)
            for call in (judged.inventory, lambda: judged.commit(always(NOTE), STAMP), judged.authenticate):
                with pytest.raises(NotTrustedError):
                    call()
        assert (log_head(records), [records[1]]) in asked
        assert log.inventory().head.seq == 2

    def test_a_log_is_authenticated_from_its_first_record(self, store: Store, log: RecordLog) -> None:
        assert log.authenticate() == EMPTY
        records = log.commit(always(NOTE, reserved(1)), STAMP)
        assert store.log("c").authenticate() == log_head(records)

    def test_records_are_read_from_a_number_on(self, log: RecordLog) -> None:
        for _ in range(3):
            log.commit(always(NOTE, NOTE), STAMP)
        everything = list(log.records())
        for after in range(8):
            assert list(log.records(after=after)) == everything[after:]

    def test_an_empty_decision_appends_nothing(self, store: Store, log: RecordLog) -> None:
        assert list(log.commit(always(), STAMP)) == []
        assert list(store.clusters()) == []
        log.commit(always(NOTE), STAMP)
        assert list(log.commit(always(), STAMP)) == []
        assert log.inventory().head.seq == 1

    def test_what_a_decision_raises_is_passed_on_and_appends_nothing(self, log: RecordLog) -> None:
        log.commit(always(NOTE), STAMP)

        def refuse(view: Inventory) -> Sequence[Draft]:
            raise ConflictError(f"seen {view.head.seq}")

        with pytest.raises(ConflictError, match="seen 1"):
            log.commit(refuse, STAMP)
        assert [record.seq for record in log.records()] == [1]
        log.commit(always(NOTE), STAMP)
        assert log.inventory().head.seq == 2

    def test_a_decision_sees_what_it_is_appended_to(self, log: RecordLog, backing: Backing) -> None:
        def next_serial(view: Inventory) -> Sequence[Draft]:
            serial = sum(1 for _ in view.certificates()) + 1
            assert view.certificate(serial) is None
            return [reserved(serial, f"w-{serial}")]

        with closing(backing.factory()) as other:
            for turn in range(6):
                (log if turn % 2 else other.log("c")).commit(next_serial, STAMP)
        assert [entry.serial for entry in log.inventory().certificates()] == [1, 2, 3, 4, 5, 6]

    def test_clusters_are_kept_apart(self, store: Store) -> None:
        store.log("b").commit(always(reserved(1)), STAMP)
        store.log("a").commit(always(NOTE), STAMP)
        assert list(store.clusters()) == ["a", "b"]
        assert store.log("a").inventory().certificate(1) is None
        assert [record.kind for record in store.log("a").records()] == ["note"]

    def test_unavailable_is_said_so_and_nothing_is_appended(self, log: RecordLog, backing: Backing) -> None:
        log.commit(always(NOTE), STAMP)
        with backing.unavailable(), closing(backing.factory()) as other, pytest.raises(UnavailableError):
            other.log("c").commit(always(NOTE), STAMP)
        assert log.inventory().head.seq == 1

    def test_denied_is_said_so(self, log: RecordLog, backing: Backing) -> None:
        log.commit(always(NOTE), STAMP)
        with backing.denied(), pytest.raises(AccessDeniedError), closing(backing.factory()) as other:
            other.log("c").commit(always(NOTE), STAMP)
        assert log.inventory().head.seq == 1

    def test_a_batch_keeps_what_was_committed_in_it(self, store: Store, backing: Backing) -> None:
        with store.batch():
            store.log("c").commit(always(reserved(1)), STAMP)
            store.log("c").commit(always(issued(1)), STAMP)
        with closing(backing.factory()) as other:
            assert [record.kind for record in other.log("c").records()] == [RESERVED, ISSUED]

    @pytest.mark.parametrize("workers", [threads, processes])
    def test_many_writers_lose_and_double_nothing(
        self, log: RecordLog, backing: Backing, workers: Callable[[int], AbstractContextManager[Executor]]
    ) -> None:
        writers, each = 4, 4
        with workers(writers) as executor:
            numbers = run(executor, append_records, backing, writers, each)
        assert sorted(n for own in numbers for n in own) == list(range(1, writers * each + 1))
        previous = EMPTY
        for record in log.records():
            assert record.body["after"] == list(previous)
            assert record.seq in numbers[record.body["writer"]]
            previous = log_head([record])
