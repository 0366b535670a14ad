"""The local store against a model of dictionaries, over random lives with reopening and batches that fail."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, DaskpkiError, DisabledError, NotFoundError
from daskpki.store.port import DESTROYED, DISABLED, ENABLED
from tests.support.local_places import LocalPlace

NAMES = st.sampled_from(["a", "b"])
NUMBERS = st.integers(1, 4)


class StoreMachine(RuleBasedStateMachine):
    """`model` holds, for each secret, the state and payload of each version."""

    @initialize()
    def begin(self) -> None:
        self.root = tempfile.TemporaryDirectory()
        self.place = LocalPlace(Path(self.root.name))
        self.store = self.place.create()
        self.model: dict[str, list[tuple[str, bytes]]] = {}

    def teardown(self) -> None:
        self.store.close()
        self.root.cleanup()

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        secret = secret_names.user_secret_id("c", name)
        labels = secret_names.labels("c", secret_names.SECRET, name)
        if secret in self.model:
            with pytest.raises(AlreadyExistsError):
                self.store.secrets.create(secret, labels=labels)
        else:
            self.store.secrets.create(secret, labels=labels)
            self.model[secret] = []

    @rule(name=NAMES, payload=st.binary(min_size=1, max_size=50))
    def add(self, name: str, payload: bytes) -> None:
        secret = secret_names.user_secret_id("c", name)
        if secret in self.model:
            assert self.store.secrets.add(secret, Confidential(payload)) == len(self.model[secret]) + 1
            self.model[secret].append((ENABLED, payload))
        else:
            with pytest.raises(NotFoundError):
                self.store.secrets.add(secret, Confidential(payload))

    @rule(name=NAMES, number=NUMBERS, wanted=st.sampled_from([ENABLED, DISABLED, DESTROYED]))
    def change_state(self, name: str, number: int, wanted: str) -> None:
        secret = secret_names.user_secret_id("c", name)
        calls: dict[str, Callable[[str, int], None]] = {
            ENABLED: self.store.secrets.enable,
            DISABLED: self.store.secrets.disable,
            DESTROYED: self.store.secrets.destroy,
        }
        versions = self.model.get(secret, [])
        if number > len(versions):
            with pytest.raises(NotFoundError):
                calls[wanted](secret, number)
        elif versions[number - 1][0] == DESTROYED and wanted != DESTROYED:
            with pytest.raises(DisabledError):
                calls[wanted](secret, number)
        else:
            calls[wanted](secret, number)
            versions[number - 1] = (wanted, versions[number - 1][1])

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        secret = secret_names.user_secret_id("c", name)
        if self.model.pop(secret, None) is None:
            with pytest.raises(NotFoundError):
                self.store.secrets.delete(secret)
        else:
            self.store.secrets.delete(secret)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.place.factory()

    @rule()
    def break_a_batch(self) -> None:
        def work() -> None:
            with self.store.batch():
                for secret in self.model:
                    self.store.secrets.add(secret, Confidential("never"))
                    self.store.secrets.destroy(secret, 1)
                raise DaskpkiError("broken")

        with pytest.raises(DaskpkiError, match="broken"):
            work()

    @invariant()
    def agrees(self) -> None:
        secrets = self.store.secrets
        assert [info.id for info in secrets.select({"daskpki-cluster": "c"})] == sorted(self.model)
        for secret, versions in self.model.items():
            states = [(number, state) for number, (state, _) in enumerate(versions, 1)]
            assert [(version.number, version.state) for version in secrets.versions(secret)] == states[::-1]
            for number, (state, payload) in enumerate(versions, 1):
                if state == ENABLED:
                    assert secrets.access(secret, number).reveal() == payload
                else:
                    with pytest.raises(DisabledError):
                        secrets.access(secret, number)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
