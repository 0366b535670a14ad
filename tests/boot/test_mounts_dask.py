"""Tasks on a real cluster read a mounted secret, and it is in no environment, argument or temporary file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from tests.support.boot_cloud import Cloud
from tests.support.booted import running
from tests.support.key_search import Canary
from tests.support.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

VALUE = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(20, 32))
ASK = """
import hashlib, sys
import daskpki
from dask.distributed import Client

def digest(name):
    return hashlib.sha256(daskpki.secret(name)).hexdigest()

def refusal(name):
    try:
        daskpki.secret(name)
    except Exception as error:
        return f"{error} ({error.hint})"

with Client(sys.argv[1], security=daskpki.security()) as client:
    print(client.submit(digest, "db-password").result(timeout=60))
    client.restart()  # a nanny's new worker process finds it as well
    print(client.submit(digest, "db-password", pure=False).result(timeout=60))
    print(client.submit(refusal, "token").result(timeout=60))
"""


def test_a_task_reads_a_secret_that_is_nowhere_else(cloud: Cloud, directory: Path, tmp_path: Path) -> None:
    for name, value in (("db-password", VALUE), ("token", b"another")):
        secret = f"{cloud.parent}/secrets/{secret_names.user_secret_id(cloud.cluster.name, name)}"
        cloud.server.seed(secret, value, labels=cloud.cluster.labels(secret_names.SECRET, name))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    port = free_port()
    options = {"TMPDIR": str(temporary), "NUM_WORKERS": "1", "DASKPKI_SCHEDULER": f"tls://127.0.0.1:{port}"}
    environ = {**cloud.environ, **options, "DASKPKI_SECRETS": "db-password=fd"}
    log = tmp_path / "log"
    with running(environ, log, "node", "--", "--dashboard-address", "127.0.0.1:0"):
        asked = subprocess.run(
            [sys.executable, "-c", ASK, f"tls://127.0.0.1:{port}"],
            env={**cloud.environ, "DASKPKI_CREDENTIAL_DIR": str(directory / "client")},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr + log.read_text()
        canary = Canary({"db-password": Confidential(VALUE)})
        assert canary.in_processes() == []
        assert canary.in_files([temporary]) == []
        assert canary.in_bytes("log", log.read_bytes()) == []
    first, second, refused = asked.stdout.splitlines()
    assert first == second == hashlib.sha256(VALUE).hexdigest()
    assert "mounted are: db-password" in refused
    assert "--secret token=fd" in refused
