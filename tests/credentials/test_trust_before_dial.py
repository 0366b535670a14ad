"""A client that holds a credential from a store looks there for a newer trust document when it dials."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import daskpki
from daskpki.cluster.push import push_trust
from daskpki.confidential import Confidential
from daskpki.credentials.contexts import NewestTrust
from daskpki.credentials.credential_files import export_directory
from daskpki.credentials.login import login, logout
from daskpki.credentials.sources import Environment
from daskpki.identity import Role
from daskpki.store.local.store import LocalStore
from tests.support.boot_cloud import plain_environ
from tests.support.booted import running
from tests.support.desktop import Desktop
from tests.support.login_material import Founded
from tests.support.ports import free_port


def test_a_newer_document_of_the_store_holds_once_a_client_dials(
    store: LocalStore, founded: Founded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASKPKI_KEY_FILE", str(tmp_path / "store.key"))
    monkeypatch.setenv("DASKPKI_HOME", str(tmp_path / "home"))
    enforcement = daskpki.security("alice", store=f"local:{tmp_path / 'store'}").enforcement(Role.CLIENT)
    before = enforcement.trust.epoch
    founded.publish(store.secrets)
    dialling = enforcement.on_dial
    assert dialling is not None

    async def dial() -> None:
        await dialling.begin()
        await dialling.finish()

    asyncio.run(dial())
    assert enforcement.trust.epoch == before + 1
    assert len(list((tmp_path / "home" / "trust").iterdir())) == 1


ASKS = """
import sys
from distributed.client import _maybe_call_security_loader
from daskpki.identity import Role
print(_maybe_call_security_loader(sys.argv[1]).enforcement(Role.CLIENT).trust.epoch)
"""

CONNECTS = (
    ASKS
    + """
from dask.distributed import Client
with Client(sys.argv[1], timeout=60) as client:
    while client.security.enforcement(Role.CLIENT).trust.epoch < 2:
        client.nthreads()
"""
)


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_what_a_scheduler_pushed_to_one_program_holds_in_the_next(
    founded: Founded, store: LocalStore, here: Environment, session: Desktop, tmp_path: Path
) -> None:
    """The login has the older document throughout, each program asks before it dials, and the last dials nobody."""
    export_directory(founded.hold(founded.issue(Role.SCHEDULER, "scheduler")), tmp_path / "scheduler")
    admin = founded.hold(founded.issue(Role.CLIENT, "admin"))
    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    login(store, "default", "alice", [address], here)
    alice = dict(here.environ) | {"DBUS_SESSION_BUS_ADDRESS": session.environ["DBUS_SESSION_BUS_ADDRESS"]}

    def run(program: str) -> str:
        command = [sys.executable, "-c", program, address]
        done = subprocess.run(command, env=alice, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    dask = ("--port", str(port), "--dashboard-address", "127.0.0.1:0")
    environ = plain_environ(DASKPKI_CREDENTIAL_DIR=str(tmp_path / "scheduler"))
    with running(environ, tmp_path / "scheduler.log", "scheduler", "--", *dask):
        assert run(CONNECTS) == "1\n"
        (answer,) = push_trust([address], admin, admin.signed)
        assert answer.taken, answer
        assert run(CONNECTS.replace("< 2", "< 3")) == "2\n", "the scheduler's own"
    assert run(ASKS) == "3\n"
    logout(here, here.contexts.all())
    assert not (here.contexts.directory.parent / "trust").exists()


def test_what_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    kept = NewestTrust(tmp_path, "a-login")
    assert kept.load() is None
    kept.keep(Confidential(b"signed"))
    kept.keep(Confidential(b"signed later"))
    assert kept.load() == Confidential(b"signed later")
    kept.forget()
    kept.forget()
    assert list(tmp_path.iterdir()) == []
