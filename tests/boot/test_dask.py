"""Real Dask, started by the real entrypoint: it computes, ends when asked, and its keys lie nowhere but in memory."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.boot_cloud import Cloud, plain_environ
from tests.support.booted import child_of, children_of, compute, running
from tests.support.key_search import Canary
from tests.support.material import Cluster
from tests.support.ports import free_port
from tests.support.sandbox import AS_ROOT, LOOPBACK_UP, OWN_MACHINE, for_every_user

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def canary(cluster: Cluster) -> Canary:
    return Canary({slug: each.key for slug, each in cluster.credentials.items() if each.key is not None})


def test_scheduler_and_worker_boot_from_secret_manager_compute_and_end(
    cloud: Cloud, directory: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    port = free_port()
    environ = cloud.environ | {"TMPDIR": str(temporary), "DASKPKI_SCHEDULER": f"tls://127.0.0.1:{port}"}
    logs = tmp_path / "scheduler.log", tmp_path / "worker.log"
    with (
        running(environ, logs[0], "scheduler", "--", "--port", str(port), "--dashboard-address", "127.0.0.1:0") as one,
        running(environ | {"THREADS_PER_WORKER": "1", "NUM_WORKERS": "1"}, logs[1], "worker") as two,
    ):
        assert "42" in compute(directory / "client", port, workers=1)
        searched = canary(cloud.cluster)
        assert searched.in_processes() == []
        assert searched.in_files([temporary, Path.home(), *_dask_directories(tmp_path)]) == []
        assert [found for log in logs for found in searched.in_bytes(log.name, log.read_bytes())] == []
        two.terminate()
        assert two.wait(30) == 0
        one.terminate()
        assert one.wait(30) == 0


def _dask_directories(tmp_path: Path) -> list[Path]:
    return [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "credentials"]


def test_the_same_search_finds_a_planted_key(cluster: Cluster, tmp_path: Path) -> None:
    searched = canary(cluster)
    key = cluster.credentials["worker/worker"].key
    assert key is not None
    planted = key.reveal().hex()
    with subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()", planted],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=plain_environ(PLANTED=planted),
    ) as process:
        assert process.stdout
        process.stdout.readline()
        places = {finding.place.rpartition("/")[2] for finding in searched.in_processes()}
        process.kill()
    assert places == {"cmdline", "environ"}
    (tmp_path / "dask.pem").write_bytes(key.reveal())
    assert searched.in_files([tmp_path])


@pytest.mark.long
def test_a_node_as_pid_1_of_a_machine_of_its_own(directory: Path, tmp_path: Path) -> None:
    environ = plain_environ(
        DASKPKI_CREDENTIAL_DIR=str(directory),
        NUM_WORKERS="2",
        THREADS_PER_WORKER="1",
        MEMORY_PER_WORKER="0.5",
        DASKPKI_HEALTH="0.0.0.0:8788",
    )
    log = tmp_path / "node.log"
    prefix = (*OWN_MACHINE, "sh", "-c", LOOPBACK_UP, "sh")
    with running(environ, log, "node", prefix=prefix) as outer:
        inside = ("nsenter", "--target", str(child_of(outer.pid)), "--net", "--mount", "--pid")
        said = compute(directory / "client", 8786, workers=2, prefix=inside)
        assert "42" in said
        subprocess.run([*inside, sys.executable, "-m", "daskpki.health"], env=environ, check=True)
        os.kill(child_of(outer.pid), signal.SIGTERM)
        assert outer.wait(30) == 0, log.read_text()
    told = [line for line in log.read_text().splitlines() if line.startswith("daskpki-entrypoint: ")]
    assert told[-2:] == [
        "daskpki-entrypoint: worker ended with status 0",
        "daskpki-entrypoint: scheduler ended with status 0",
    ]


@pytest.mark.long
def test_a_dead_scheduler_ends_the_node_with_its_status(directory: Path, tmp_path: Path) -> None:
    port = free_port()
    environ = plain_environ(
        DASKPKI_CREDENTIAL_DIR=str(directory), NUM_WORKERS="1", DASKPKI_SCHEDULER=f"tls://127.0.0.1:{port}"
    )
    with running(environ, tmp_path / "node.log", "node", "--", "--dashboard-address", "127.0.0.1:0") as process:
        assert "42" in compute(directory / "client", port, workers=1)
        scheduler = next(each for each in children_of(process.pid) if b"scheduler" in _command_line(each))
        os.kill(scheduler, signal.SIGKILL)
        assert process.wait(40) == 128 + signal.SIGKILL


def test_the_workers_of_a_node_run_as_another_user_with_descriptors_of_their_own(
    directory: Path, tmp_path: Path
) -> None:
    port = free_port()
    environ = plain_environ(
        DASKPKI_CREDENTIAL_DIR=str(directory), NUM_WORKERS="1", DASKPKI_SCHEDULER=f"tls://127.0.0.1:{port}"
    )
    prefix = (*AS_ROOT, "unshare", "--mount", "sh", "-c", for_every_user(), "sh")
    with running(environ, tmp_path / "n.log", "node", "--worker-user", "nobody", prefix=prefix) as process:
        said = compute(directory / "client", port, workers=1)
        assert f"worker uid {pwd.getpwnam('nobody').pw_uid}" in said
        assert "scheduler uid 0" in said
        keys = {_keys_held(each) for each in children_of(process.pid)}
        assert keys == {1}
        assert _keys_held(process.pid) == 0


def _keys_held(process: int) -> int:
    """How many private keys this process has descriptors of."""
    names = [str(entry.readlink()) for entry in Path(f"/proc/{process}/fd").iterdir()]
    return sum("daskpki-key" in name for name in names)


def _command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()
