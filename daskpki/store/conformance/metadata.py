"""What every `SecretStore` does with secrets: create, describe, select, update, delete."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daskpki import naming
from daskpki.confidential import Confidential
from daskpki.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    UsageError,
)
from daskpki.store.conformance.backing import Backing
from daskpki.store.conformance.fixtures import FOREIGN, LABELS, MISSING, SECRET, OneSecret
from daskpki.store.port import SecretStore


class MetadataSuite(OneSecret):
    """Secrets without their payloads."""

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
        with pytest.raises(UsageError):
            secrets.create(MISSING, labels=labels)
        with pytest.raises(NotFoundError):
            secrets.describe(MISSING)

    @pytest.mark.parametrize("annotations", [{"": "x"}, {"a b": "x"}, {"note": "x" * 16_400}])
    def test_annotations_that_do_not_fit_are_refused(self, secrets: SecretStore, annotations: dict[str, str]) -> None:
        with pytest.raises(UsageError):
            secrets.create(MISSING, labels=LABELS, annotations=annotations)

    def test_select_finds_ours_by_all_the_labels(self, secrets: SecretStore, backing: Backing) -> None:
        backing.foreign(FOREIGN)
        for cluster, name in (("c", "b"), ("d", "a"), ("c", "a")):
            marks = naming.labels(cluster, naming.SECRET, name)
            secrets.create(naming.user_secret_id(cluster, name), labels=marks)

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

    def test_an_update_cannot_give_a_secret_away(self, secrets: SecretStore) -> None:
        read = secrets.describe(SECRET)
        with pytest.raises(UsageError):
            secrets.update(SECRET, etag=read.etag, labels={"managed-by": "someone"})
        assert secrets.describe(SECRET) == read

    def test_deleting_leaves_nothing_to_be_found_again(self, secrets: SecretStore) -> None:
        secrets.add(SECRET, Confidential("old"))
        secrets.add(SECRET, Confidential("older"))
        with pytest.raises(ConflictError):
            secrets.delete(SECRET, etag=_other(secrets.describe(SECRET).etag))
        assert secrets.access(SECRET, 1).reveal() == b"old"
        secrets.delete(SECRET, etag=secrets.describe(SECRET).etag)
        _assert_missing(secrets, SECRET)
        secrets.create(SECRET, labels=LABELS)
        assert secrets.add(SECRET, Confidential("new")) == 1
        assert secrets.access(SECRET, 1).reveal() == b"new"
        with pytest.raises(NotFoundError):
            secrets.access(SECRET, 2)

    def test_what_does_not_exist_is_not_found(self, secrets: SecretStore) -> None:
        _assert_missing(secrets, MISSING)


def _other(etag: str) -> str:
    """An etag of the same form that is not the present one."""
    middle = len(etag) // 2
    return etag[:middle] + ("1" if etag[middle] == "0" else "0") + etag[middle + 1 :]


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
