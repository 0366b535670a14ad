"""What the tests of a `SecretStore` start from: a handle, and one secret without versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pytest

from daskpki import naming
from daskpki.store.conformance.backing import Backing
from daskpki.store.port import SecretStore, Store

SECRET: Final = "daskpki_c_secret_shared"
LABELS: Final = naming.labels("c", naming.SECRET, "shared")
MISSING: Final = "daskpki_c_secret_missing"
FOREIGN: Final = "daskpki_c_secret_foreign"


class OneSecret:
    """The fixtures of both halves of the suite."""

    @pytest.fixture
    def store(self, backing: Backing) -> Iterator[Store]:
        """A handle of the test's own."""
        with closing(backing.factory()) as store:
            yield store

    @pytest.fixture
    def secrets(self, store: Store) -> SecretStore:
        """Its payloads, with one secret that has no version yet."""
        store.secrets.create(SECRET, labels=LABELS, annotations={"note": "für alle"})
        return store.secrets
