"""Servers that the benchmarks start on loopback, and stop again: cfssl, OpenBao, and the project's own test servers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_DEADLINE: Final = 30


# cfssl 1.2's certdb/sqlite/migrations/001_CreateCertificates.sql
_CERTDB: Final = """
CREATE TABLE certificates (
    serial_number blob NOT NULL, authority_key_identifier blob NOT NULL, ca_label blob, status blob NOT NULL,
    reason int, expiry timestamp, revoked_at timestamp, pem blob NOT NULL,
    PRIMARY KEY (serial_number, authority_key_identifier)
);
CREATE TABLE ocsp_responses (
    serial_number blob NOT NULL, authority_key_identifier blob NOT NULL, body blob NOT NULL, expiry timestamp,
    PRIMARY KEY (serial_number, authority_key_identifier),
    FOREIGN KEY (serial_number, authority_key_identifier)
        REFERENCES certificates (serial_number, authority_key_identifier)
);
"""


@contextmanager
def cfssl(program: Path, directory: Path, *, recording: bool = False) -> Iterator[str]:
    """`cfssl serve` with a P-256 CA; yields the URL that makes a key and a certificate.

    `recording` lets it keep certificates in its SQLite database.
    """
    directory.mkdir()
    (directory / "csr.json").write_text('{"CN": "benchmark CA", "key": {"algo": "ecdsa", "size": 256}}')
    made = json.loads(_output([program, "gencert", "-initca", directory / "csr.json"]))
    (directory / "ca.pem").write_text(made["cert"])
    (directory / "key.pem").write_text(made["key"])
    usages = ["digital signature", "server auth", "client auth"]
    config = {"signing": {"default": {"expiry": "720h", "usages": usages}}}
    (directory / "config.json").write_text(json.dumps(config))
    port = _free_port()
    files = {"-ca": "ca.pem", "-ca-key": "key.pem", "-config": "config.json"}
    options = [word for option, name in files.items() for word in (option, directory / name)]
    if recording:
        with contextlib.closing(sqlite3.connect(directory / "certificates.db")) as database:
            database.executescript(_CERTDB)
        settings = {"driver": "sqlite3", "data_source": str(directory / "certificates.db")}
        (directory / "database.json").write_text(json.dumps(settings))
        options += ["-db-config", directory / "database.json"]
    command = [program, "serve", "-address", "127.0.0.1", "-port", str(port), "-loglevel", "4", *options]
    with _running(command, {}):
        url = f"http://127.0.0.1:{port}/api/v1/cfssl"
        _await(f"{url}/info", b'{"label": ""}')
        yield f"{url}/newcert"


@contextmanager
def openbao(program: Path, directory: Path) -> Iterator[Mapping[str, str]]:
    """OpenBao in dev mode (in memory, unsealed) with a P-256 CA and a role; yields the environment of its clients."""
    directory.mkdir()
    url = f"http://127.0.0.1:{_free_port()}"
    client = {"BAO_ADDR": url, "BAO_TOKEN": "benchmark", "HOME": str(directory)}
    listen = [f"-dev-listen-address={url.removeprefix('http://')}", f"-dev-root-token-id={client['BAO_TOKEN']}"]
    with _running([program, "server", "-dev", "-log-level=error", *listen], client):
        _await(f"{url}/v1/sys/health")
        _make_ca(program, client)
        yield client


@contextmanager
def durable_openbao(program: Path, directory: Path) -> Iterator[Mapping[str, str]]:
    """The same with integrated storage (raft) in `directory`, so that what it answered survives."""
    directory.mkdir()
    listener, peers = (f"127.0.0.1:{_free_port()}" for _ in range(2))
    client = {"BAO_ADDR": f"http://{listener}", "HOME": str(directory)}
    (directory / "bao.hcl").write_text(
        f'storage "raft" {{\n  path = "{directory}"\n  node_id = "one"\n}}\n'
        f'listener "tcp" {{\n  address = "{listener}"\n  cluster_address = "{peers}"\n  tls_disable = true\n}}\n'
        f'api_addr = "http://{listener}"\ncluster_addr = "http://{peers}"\n'
    )
    with _running([program, "server", "-log-level=error", f"-config={directory / 'bao.hcl'}"], client):
        _await(f"http://{listener}/v1/sys/seal-status")
        shares = ["-key-shares=1", "-key-threshold=1", "-format=json"]
        made = json.loads(_output([program, "operator", "init", *shares], client))
        _output([program, "operator", "unseal", made["unseal_keys_b64"][0]], client)
        client["BAO_TOKEN"] = made["root_token"]
        _await(f"http://{listener}/v1/sys/health")
        _make_ca(program, client)
        yield client


def _make_ca(program: Path, client: Mapping[str, str]) -> None:
    for words in (
        ["secrets", "enable", "pki"],
        ["secrets", "tune", "-max-lease-ttl=87600h", "pki"],
        ["write", "pki/root/generate/internal", "common_name=benchmark CA", "key_type=ec", "ttl=87600h"],
        ["write", "pki/roles/worker", "key_type=ec", "key_bits=256", "allow_any_name=true", "max_ttl=720h"],
    ):
        _output([program, *words], client)


@contextmanager
def secret_manager(project: str) -> Iterator[Mapping[str, str]]:
    """The test servers of tests/servers in a process of their own; yields the environment that points there.

    It has a home of its own, since what this user has seen of other servers does not count for these.
    """
    command = [sys.executable, "-m", "tests.emulator", "--project", project, "--exit-with-stdin"]
    with (
        tempfile.TemporaryDirectory(prefix="daskpki-bench-home-") as home,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None, "it was asked for"
        addresses: dict[str, Any] = json.loads(process.stdout.readline())
        yield {
            "DASKPKI_SECRET_MANAGER_ENDPOINT": addresses["rest_url"],
            "GCE_METADATA_HOST": addresses["metadata_host"],
            "GCE_METADATA_IP": addresses["metadata_host"],
            "GRPC_TARGET": addresses["grpc_target"],
            "DASKPKI_HOME": home,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"{addresses['rest_url']}/",
        }
        process.communicate()


@contextmanager
def _running(command: Sequence[str | Path], environment: Mapping[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(_DEADLINE)


def _await(url: str, body: bytes | None = None) -> None:
    deadline = time.monotonic() + _DEADLINE
    while True:
        try:
            urllib.request.urlopen(url, body, timeout=1).close()  # noqa: S310 - loopback, http
        except (urllib.error.URLError, ConnectionError) as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{url} did not come up: {error}") from error
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _output(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> bytes:
    result = subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, check=True)
    return result.stdout
