"""What the tests of the local store share: a place with a key file, and cheap scrypt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daskpki.store.local.store import LocalStore
from tests.support.local_places import LocalPlace


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    """A new store with a key file, in a directory of its own."""
    place = LocalPlace(tmp_path)
    place.create().close()
    return place


@pytest.fixture
def store(place: LocalPlace) -> Iterator[LocalStore]:
    """A handle on it."""
    with closing(place.factory()) as store:
        yield store
