"""A cluster's other secrets with several operators at once, and with annotations that somebody else wrote."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import NotFoundError
from daskpki.store.local.store import LocalStore
from daskpki.user_secrets import ADDED, ClusterSecrets
from tests.support.local_places import LocalPlace

NAME = "db-password"
SECRET = secret_names.user_secret_id("c", NAME)
OPERATORS, TURNS = 4, 6


def secrets_of(store: LocalStore, clock: Iterator[int] | None = None) -> ClusterSecrets:
    seconds = clock or itertools.count(1_800_000_000)
    return ClusterSecrets(store, "c", who="o", command="x", clock=lambda: next(seconds))


def test_operators_who_set_and_roll_back_at_once_are_all_recorded(place: LocalPlace, store: LocalStore) -> None:
    """The reminder of each new value differs, so each changes the annotations that the others change."""
    clock = itertools.count(1_800_000_000)
    for value in ("one", "two"):
        secrets_of(store, clock).set(NAME, Confidential(value), ttl=1000)

    def operate(number: int) -> list[int]:
        with closing(place.factory()) as own:
            secrets = secrets_of(own, clock)
            if number % 2:
                return [secrets.rollback(NAME, 1)[1] for _ in range(TURNS)]
            return [secrets.set(NAME, Confidential(f"{number}")) for _ in range(TURNS)]

    with ThreadPoolExecutor(OPERATORS) as executor:
        added = list(itertools.chain.from_iterable(executor.map(operate, range(OPERATORS))))
    assert sorted(added) == list(range(3, 3 + OPERATORS * TURNS))
    recorded = [record.body["version"] for record in store.events("c").records() if record.kind == ADDED]
    assert sorted(recorded) == list(range(1, 3 + OPERATORS * TURNS))


@pytest.mark.parametrize("mark", ["3:1", "x:y", "3:", "", "3:99999999999999999999"])
def test_a_mark_that_somebody_else_wrote_is_none(store: LocalStore, mark: str) -> None:
    secrets = secrets_of(store)
    for value in ("one", "two"):
        secrets.set(NAME, Confidential(value))
    assert secrets.rollback(NAME) == (1, 3)
    info = store.secrets.describe(SECRET)
    assert info.annotations["daskpki-restored"] == "3:1"
    store.secrets.update(SECRET, etag=info.etag, annotations={"daskpki-restored": mark, "daskpki-ends": "9" * 15})
    if mark == "3:1":
        with pytest.raises(NotFoundError, match="no readable version before 1"):
            secrets.rollback(NAME)
    else:
        assert secrets.rollback(NAME) == (2, 4)
    assert [listed.ends for listed in secrets.all()] == [None]


@pytest.mark.parametrize("label", ["daskpki-format", "daskpki-name"])  # the control comes first
def test_a_secret_that_lost_its_name_is_named_by_its_id(store: LocalStore, label: str) -> None:
    secrets = secrets_of(store)
    secrets.set(NAME, Confidential("one"))
    store.secrets.create("another", labels=secret_names.labels("c", secret_names.SECRET, "another"))
    info = store.secrets.describe(SECRET)
    kept = {key: value for key, value in info.labels.items() if key != label}
    store.secrets.update(SECRET, etag=info.etag, labels=kept)
    with pytest.raises(NotFoundError, match=f"the secret {NAME} has no readable version before 1"):
        secrets.rollback(NAME)
    if label == "daskpki-name":
        assert [listed.name for listed in secrets.all()] == [NAME]
