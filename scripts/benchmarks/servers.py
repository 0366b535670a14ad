"""Servers that the benchmarks start on loopback, and stop again: cfssl, OpenBao, and the project's own test servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_DEADLINE: Final = 30
BAO_TOKEN: Final = "benchmark"


@contextmanager
def cfssl(program: Path, directory: Path) -> Iterator[str]:
    """`cfssl serve` with a P-256 CA; yields the URL that makes a key and a certificate."""
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
    client = {"BAO_ADDR": url, "BAO_TOKEN": BAO_TOKEN, "HOME": str(directory)}
    listen = [f"-dev-listen-address={url.removeprefix('http://')}", f"-dev-root-token-id={BAO_TOKEN}"]
    with _running([program, "server", "-dev", "-log-level=error", *listen], client):
        _await(f"{url}/v1/sys/health")
        for words in (
            ["secrets", "enable", "pki"],
            ["secrets", "tune", "-max-lease-ttl=87600h", "pki"],
            ["write", "pki/root/generate/internal", "common_name=benchmark CA", "key_type=ec", "ttl=87600h"],
            ["write", "pki/roles/worker", "key_type=ec", "key_bits=256", "allow_any_name=true", "max_ttl=720h"],
        ):
            _output([program, *words], client)
        yield client


@contextmanager
def secret_manager(project: str) -> Iterator[Mapping[str, str]]:
    """The test servers of tests/servers in a process of their own; yields the environment that points there."""
    command = [sys.executable, "-m", "tests.servers", "--project", project, "--exit-with-stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it was asked for"
        addresses: dict[str, Any] = json.loads(process.stdout.readline())
        yield {
            "DASKPKI_SECRET_MANAGER_ENDPOINT": addresses["rest_url"],
            "GCE_METADATA_HOST": addresses["metadata_host"],
            "GCE_METADATA_IP": addresses["metadata_host"],
            "GRPC_TARGET": addresses["grpc_target"],
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
