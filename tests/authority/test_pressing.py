"""Leaves signed by forked workers: in order, each with a key of its own, and none lost with a worker."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from contextlib import closing
from io import BytesIO
from pathlib import Path

from daskpki.authority.pressing import serve
from daskpki.identity import Role
from daskpki.naming import credential_id
from daskpki.pki.credential import Credential, parse_credential
from daskpki.pki.validate import fingerprint, key_matches
from daskpki.settings import LocalUrl
from daskpki.store.opening import Unlocking, open_store

COUNT = 230


def run(work: str, jobs: int = 10) -> subprocess.CompletedProcess[str]:
    """What the workers make of the jobs 0, 1, 2 ..., in a process of its own, since pytest's may have threads."""
    program = f"""
import json, os, signal
from daskpki.authority.pressing import Presses
parent = os.getpid()
{work}
with Presses(work) as presses:
    results = []
    for start in (0, {jobs}):
        presses.begin(list(range(start, start + {jobs})))
        results += presses.collect()
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print(json.dumps(results))
"""
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_results_keep_their_order_and_come_from_several_processes() -> None:
    done = run("work = lambda job: (job, os.getpid(), parent)")
    results = json.loads(done.stdout)
    assert [job for job, _, _ in results] == list(range(20))
    workers = {process for _, process, _ in results}
    assert len(workers) == min(4, len(os.sched_getaffinity(0)))
    assert workers.isdisjoint({parent for _, _, parent in results})


def test_what_a_killed_worker_left_is_done_by_its_parent() -> None:
    done = run("""
def work(job):
    if job == 7 and os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return job
""")
    assert json.loads(done.stdout) == list(range(20))


def test_an_error_is_raised_where_the_results_are_asked_for() -> None:
    done = run("""
def work(job):
    if job == 3:
        raise ValueError("three")
    return job
""")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: three\n")


def test_forked_workers_make_different_keys() -> None:
    """OpenSSL's generator notices a fork; if it did not, the workers would all make the same keys."""
    done = run("""
from daskpki.pki.keys import KeyType, generate_key, serialize_key
from hashlib import sha256
generate_key(KeyType.P256)
work = lambda job: sha256(serialize_key(generate_key(KeyType.P256)).reveal()).hexdigest()
""")
    assert len(set(json.loads(done.stdout))) == 20


def test_a_worker_answers_until_there_are_no_more_jobs() -> None:
    inbox, outbox = BytesIO(pickle.dumps([1, 2]) + pickle.dumps([0, 1])), BytesIO()
    serve(_divide, inbox, outbox)
    assert outbox.getvalue() == pickle.dumps([2, 1]) + pickle.dumps(None)  # it failed, and the parent does it again


def _divide(job: int) -> int:
    return 2 // job


def daskpki(home: Path, *arguments: str) -> list[str]:
    store = ["--store", f"local:{home / 'store'}", "--key-file", str(home / "key")]
    return [sys.executable, "-m", "daskpki", *store, *arguments]


def listed(home: Path) -> list[dict[str, str]]:
    done = subprocess.run(daskpki(home, "--json", "list"), capture_output=True, check=True)
    return list(json.loads(done.stdout))


def credentials(home: Path) -> list[Credential]:
    url, unlock = LocalUrl(home / "store"), Unlocking(key_file=home / "key")
    with closing(open_store(url, unlock=unlock)) as store:
        secrets = [credential_id("default", Role.WORKER, f"w-{number}") for number in range(COUNT)]
        return [parse_credential(store.secrets.latest(secret).data) for secret in secrets]


def test_many_leaves_are_issued_each_with_its_own_key(tmp_path: Path) -> None:
    subprocess.run(daskpki(tmp_path, "init-ca"), capture_output=True, check=True)
    issue = daskpki(tmp_path, "issue", "worker", "--name", "w", "--count", str(COUNT))
    done = subprocess.run(issue, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    leaves = listed(tmp_path)
    assert [leaf["name"] for leaf in leaves] == [f"w-{number}" for number in range(COUNT)]
    assert {leaf["state"] for leaf in leaves} == {"issued"}
    assert len({leaf["fingerprint"] for leaf in leaves}) == COUNT
    kept = credentials(tmp_path)
    assert [credential.identity.name for credential in kept] == [leaf["name"] for leaf in leaves]
    assert [fingerprint(credential.leaf) for credential in kept] == [leaf["fingerprint"] for leaf in leaves]
    keys = [credential.key for credential in kept if credential.key is not None]
    assert all(map(key_matches, keys, (credential.leaf for credential in kept)))
    assert len({key.reveal() for key in keys}) == COUNT


def test_an_interrupted_run_leaves_no_workers_and_goes_on(tmp_path: Path) -> None:
    subprocess.run(daskpki(tmp_path, "init-ca"), capture_output=True, check=True)
    issue = daskpki(tmp_path, "issue", "worker", "--name", "w", "--key-type", "rsa3072", "--count", str(COUNT))
    with subprocess.Popen(issue, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running:
        while not listed(tmp_path):  # its first batch is reserved, so it is being signed
            assert running.poll() is None
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=60)  # the pipes are closed once no worker holds them
    assert running.returncode != 0
    assert {leaf["state"] for leaf in listed(tmp_path)} <= {"reserved", "issued"}
    issue = daskpki(tmp_path, "issue", "worker", "--name", "w", "--count", str(COUNT))
    subprocess.run(issue, capture_output=True, check=True)
    assert sum(leaf["state"] == "issued" for leaf in listed(tmp_path)) == COUNT
