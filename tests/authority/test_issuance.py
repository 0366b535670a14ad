"""Many leaves by one command: in order, each with a key of its own, and an interrupted run can be repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from daskpki.identity import Role
from daskpki.pki.credential import Credential, parse_credential
from daskpki.pki.pem import fingerprint
from daskpki.pki.verify import key_fits
from daskpki.secret_names import credential_id
from daskpki.settings import LocalUrl
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.opening import open_store

COUNT = 230


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
    assert all(map(key_fits, keys, (credential.leaf for credential in kept)))
    assert len({key.reveal() for key in keys}) == COUNT


def test_an_interrupted_run_can_be_repeated(tmp_path: Path) -> None:
    subprocess.run(daskpki(tmp_path, "init-ca"), capture_output=True, check=True)
    issue = daskpki(tmp_path, "issue", "worker", "--name", "w", "--key-type", "rsa3072", "--count", str(COUNT))
    with subprocess.Popen(issue, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as running:
        while not listed(tmp_path):  # its first batch is reserved, so it is being signed
            assert running.poll() is None
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode != 0
    assert {leaf["state"] for leaf in listed(tmp_path)} <= {"reserved", "issued"}
    issue = daskpki(tmp_path, "issue", "worker", "--name", "w", "--count", str(COUNT))
    subprocess.run(issue, capture_output=True, check=True)
    assert sum(leaf["state"] == "issued" for leaf in listed(tmp_path)) == COUNT
