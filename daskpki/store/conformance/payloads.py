"""What every `SecretStore` does with versions and payloads, whole or damaged, alone or among many writers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing

import pytest

from daskpki.confidential import Confidential
from daskpki.errors import (
    AccessDeniedError,
    CorruptError,
    DisabledError,
    NotFoundError,
    NotOursError,
    UnavailableError,
    UsageError,
)
from daskpki.store.conformance.backing import Backing
from daskpki.store.conformance.fixtures import FOREIGN, LABELS, MISSING, SECRET, OneSecret
from daskpki.store.conformance.writers import add_versions, processes, run, threads
from daskpki.store.port import DESTROYED, DISABLED, ENABLED, MAX_PAYLOAD, SecretStore, Store


class PayloadSuite(OneSecret):
    """Versions and payloads."""

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

    def test_unavailable_is_said_so_and_nothing_was_done(self, secrets: SecretStore, backing: Backing) -> None:
        with backing.unavailable(), closing(backing.factory()) as other, pytest.raises(UnavailableError):
            other.secrets.add(SECRET, Confidential("one"))
        assert secrets.add(SECRET, Confidential("two")) == 1

    def test_denied_is_said_so(self, secrets: SecretStore, backing: Backing) -> None:
        secrets.add(SECRET, Confidential("one"))
        with backing.denied():
            for call in (_access, _add):
                with pytest.raises(AccessDeniedError), closing(backing.factory()) as other:
                    call(other.secrets)
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

    @pytest.mark.parametrize("workers", [threads, processes])
    def test_many_writers_lose_and_double_nothing(
        self, secrets: SecretStore, backing: Backing, workers: Callable[[int], AbstractContextManager[Executor]]
    ) -> None:
        writers, each = 4, 5
        with workers(writers) as executor:
            numbers = run(executor, add_versions, backing, writers, each)
        assert sorted(n for own in numbers for n in own) == list(range(1, writers * each + 1))
        for writer, own in enumerate(numbers):
            assert [secrets.access(SECRET, n).reveal().decode() for n in own] == [f"{writer}-{t}" for t in range(each)]


def _access(secrets: SecretStore) -> object:
    return secrets.access(SECRET, 1)


def _add(secrets: SecretStore) -> object:
    return secrets.add(SECRET, Confidential("x"))
