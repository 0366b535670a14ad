"""The runner of commands over both stores, as the command line's own tests have it, and one on a cloud beside it."""

from __future__ import annotations

import pytest

from tests.emulator import SecretManagerServer
from tests.support.command_stores import CLOUD, cheap_passphrases, local, run, server
from tests.support.running import Run, runner

__all__ = ["cheap_passphrases", "local", "run", "server"]


@pytest.fixture
def cloud(server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Commands on Secret Manager, beside those on a local store."""
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    return runner(capsys, "--store", CLOUD)
