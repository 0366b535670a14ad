"""A store of each kind and a runner of commands on it: fixtures that two folders' conftest.py import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import SecretManagerServer
from tests.support.running import Run, runner

CLOUD = "gsm://my-project"


@pytest.fixture
def local(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Commands on a local store that a key file opens."""
    return runner(capsys, "--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "store.key"))


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
        return runner(capsys, "--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "store.key"))
    server: SecretManagerServer = request.getfixturevalue("server")
    endpoint = f"grpc://{server.grpc_target}" if request.param == "grpc" else server.rest_url
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", endpoint)
    return runner(capsys, "--store", CLOUD)
