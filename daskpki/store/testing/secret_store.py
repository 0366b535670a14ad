"""Tests that every `SecretStore` passes: secrets, versions and payloads, whole or damaged, one writer or many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing
from typing import Final

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConflictError,
    CorruptError,
    DisabledError,
    NotFoundError,
    NotOursError,
    UnavailableError,
    UsageError,
)
from daskpki.secret_names import MAX_PAYLOAD
from daskpki.store.port import DESTROYED, DISABLED, ENABLED, SecretStore, Store
from daskpki.store.testing.backing import SECRET, Backing, OneStore, add_versions, processes, run, threads

LABELS: Final = secret_names.labels("c", secret_names.SECRET, "shared")
MISSING: Final = "daskpki_c_secret_missing"
FOREIGN: Final = "daskpki_c_secret_foreign"


class SecretStoreSuite(OneStore):
    """Subclass it, and provide the fixture `backing`."""

    @pytest.fixture
    def secrets(self, store: Store) -> SecretStore:
        """Its payloads, with one secret that has no version yet."""
        store.secrets.create(SECRET, labels=LABELS, annotations={"note": "für alle"})
        return store.secrets

    # --- secrets without their payloads

    def test_a_secret_is_described_as_it_was_created(self, secrets: SecretStore) -> None:
        info = secrets.describe(SECRET)
        assert info.id == SECRET
        assert dict(info.labels) == LABELS
        assert dict(info.annotations) == {"note": "für alle"}
        assert info.etag
        assert info.created > 1_000_000_000

    def test_nothing_is_created_twice(self, secrets: SecretStore, backing: Backing) -> None:
        backing.foreign(FOREIGN)
        before = secrets.describe(SECRET)
        for secret in (SECRET, FOREIGN):
            with pytest.raises(AlreadyExistsError, match=secret):
                secrets.create(secret, labels=LABELS | {"daskpki-name": "other"})
        assert secrets.describe(SECRET) == before

    @pytest.mark.parametrize(
        "secret", ["", "a b", "../up", "projects/p/secrets/s", "ä", "a.b", "a\n", "a/versions/1", "x" * 256]
    )
    def test_an_id_that_is_none_is_refused(self, secrets: SecretStore, secret: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: secrets.create(secret, labels=LABELS),
            lambda: secrets.describe(secret),
            lambda: secrets.add(secret, Confidential("x")),
            lambda: secrets.access(secret, 1),
            lambda: secrets.latest(secret),
            lambda: secrets.delete(secret),
        ]
        for call in calls:
            with pytest.raises(UsageError):
                call()

    def test_the_longest_id_is_taken(self, secrets: SecretStore) -> None:
        longest = "daskpki_" + "x" * 247
        secrets.create(longest, labels=LABELS)
        assert secrets.add(longest, Confidential("x")) == 1

    @pytest.mark.parametrize(
        "labels",
        [
            {},
            {"managed-by": "someone"},
            LABELS | {"Upper": "x"},
            LABELS | {"key": "Ümlaut!"},
            LABELS | {"key": "x" * 64},
            LABELS | {f"k{n}": "x" for n in range(65)},
        ],
    )
    def test_labels_that_do_not_mark_or_do_not_fit_are_refused(
        self, secrets: SecretStore, labels: dict[str, str]
    ) -> None:
        read = secrets.describe(SECRET)
        with pytest.raises(UsageError):
            secrets.create(MISSING, labels=labels)
        with pytest.raises(NotFoundError):
            secrets.describe(MISSING)
        with pytest.raises(UsageError):
            secrets.update(SECRET, etag=read.etag, labels=labels)
        assert secrets.describe(SECRET) == read

    @pytest.mark.parametrize("annotations", [{"": "x"}, {"a b": "x"}, {"note": "x" * 16_400}])
    def test_annotations_that_do_not_fit_are_refused(self, secrets: SecretStore, annotations: dict[str, str]) -> None:
        with pytest.raises(UsageError):
            secrets.create(MISSING, labels=LABELS, annotations=annotations)

    def test_select_finds_ours_by_all_the_labels(self, secrets: SecretStore, backing: Backing) -> None:
        backing.foreign(FOREIGN)
        for cluster, name in (("c", "b"), ("d", "a"), ("c", "a")):
            marks = secret_names.labels(cluster, secret_names.SECRET, name)
            secrets.create(secret_names.user_secret_id(cluster, name), labels=marks)

        def found(**labels: str) -> list[str]:
            return [info.id for info in secrets.select({key.replace("_", "-"): v for key, v in labels.items()})]

        assert found(daskpki_cluster="c") == ["daskpki_c_secret_a", "daskpki_c_secret_b", SECRET]
        assert found(daskpki_cluster="d", daskpki_name="a") == ["daskpki_d_secret_a"]
        assert found(daskpki_cluster="d", daskpki_name="b") == []
        assert found() == ["daskpki_c_secret_a", "daskpki_c_secret_b", SECRET, "daskpki_d_secret_a"]

    def test_an_update_needs_the_etag_of_what_was_read(self, secrets: SecretStore) -> None:
        read = secrets.describe(SECRET)
        changed = secrets.update(SECRET, etag=read.etag, labels=LABELS | {"more": "x"})
        assert changed.etag != read.etag
        assert (changed.labels["more"], changed.annotations["note"]) == ("x", "für alle")
        with pytest.raises(ConflictError):
            secrets.update(SECRET, etag=read.etag, annotations={})
        secrets.update(SECRET, etag=changed.etag, annotations={"note": "2"})
        now = secrets.describe(SECRET)
        assert (now.labels["more"], dict(now.annotations), now.created) == ("x", {"note": "2"}, read.created)

    def test_deleting_leaves_nothing_to_be_found_again(self, secrets: SecretStore) -> None:
        secrets.add(SECRET, Confidential("old"))
        secrets.add(SECRET, Confidential("older"))
        etag = secrets.describe(SECRET).etag
        middle = len(etag) // 2
        with pytest.raises(ConflictError):
            secrets.delete(SECRET, etag=etag[:middle] + ("1" if etag[middle] == "0" else "0") + etag[middle + 1 :])
        assert secrets.access(SECRET, 1).reveal() == b"old"
        secrets.delete(SECRET, etag=etag)
        _assert_missing(secrets, SECRET)
        secrets.create(SECRET, labels=LABELS)
        assert secrets.add(SECRET, Confidential("new")) == 1
        assert secrets.access(SECRET, 1).reveal() == b"new"
        with pytest.raises(NotFoundError):
            secrets.access(SECRET, 2)

    def test_what_does_not_exist_is_not_found(self, secrets: SecretStore) -> None:
        _assert_missing(secrets, MISSING)

    # --- versions and payloads

    def test_versions_count_from_one_and_never_change(self, secrets: SecretStore) -> None:
        assert [secrets.add(SECRET, Confidential(f"payload {n}")) for n in (1, 2, 3)] == [1, 2, 3]
        assert [secrets.access(SECRET, n).reveal() for n in (1, 2, 3)] == [b"payload 1", b"payload 2", b"payload 3"]
        latest = secrets.latest(SECRET)
        assert latest.data == secrets.access(SECRET, latest.number)

    def test_a_secret_without_versions_has_no_latest(self, secrets: SecretStore) -> None:
        with pytest.raises(NotFoundError):
            secrets.latest(SECRET)
        assert list(secrets.versions(SECRET)) == []

    @pytest.mark.parametrize("number", [0, -1, 2, 1_000_000, 2**70])
    def test_a_number_that_was_not_added_is_not_found(self, secrets: SecretStore, number: int) -> None:
        secrets.add(SECRET, Confidential("one"))
        for call in (secrets.access, secrets.enable, secrets.disable, secrets.destroy):
            with pytest.raises(NotFoundError):
                call(SECRET, number)

    @pytest.mark.parametrize(
        "payload",
        [
            b"\0",
            b"\xff\xfe\x00\x80",
            b"line\r\nline\n",
            b"'; DROP TABLE version; --",
            "schlüssel 🔑".encode(),
            bytes(range(256)) * 16,
            b"x" * MAX_PAYLOAD,
        ],
        ids=["nul", "no-utf8", "lines", "sql", "utf8", "bytes", "largest"],
    )
    def test_a_payload_comes_back_byte_for_byte(self, secrets: SecretStore, payload: bytes) -> None:
        number = secrets.add(SECRET, Confidential(payload))
        assert secrets.access(SECRET, number).reveal() == payload
        assert secrets.latest(SECRET).data.reveal() == payload

    @pytest.mark.parametrize("size", [0, MAX_PAYLOAD + 1])
    def test_a_payload_that_does_not_fit_is_refused(self, secrets: SecretStore, size: int) -> None:
        with pytest.raises(UsageError):
            secrets.add(SECRET, Confidential(b"x" * size))
        assert list(secrets.versions(SECRET)) == []

    def test_a_disabled_version_is_unreadable_until_it_is_enabled(self, secrets: SecretStore) -> None:
        secrets.add(SECRET, Confidential("one"))
        secrets.add(SECRET, Confidential("two"))
        secrets.disable(SECRET, 2)
        for call in (lambda: secrets.access(SECRET, 2), lambda: secrets.latest(SECRET)):
            with pytest.raises(DisabledError):
                call()
        assert secrets.access(SECRET, 1).reveal() == b"one"
        secrets.enable(SECRET, 2)
        assert secrets.latest(SECRET).data.reveal() == b"two"

    def test_a_destroyed_version_is_gone_for_good(self, secrets: SecretStore) -> None:
        secrets.add(SECRET, Confidential("one"))
        secrets.add(SECRET, Confidential("two"))
        secrets.destroy(SECRET, 2)
        secrets.destroy(SECRET, 2)
        for call in (secrets.access, secrets.enable, secrets.disable):
            with pytest.raises(DisabledError):
                call(SECRET, 2)
        assert secrets.add(SECRET, Confidential("three")) == 3

    def test_versions_are_listed_newest_first_with_their_states(self, secrets: SecretStore) -> None:
        for payload in ("one", "two", "three"):
            secrets.add(SECRET, Confidential(payload))
        secrets.disable(SECRET, 1)
        secrets.destroy(SECRET, 2)
        listed = list(secrets.versions(SECRET))
        assert [(version.number, version.state) for version in listed] == [(3, ENABLED), (2, DESTROYED), (1, DISABLED)]
        assert all(version.created > 1_000_000_000 for version in listed)

    def test_what_is_not_ours_is_never_touched(self, secrets: SecretStore, backing: Backing) -> None:
        backing.foreign(FOREIGN)
        before = secrets.describe(FOREIGN)
        changes: list[Callable[[], object]] = [
            lambda: secrets.add(FOREIGN, Confidential("x")),
            lambda: secrets.update(FOREIGN, etag=before.etag, labels=LABELS),
            lambda: secrets.disable(FOREIGN, 1),
            lambda: secrets.enable(FOREIGN, 1),
            lambda: secrets.destroy(FOREIGN, 1),
            lambda: secrets.delete(FOREIGN),
            lambda: secrets.delete(FOREIGN, etag=before.etag),
        ]
        for change in changes:
            with pytest.raises(NotOursError, match=FOREIGN):
                change()
        assert secrets.describe(FOREIGN) == before
        assert [(version.number, version.state) for version in secrets.versions(FOREIGN)] == [(1, ENABLED)]

    def test_a_damaged_payload_is_not_returned(self, secrets: SecretStore, backing: Backing) -> None:
        secrets.add(SECRET, Confidential("one"))
        secrets.add(SECRET, Confidential("two"))
        backing.corrupt(SECRET, 2)
        with pytest.raises(CorruptError):
            secrets.access(SECRET, 2)
        assert secrets.access(SECRET, 1).reveal() == b"one"

    def test_a_stale_latest_does_not_hide_what_was_added(self, secrets: SecretStore, backing: Backing) -> None:
        secrets.add(SECRET, Confidential("one"))
        backing.make_stale(SECRET)
        assert secrets.add(SECRET, Confidential("two")) == 2
        assert secrets.access(SECRET, 2).reveal() == b"two"
        latest = secrets.latest(SECRET)
        assert latest.data == secrets.access(SECRET, latest.number)

    def test_another_handle_reads_what_was_written(self, secrets: SecretStore, backing: Backing) -> None:
        number = secrets.add(SECRET, Confidential("one"))
        with closing(backing.factory()) as other:
            assert other.secrets.access(SECRET, number).reveal() == b"one"
            assert other.secrets.add(SECRET, Confidential("two")) == number + 1
        assert secrets.access(SECRET, number + 1).reveal() == b"two"

    def test_unavailable_is_reported_and_nothing_was_done(self, secrets: SecretStore, backing: Backing) -> None:
        with backing.unavailable(), closing(backing.factory()) as other, pytest.raises(UnavailableError):
            other.secrets.add(SECRET, Confidential("one"))
        assert secrets.add(SECRET, Confidential("two")) == 1

    def test_denied_is_reported(self, secrets: SecretStore, backing: Backing) -> None:
        secrets.add(SECRET, Confidential("one"))
        with backing.denied():
            with pytest.raises(AccessDeniedError), closing(backing.factory()) as other:
                other.secrets.access(SECRET, 1)
            with pytest.raises(AccessDeniedError), closing(backing.factory()) as other:
                other.secrets.add(SECRET, Confidential("x"))
        assert [version.number for version in secrets.versions(SECRET)] == [1]

    def test_a_batch_keeps_what_was_written_in_it(self, store: Store, secrets: SecretStore, backing: Backing) -> None:
        with store.batch():
            numbers = [secrets.add(SECRET, Confidential(text)) for text in ("one", "two")]
        assert numbers == [1, 2]
        with closing(backing.factory()) as other:
            assert [other.secrets.access(SECRET, n).reveal() for n in numbers] == [b"one", b"two"]

    def test_an_error_in_a_batch_is_passed_on(self, store: Store, secrets: SecretStore) -> None:
        with pytest.raises(NotFoundError, match=MISSING), store.batch():
            secrets.describe(MISSING)
        number = secrets.add(SECRET, Confidential("two"))
        assert secrets.access(SECRET, number).reveal() == b"two"

    @pytest.mark.parametrize("workers", [threads, processes], ids=["threads", "processes"])
    def test_many_writers_lose_and_double_nothing(
        self, secrets: SecretStore, backing: Backing, workers: Callable[[int], AbstractContextManager[Executor]]
    ) -> None:
        writers, each = 4, 5
        with workers(writers) as executor:
            numbers = run(executor, add_versions, backing, writers, each)
        assert sorted(n for own in numbers for n in own) == list(range(1, writers * each + 1))
        for writer, own in enumerate(numbers):
            assert [secrets.access(SECRET, n).reveal().decode() for n in own] == [f"{writer}-{t}" for t in range(each)]


def _assert_missing(secrets: SecretStore, secret: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: secrets.describe(secret),
        lambda: secrets.update(secret, etag="x", annotations={}),
        lambda: secrets.delete(secret),
        lambda: secrets.add(secret, Confidential("x")),
        lambda: secrets.access(secret, 1),
        lambda: secrets.latest(secret),
        lambda: list(secrets.versions(secret)),
        lambda: secrets.enable(secret, 1),
        lambda: secrets.disable(secret, 1),
        lambda: secrets.destroy(secret, 1),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match=secret):
            call()
