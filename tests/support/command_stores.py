"""A store of each kind and a runner of commands on it: fixtures that two folders' conftest.py import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daskpki.store.encryption import seal_with_passphrase
from tests.emulator import SecretManagerServer
from tests.support.local_places import CHEAP
from tests.support.running import Run, runner

CLOUD = "gsm://my-project"


def on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, as_options: bool = False) -> Run:
    """Commands on a local store that a key file opens."""
    store = f"local:{tmp_path / 'store'}"
    return runner(capsys, "--store", store, "--key-file", str(tmp_path / "store.key"), as_options=as_options)


def in_cloud(
    server: SecretManagerServer,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    as_options: bool = False,
) -> Run:
    """Commands on that Secret Manager, over `grpc` or `rest`."""
    endpoint = f"grpc://{server.grpc_target}" if transport == "grpc" else server.rest_url
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", endpoint)
    return runner(capsys, "--store", CLOUD, as_options=as_options)


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process seals by a passphrase takes no time, nor does opening it: the sealed file says its cost."""
    defaults = seal_with_passphrase.__kwdefaults__
    assert defaults is not None
    assert "cost" in defaults
    monkeypatch.setitem(defaults, "cost", CHEAP)


@pytest.fixture
def local(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return on_disk(tmp_path, capsys)


@pytest.fixture
def server() -> Iterator[SecretManagerServer]:
    with SecretManagerServer() as server:
        yield server


@pytest.fixture(params=["local", "grpc", "rest"])
def run(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Commands on each kind of store; Secret Manager's over both transports."""
    if request.param == "local":
        return on_disk(tmp_path, capsys)
    return in_cloud(request.getfixturevalue("server"), request.param, monkeypatch, capsys)
