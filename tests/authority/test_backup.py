"""A backup is whole while others write, is restored nowhere over another store, and never passes for the present."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from daskpki.settings import GsmUrl, home
from daskpki.store.local.backup import read_backup
from daskpki.store.opening import open_store
from tests.emulator import SecretManagerServer
from tests.support.running import Run, runner


@pytest.fixture
def elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Commands on another directory, opened by the same key file."""
    return runner(capsys, "--store", f"local:{tmp_path / 'elsewhere'}", "--key-file", str(tmp_path / "store.key"))


def test_a_restored_store_is_the_same(local: Run, elsewhere: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "worker,client/alice")
    local("revoke", "client/alice")
    file = tmp_path / "one.backup"
    told = local("backup", str(file), "--json").json()
    assert told["clusters"]["default"]["records"] == len(local("audit", "--json").json())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.backup", "store", "store.key"]
    elsewhere("restore", str(file))
    for command in (("list",), ("audit",)):
        assert elsewhere(*command, "--json").json() == local(*command, "--json").json()
    elsewhere("audit", "--verify")
    elsewhere("export", "worker", "--out", str(tmp_path / "worker"))
    elsewhere("issue", "client", "--name", "bob")


def test_nothing_is_overwritten(local: Run, elsewhere: Run, tmp_path: Path) -> None:
    local("init-ca")
    file = tmp_path / "one.backup"
    local("backup", str(file))
    before = file.read_bytes()
    assert "exists" in local("backup", str(file), code=1).err
    assert file.read_bytes() == before
    assert "never restored over" in local("restore", str(file), code=1).err
    local("list")
    elsewhere("restore", str(file))
    (tmp_path / "elsewhere" / "store.db").unlink()
    (tmp_path / "elsewhere" / "store.db-wal").write_bytes(b"of another store")
    assert "store.db-wal" in elsewhere("restore", str(file), code=1).err
    elsewhere("backup", str(tmp_path / "two.backup"), code=4)


@pytest.mark.parametrize("store_id", ["../../victim", "/victim", "", "A" * 16])
def test_the_id_in_a_foreign_backup_is_no_path(local: Run, elsewhere: Run, tmp_path: Path, store_id: str) -> None:
    local("init-ca")
    file = tmp_path / "one.backup"
    local("backup", str(file))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE meta SET store_id = ?", (store_id,))
        connection.commit()
    (home(os.environ) / "seen").mkdir(exist_ok=True)
    victim = home(os.environ) / "seen" / f"{store_id}.json"
    victim.parent.mkdir(parents=True, exist_ok=True)
    if store_id.startswith("."):
        victim.write_text("mine")
    assert "has no valid store id" in elsewhere("restore", str(file), "--accept-older", code=3).err
    assert not (tmp_path / "elsewhere" / "store.db").exists()
    assert not store_id.startswith(".") or victim.read_text() == "mine"


def test_an_older_store_is_noticed_and_accepted_knowingly(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "worker")
    file = tmp_path / "old.backup"
    local("backup", str(file))
    local("revoke", "worker")
    shutil.rmtree(tmp_path / "store")
    refused = local("restore", str(file), code=3)
    assert "rolled back to an older state" in refused.err
    assert "--accept-older" in refused.err
    assert not (tmp_path / "store" / "store.db").exists()
    local("restore", str(file), "--accept-older")
    assert local("show", "worker", "--json").json()["state"] == "issued"
    local("revoke", "worker")
    local("audit", "--verify")


def test_a_store_that_was_put_back_by_hand_is_noticed(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "worker")
    shutil.copytree(tmp_path / "store", tmp_path / "old")
    local("revoke", "worker")
    shutil.rmtree(tmp_path / "store")
    shutil.move(tmp_path / "old", tmp_path / "store")
    for command in (("list",), ("show", "worker"), ("issue", "worker"), ("audit", "--verify")):
        assert "rolled back to an older state" in local(*command, code=3).err


def test_a_cluster_on_secret_manager_that_was_put_back_is_noticed(
    server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trust document and log together, so that neither tells that the other is old."""
    monkeypatch.setenv("DASKPKI_SECRET_MANAGER_ENDPOINT", f"grpc://{server.grpc_target}")
    run = runner(capsys, "--store", "gsm://my-project")
    run("init-ca", "--with", "worker")
    with closing(open_store(GsmUrl("my-project", None))) as store:
        ids = [f"daskpki_default_{kind}" for kind in ("trust", "records")]
        before = {secret: store.secrets.latest(secret).data for secret in ids}
        run("revoke", "worker")
        for secret, payload in before.items():
            labels = dict(store.secrets.describe(secret).labels)
            store.secrets.delete(secret)
            store.secrets.create(secret, labels=labels)
            store.secrets.add(secret, payload)
    for command in (("list",), ("show", "worker"), ("issue", "worker"), ("renew", "--due"), ("rotate-ca", "status")):
        refused = run(*command, code=3).err
        assert "rolled back to an older state" in refused
    (memory,) = (home(os.environ) / "seen").iterdir()
    assert f"rm {memory}" in refused
    memory.unlink()
    assert run("show", "worker", "--json").json()["state"] == "issued"
    run("revoke", "worker")
    run("audit", "--verify")


def test_a_damaged_backup_is_refused(local: Run, elsewhere: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "worker")
    file = tmp_path / "one.backup"
    local("backup", str(file))
    whole = file.read_bytes()
    for name, content, code in (
        ("torn", whole[: len(whole) // 2], 3),
        ("scribbled", whole[:8192] + os.urandom(16384) + whole[24576:], 3),
        ("foreign", b"SQLite format 3\0" + bytes(4096), 3),
        ("empty", b"", 3),
        ("newer", whole[:60] + (3).to_bytes(4, "big") + whole[64:], 3),
    ):
        damaged = tmp_path / f"{name}.backup"
        damaged.touch(0o600)
        damaged.write_bytes(content)
        refused = elsewhere("restore", str(damaged), code=code)
        assert name in refused.err
        assert not (tmp_path / "elsewhere" / "store.db").exists()
    assert "format 3" in refused.err
    assert "upgrade daskpki" in refused.err
    file.chmod(0o644)
    assert "chmod 600" in elsewhere("restore", str(file), code=5).err
    assert "no local store" in elsewhere("backup", str(tmp_path / "x"), "--store", "gsm://my-project", code=2).err


def test_backups_are_whole_while_others_write(local: Run, elsewhere: Run, tmp_path: Path) -> None:
    local("init-ca")
    common = ["--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "store.key"), "--quiet"]
    issue = [sys.executable, "-m", "daskpki", *common, "issue", "worker", "--count", "120"]
    heads: list[int] = []
    with subprocess.Popen(issue, stdout=subprocess.DEVNULL) as writer:
        while writer.poll() is None or not heads:
            file = tmp_path / f"{len(heads)}.backup"
            local("backup", str(file))
            heads.append(read_backup(file).heads["default"].seq)
        assert writer.returncode == 0
    assert heads == sorted(heads)
    elsewhere("restore", str(tmp_path / f"{len(heads) // 2}.backup"), "--accept-older")
    elsewhere("audit", "--verify")
