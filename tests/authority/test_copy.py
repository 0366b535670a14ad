"""A copy is the original: numbers, bytes, hashes; resumed after a fault, refused where something else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator import SecretManagerServer
from tests.support.command_stores import CLOUD
from tests.support.running import Run

WRITES = ("CreateSecret", "AddSecretVersion", "DestroySecretVersion")


@pytest.fixture
def lived_in(local: Run) -> Run:
    """A local cluster whose trust document has destroyed versions already."""
    local("init-ca", "--with", "scheduler,worker,client/alice,client/bob")
    local("renew", "worker")
    for name in ("client/alice", "client/bob", "scheduler"):
        local("revoke", name)
    return local


def same(one: Run, other: Run) -> None:
    for command in (("list",), ("audit",)):
        assert one(*command, "--json").json() == other(*command, "--json").json()


def test_a_cluster_moves_to_secret_manager_and_back(lived_in: Run, cloud: Run, tmp_path: Path) -> None:
    told = lived_in("copy", "--to", CLOUD, "--json").json()
    assert told["records"] == len(lived_in("audit", "--json").json())
    same(lived_in, cloud)
    cloud("audit", "--verify")
    cloud("export", "worker", "--out", str(tmp_path / "worker"))
    cloud("verify", str(tmp_path / "worker" / "cert.pem"))
    cloud("issue", "client", "--name", "carol")
    cloud("revoke", "worker")
    back = ("--key-file", str(tmp_path / "store.key"))
    cloud("copy", "--to", f"local:{tmp_path / 'back'}", *back)
    returned = ("--store", f"local:{tmp_path / 'back'}", *back)
    assert cloud("list", "--json").json() == cloud("list", "--json", *returned).json()
    cloud("audit", "--verify", *returned)


def test_a_copy_that_was_cut_off_is_resumed(lived_in: Run, cloud: Run, server: SecretManagerServer) -> None:
    for nth in (3, 9, 14, 20):
        fault = server.fail("*", nth=nth, times=None, http=403)
        lived_in("copy", "--to", CLOUD, code=5)
        server.faults.remove(fault)
    lived_in("copy", "--to", CLOUD)
    same(lived_in, cloud)
    server.reset_journal()
    lived_in("copy", "--to", CLOUD)  # nothing is left to copy
    assert not [entry.method for entry in server.requests() if entry.method in WRITES]
    lived_in("issue", "worker")
    lived_in("copy", "--to", CLOUD)
    same(lived_in, cloud)


def test_a_target_that_went_on_or_is_another_cluster_is_refused(lived_in: Run, cloud: Run) -> None:
    lived_in("--cluster", "other", "init-ca")
    cloud("--cluster", "other", "init-ca")
    assert "not a copy from here" in lived_in("--cluster", "other", "copy", "--to", CLOUD, code=1).err
    lived_in("copy", "--to", CLOUD)
    cloud("issue", "client", "--name", "carol")
    before = cloud("audit", "--json").json()
    assert "not a copy from here" in lived_in("copy", "--to", CLOUD, code=1).err
    assert cloud("audit", "--json").json() == before
    lived_in("--cluster", "absent", "copy", "--to", CLOUD, code=4)
    lived_in("copy", "--to", CLOUD, "--store", CLOUD, code=2)
