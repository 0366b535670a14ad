"""One desktop session for all tests of people's credentials, and a store with a cluster in which alice has a leaf."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daskpki.credentials.credential_files import export_directory
from daskpki.credentials.os_keyring import OSKeyring
from daskpki.credentials.sources import Environment
from daskpki.identity import Role
from daskpki.settings import LocalUrl
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.local.store import LocalStore
from daskpki.store.opening import open_store
from tests.support.desktop import Desktop, SessionKeyring, desktop
from tests.support.local_places import create_store
from tests.support.login_material import Founded


@pytest.fixture(scope="session")
def session() -> Iterator[Desktop]:
    with desktop() as running:
        yield running


@pytest.fixture
def keyring(session: Desktop) -> OSKeyring:
    return OSKeyring(session.environ, time_limit=20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    ways = Unlocking(key_file=tmp_path / "store.key")
    opened = create_store(LocalUrl(tmp_path / "store"), unlock=ways)
    yield opened
    opened.close()


@pytest.fixture
def founded(store: LocalStore) -> Founded:
    """A cluster called `default` with client/alice, published."""
    cluster = Founded()
    cluster.publish(store.secrets)
    cluster.store(store.secrets, cluster.issue(Role.CLIENT, "alice"))
    return cluster


@pytest.fixture
def here(session: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """What a program of alice's sees."""
    monkeypatch.setenv("DASKPKI_KEY_FILE", str(tmp_path / "store.key"))
    return Environment(os.environ.copy(), datetime.now(UTC), SessionKeyring(session), open_store)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A directory with alice's credential, as `export` writes it."""
    cluster = Founded(schedulers=["tls://10.1.1.1:8786"])
    export_directory(cluster.hold(cluster.issue(Role.CLIENT, "alice")), tmp_path / "alice")
    return tmp_path / "alice"


@pytest.fixture
def mounted(here: Environment, exported: Path) -> Environment:
    return here._replace(environ={**here.environ, "DASKPKI_CREDENTIAL_DIR": str(exported)})
