"""Logins in a real keyring: in order, behind the store, tampered with, and locked away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daskpki.authority.ca import CertificateAuthority
from daskpki.credentials.login import login
from daskpki.credentials.os_keyring import OSKeyring
from daskpki.credentials.sources import Environment
from daskpki.doctor.checks import Finding
from daskpki.doctor.run import Examination
from daskpki.identity import Role
from daskpki.settings import LocalUrl
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.local.store import LocalStore
from daskpki.store.opening import open_store
from tests.support.desktop import Desktop, desktop
from tests.support.local_places import create_store


@pytest.fixture(scope="module")
def session() -> Iterator[Desktop]:
    with desktop() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    opened = create_store(LocalUrl(tmp_path / "store"), unlock=Unlocking(key_file=tmp_path / "store.key"))
    yield opened
    opened.close()


@pytest.fixture
def here(session: Desktop) -> Environment:
    return Environment(os.environ.copy(), datetime.now(UTC), OSKeyring(session.environ, time_limit=20), open_store)


def found(store: LocalStore, here: Environment, subject: str) -> Finding:
    @contextmanager
    def opened() -> Iterator[CertificateAuthority]:
        yield CertificateAuthority(store)

    (finding,) = [each for each in Examination(opened, here).run() if each.subject == subject]
    return finding


def test_a_login_from_its_first_day_to_its_last(store: LocalStore, here: Environment, session: Desktop) -> None:
    authority = CertificateAuthority(store)
    authority.init()
    list(authority.issue([*authority.requests(Role.CLIENT, ["alice"]), *authority.requests(Role.WORKER, ["w"])]))
    assert found(store, here, "credential in use").remedy == "daskpki login NAME"

    saved = login(store, "default", "alice", [], here).saved
    assert found(store, here, "keyring").severity == "ok"
    assert found(store, here, "login default/alice").severity == "ok"

    CertificateAuthority(store).revoke("worker/w")
    behind = found(store, here, "login default/alice")
    assert (behind.severity, behind.remedy) == ("note", "daskpki login")

    file = here.contexts.directory / f"{saved.id}.json"
    file.write_bytes(file.read_bytes() + b"\n")
    tampered = found(store, here, "login default/alice")
    assert (tampered.severity, "changed since" in tampered.reason) == ("error", True)

    session.lock()
    here = here._replace(keyring=OSKeyring(session.environ, time_limit=1))
    assert found(store, here, "keyring").severity == "error"
