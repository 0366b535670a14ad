"""What login is for: plain `Client("tls://...")` connects, as do `connect()` and `security()`, and to nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskpki.credentials.credential_files import export_directory
from daskpki.credentials.login import login, logout
from daskpki.credentials.sources import Environment
from daskpki.identity import Role
from daskpki.store.local.store import LocalStore
from tests.support.desktop import Desktop
from tests.support.login_material import Founded
from tests.support.schedulers import scheduler, worker

CONNECTED = """
import asyncio, json, sys
from dask.distributed import Client
import daskpki

first, second = sys.argv[1:]

async def asynchronously():
    async with Client(second, asynchronous=True) as client:
        plain = await client.submit(sum, [1, 2])
    async with daskpki.connect("other", asynchronous=True) as client:
        return [plain, await client.submit(sum, [3, 4])]

with Client(first) as client:
    plain = client.submit(sum, [5, 6]).result(timeout=20)
with Client(first, security=daskpki.security("alice", cluster="default")) as client:
    explicit = client.submit(sum, [7, 8]).result(timeout=20)
with daskpki.connect("default") as client:
    shortest = client.submit(sum, [9, 10]).result(timeout=20)
print(json.dumps([plain, explicit, shortest, *asyncio.run(asynchronously())]))
"""

REFUSED = """
import sys
from dask.distributed import Client
for address in sys.argv[1:]:
    said = []
    try:
        Client(address, timeout=8)
    except Exception as error:
        while error:
            said.append(f"{type(error).__name__} {error}")
            error = error.__cause__ or error.__context__
    print(repr(said))
"""


def _export(founded: Founded, role: Role, directory: Path) -> Path:
    export_directory(founded.hold(founded.issue(role, role.value)), directory)
    return directory


def _run(program: str, environ: dict[str, str] | None = None, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def alice(session: Desktop, here: Environment) -> dict[str, str]:
    """The environment of alice's programs."""
    return dict(here.environ) | {"DBUS_SESSION_BUS_ADDRESS": session.environ["DBUS_SESSION_BUS_ADDRESS"]}


@pytest.fixture
def _logged_out(here: Environment) -> Iterator[None]:
    yield
    logout(here, here.contexts.all())


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.usefixtures("_logged_out")
def test_clients_connect_to_several_clusters_side_by_side_and_to_nobody_else(
    founded: Founded, store: LocalStore, here: Environment, alice: dict[str, str], tmp_path: Path
) -> None:
    """Refused are another cluster's scheduler, before alice has a login there, and a worker that poses as one."""
    other = Founded("other")
    other.publish(store.secrets)
    other.store(store.secrets, other.issue(Role.CLIENT, "alice"))
    with (
        scheduler(_export(founded, Role.SCHEDULER, tmp_path / "s1")) as first,
        scheduler(_export(other, Role.SCHEDULER, tmp_path / "s2")) as second,
        worker(_export(founded, Role.WORKER, tmp_path / "w1"), first),
        worker(_export(other, Role.WORKER, tmp_path / "w2"), second),
        scheduler(tmp_path / "w1") as posing,
    ):
        login(store, "default", "alice", [], here)
        connected, worker_said, stranger_said = _run(REFUSED, alice, first, posing, second).splitlines()
        assert connected == "[]"
        assert "has the role worker, and here only scheduler is accepted" in worker_said
        assert "CERTIFICATE_VERIFY_FAILED" in stranger_said
        login(store, "default", "alice", [first], here)
        login(store, "other", "alice", [second], here)
        assert json.loads(_run(CONNECTED, alice, first, second)) == [11, 15, 19, 3, 7]


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, daskpki; print(*sys.modules); daskpki.open_store; print(*sys.modules)"
    imported, used = ({name.partition(".")[0] for name in line.split()} for line in _run(program).splitlines())
    assert imported.isdisjoint({"distributed", "dask", "google", "typer", "keyring", "cryptography"})
    assert "cryptography" in used
    assert used.isdisjoint({"distributed", "google", "typer", "keyring"})
