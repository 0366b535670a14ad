"""`daskpki status` in five lines, and what the shell completes."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pexpect
import pytest

from daskpki.credentials.contexts import Context, Contexts
from tests.support.listeners import Talk, listening, over_tls
from tests.support.material import make_cluster
from tests.support.running import Run

BIN = Path(sys.executable).parent
DASKPKI = str(BIN / "daskpki")


def test_five_lines_say_how_the_cluster_is(local: Run) -> None:
    local("init-ca", "--with", "scheduler,worker,client/alice")
    local("issue", "worker", "short", "--ttl", "2h")
    before = local("status").out.splitlines()
    assert [line.split()[0] for line in before] == ["CA", "expires", "revoked", "trust", "scheduler"]
    assert "worker/short in 2 hours" in before[1]
    assert before[2].split() == ["revoked", "nobody"]
    local("revoke", "worker/short", "--no-push")
    document = local("--json", "status").json()
    assert document["revoked"] == ["worker/short"]
    assert document["next"][0]["who"] in {"worker/worker", "client/alice"}
    assert document["trust"]["crlUntil"] > datetime.now(UTC).timestamp()
    assert document["schedulers"] == {}


def announce(port: int, tmp_path: Path) -> str:
    from daskpki import CertificateAuthority
    from daskpki.settings import LocalUrl
    from daskpki.store.local.key_slots import Unlocking
    from daskpki.store.opening import open_store

    address = f"tls://127.0.0.1:{port}"
    store = open_store(LocalUrl(tmp_path / "store"), unlock=Unlocking(key_file=tmp_path / "store.key"))
    CertificateAuthority(store).announce(address)
    store.close()
    return address


def silent(connection: socket.socket) -> None:
    while connection.recv(1 << 20):
        pass


def test_a_scheduler_is_reached_or_not(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "scheduler")
    local("export", "scheduler/scheduler", "--out", str(tmp_path / "scheduler"))
    with listening(over_tls(tmp_path / "scheduler", demand=True)) as port:
        address = announce(port, tmp_path)
        assert local("--json", "status").json()["schedulers"] == {address: True}
        assert f"{address} answers\n" in local("status").out
    assert f"{address} does not answer" in local("status").out


def test_a_listener_that_is_no_scheduler_of_this_cluster_is_told(local: Run, tmp_path: Path) -> None:
    """Another cluster's scheduler, one that speaks no TLS, and one that says nothing."""
    local("init-ca")
    make_cluster().export("scheduler/scheduler", tmp_path / "other")
    talks: list[tuple[Talk, str]] = [
        (over_tls(tmp_path / "other", demand=True), "its certificate is not valid for a scheduler of cluster default"),
        (lambda connection: connection.sendall(b"HTTP/1.0 400 Bad Request\r\n"), "the listener does not speak TLS"),
        (silent, "no certificate in time"),
    ]
    for talk, words in talks:
        with listening(talk) as port:
            address = announce(port, tmp_path)
            if talk is not silent:  # which is waited for each time
                assert local("--json", "status").json()["schedulers"][address] is False
            said = next(line for line in local("status").out.split("; ") if address in line)
        assert f"{address} answers, but" in said
        assert words in said


def test_a_logins_scheduler_is_asked_too(local: Run, tmp_path: Path) -> None:
    local("init-ca")
    contexts = Contexts(Path(os.environ["DASKPKI_HOME"]))
    with contexts.locked():
        for store, port in ((f"local:{tmp_path / 'store'}", 1), ("local:/another", 2)):
            login = Context(store, "default", "alice", (f"tls://127.0.0.1:{port}",), b"x", (), b"x")
            contexts.write(contexts.saved(login))
    assert local("--json", "status").json()["schedulers"] == {"tls://127.0.0.1:1": False}


def complete(line: str, **variables: str) -> list[str]:
    """What bash is told for the last word of a line, within 300 ms of processor time: load does not change it much."""
    words = line.split(" ")
    asked = {"_DASKPKI_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [DASKPKI], env={**os.environ, **asked, **variables}, capture_output=True, text=True, timeout=60, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & HEAVY
    assert len(loaded) < MOST_MODULES
    return done.stdout.split()


HEAVY = {"asyncio", "cryptography", "dask", "distributed", "google", "grpc", "keyring", "pydantic", "rich", "ssl"}
MOST_MODULES = 240
TRACED = {"PYTHONPROFILEIMPORTTIME": "1"}
"""Has Python name each module that it loads on standard error."""


def test_names_of_a_local_store_are_completed_without_opening_it(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "scheduler,client/alice,client/ben")
    here = {"DASKPKI_STORE": f"local:{tmp_path / 'store'}", "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    for command in ("show", "revoke", "renew", "export"):
        assert complete(f"daskpki {command} cli", **here) == ["client/alice", "client/ben"]
    assert complete("daskpki show worker/", **here) == []
    assert complete("daskpki show client/b", **here, **TRACED) == ["client/ben"]
    assert complete(f"daskpki --store local:{tmp_path / 'store'} show client/b") == ["client/ben"]


@pytest.mark.parametrize("store", ["gsm://my-project", "local:/nowhere", "nonsense"])
def test_other_stores_are_not_asked(store: str) -> None:
    """Nobody listens at the endpoint: a call would fail, and take its time."""
    assert complete("daskpki show cl", DASKPKI_STORE=store, DASKPKI_SECRET_MANAGER_ENDPOINT="http://127.0.0.1:9") == []


def test_logins_are_completed() -> None:
    contexts = Contexts(Path(os.environ["DASKPKI_HOME"]))
    with contexts.locked():
        for name in ("alice", "ben"):
            contexts.write(contexts.saved(Context("local:/s", "lab", name, (), b"x", (), b"x")))
    for command in ("context use", "context remove", "logout"):
        assert complete(f"daskpki {command} lab/a", **TRACED) == ["lab/alice"]


def test_the_tab_key_completes_in_bash(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "client/alice,client/ben")
    here = {"DASKPKI_STORE": f"local:{tmp_path / 'store'}", "PATH": f"{BIN}:{os.environ['PATH']}", "PS1": "> "}
    bash = pexpect.spawn(
        "bash", ["--norc", "--noprofile"], env={**os.environ, **here}, timeout=30, encoding="utf-8", dimensions=(9, 99)
    )
    bash.sendline('eval "$(daskpki --show-completion)"; echo defi""ned')
    bash.expect("defined")
    bash.send("daskpki show client/b\t")
    bash.expect("client/ben ")
    bash.sendline()
    bash.expect("CA generation 1")  # what the completed command prints
    bash.close()
