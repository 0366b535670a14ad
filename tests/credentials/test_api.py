"""The Python API: what `daskpki.security`, `connect` and `open_store` give, and how they refuse."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import daskpki
from daskpki.authority.ca import CertificateAuthority
from daskpki.credentials.credential_files import export_directory
from daskpki.errors import NotFoundError, NotTrustedError, UsageError
from daskpki.identity import Role
from daskpki.store.local.store import LocalStore
from tests.support.login_material import Founded


@pytest.fixture
def _key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASKPKI_KEY_FILE", str(tmp_path / "store.key"))


@pytest.mark.usefixtures("founded", "_key_file")
def test_security_from_a_store_that_was_asked_for(store: LocalStore) -> None:
    security = daskpki.security("alice", store=store.url)
    assert "client/alice" in repr(security)
    with pytest.raises(TypeError, match="private key"):
        pickle.dumps(security)
    with pytest.raises(NotFoundError, match="client/bob"):
        daskpki.security("bob", store=store.url)


@pytest.mark.usefixtures("founded", "_key_file")
@pytest.mark.parametrize(("cluster", "program"), [("default", "daskpki"), ("lab", "daskpki --cluster lab")])
def test_what_a_cluster_lacks_is_made_by_a_command_that_names_the_cluster(
    store: LocalStore, cluster: str, program: str
) -> None:
    """A program's user has given no options that the command line could add."""
    CertificateAuthority(store, "lab").init()
    for ask in (daskpki.security, daskpki.cluster_security):
        with pytest.raises(NotFoundError) as refusal:
            ask("bob", cluster=cluster, store=store.url)
        assert str(refusal.value.hint).startswith(f"{program} issue ")
        assert f"; {program} list shows" in str(refusal.value.hint)


@pytest.mark.usefixtures("_key_file")
@pytest.mark.parametrize(("cluster", "program"), [("default", "daskpki"), ("lab", "daskpki --cluster lab")])
def test_a_missing_ca_is_made_by_a_command_that_names_the_cluster(
    store: LocalStore, cluster: str, program: str
) -> None:
    for ask in (daskpki.security, daskpki.cluster_security):
        with pytest.raises(NotFoundError) as refusal:
            ask("alice", cluster=cluster, store=store.url)
        assert refusal.value.hint == f"{program} init-ca makes one"
    with pytest.raises(NotFoundError) as refusal:
        CertificateAuthority(store, cluster).active()
    assert refusal.value.hint == f"{program} init-ca makes one"


def test_connect_without_an_address_says_how_to_give_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Founded()
    export_directory(cluster.hold(cluster.issue(Role.CLIENT, "alice")), tmp_path / "alice")
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "alice"))
    with pytest.raises(UsageError, match="no scheduler's address of cluster 'default' is known") as refusal:
        daskpki.connect()
    assert "--scheduler" in str(refusal.value.hint)


def test_a_worker_is_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Founded()
    export_directory(cluster.hold(cluster.issue(Role.WORKER, "worker")), tmp_path / "worker")
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "worker"))
    with pytest.raises(NotTrustedError, match="worker/worker is not a client"):
        daskpki.security()


@pytest.mark.usefixtures("founded", "_key_file")
def test_open_store_reads_payloads_without_asking(store: LocalStore) -> None:
    opened = daskpki.open_store(store.url)
    try:
        assert len(opened.secrets.latest("daskpki_default_client_alice").data) > 0
    finally:
        opened.close()


def test_the_names_of_the_api_are_listed_and_others_refused() -> None:
    assert set(daskpki.__all__) <= set(dir(daskpki))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        daskpki.nothing  # noqa: B018
