"""What a boot finds around it, and two ways to boot: in this process with exec recorded, or as a real process."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from daskpki import secret_names
from daskpki.boot.launch import boot
from daskpki.handover import VARIABLE, Handover, load_handover
from daskpki.identity import parse_slug
from daskpki.pki.credential import encode_credential
from daskpki.settings import LocalUrl
from daskpki.store.local.key_slots import Unlocking
from tests.emulator.metadata import MetadataServer
from tests.emulator.server import SecretManagerServer
from tests.support.local_places import create_store
from tests.support.material import Cluster

ENTRYPOINT = (sys.executable, "-m", "daskpki.boot")
PROJECT = "test-project"
TOKEN_PATH = "instance/service-accounts/default/token"


@dataclass
class Cloud:
    server: SecretManagerServer
    metadata: MetadataServer
    cluster: Cluster
    parent: str = f"projects/{PROJECT}"

    @property
    def environ(self) -> dict[str, str]:
        return {
            **plain_environ(),
            **self.metadata.environment,
            "DASKPKI_STORE": "gsm://" + self.parent.removeprefix("projects/").replace("/locations/", "/"),
            "DASKPKI_CLUSTER": self.cluster.name,
            "DASKPKI_SECRET_MANAGER_ENDPOINT": self.server.rest_url,
            "DASKPKI_DEADLINE": "20",
        }

    def secret(self, kind: str) -> str:
        return f"{self.parent}/secrets/daskpki_{self.cluster.name}_{kind}"

    @property
    def requests(self) -> list[str]:
        """What Secret Manager was asked for, such as `trust/versions/2`."""
        prefix = f"daskpki_{self.cluster.name}_"
        return [entry.path.partition(prefix)[2].removesuffix(":access") for entry in self.server.requests()]


@contextmanager
def serve_cloud(cluster: Cluster) -> Iterator[Cloud]:
    """Secret Manager with that cluster's secrets, and a metadata server whose tokens it takes."""
    with SecretManagerServer() as server, MetadataServer(server.tokens) as metadata:
        cloud = Cloud(server, metadata, cluster)
        cluster.seed(server, cloud.parent)
        yield cloud


@dataclass
class Recorder:
    """In the place of os.execve: what would have been started, with the handover as the program would have read it."""

    command: str = ""
    argv: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    handover: Handover | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, command: str, argv: list[str], environ: dict[str, str]) -> None:
        self.command, self.argv, self.environ = command, argv, environ
        self.handover = load_handover(environ[VARIABLE])
        for name in ("cert", "key", "ca", "trust"):
            self.files[name] = Path(getattr(self.handover, name)).read_bytes()

    @property
    def started(self) -> bool:
        return bool(self.argv)


def boot_here(environ: Mapping[str, str], *argv: str) -> Recorder:
    """Boot in this process up to the exec, which is recorded; raises what the boot raises."""
    recorder = Recorder()
    boot(argv, environ, recorder)
    return recorder


def plain_environ(**more: str) -> dict[str, str]:
    """This process's environment without anything that says how to boot."""
    ours = ("DASK", "GOOGLE_", "GCE_", "CLOUDSDK_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    return {**kept, **more}


def run_entrypoint(
    environ: Mapping[str, str], *argv: str, timeout: float = 60, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The entrypoint as a process of its own, to its end."""
    return subprocess.run(
        [*prefix, *ENTRYPOINT, *argv], env=dict(environ), capture_output=True, text=True, timeout=timeout, check=False
    )


def fill(cluster: Cluster, directory: Path, key_file: Path) -> dict[str, str]:
    """A local store with the cluster in it; the environment that opens it."""
    environ = plain_environ(
        DASKPKI_STORE=f"local:{directory}", DASKPKI_KEY_FILE=str(key_file), DASKPKI_CLUSTER=cluster.name
    )
    store = create_store(LocalUrl(directory), unlock=Unlocking(key_file=key_file), environ=environ)
    for slug, credential in cluster.credentials.items():
        role, name = parse_slug(slug)
        secret = secret_names.credential_id(cluster.name, role, name)
        store.secrets.create(secret, labels=secret_names.labels(cluster.name, role.value, name))
        store.secrets.add(secret, encode_credential(credential, 1))
    store.secrets.create(
        secret_names.trust_id(cluster.name), labels=secret_names.labels(cluster.name, secret_names.TRUST)
    )
    store.secrets.add(secret_names.trust_id(cluster.name), cluster.trust)
    store.close()
    return environ


@functools.cache
def _accounts_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def service_account(path: Path, token_uri: str) -> Path:
    info = {"type": "service_account", "client_email": "w@p.iam.gserviceaccount.com", "private_key": _accounts_key()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(info | {"token_uri": token_uri, "private_key_id": "1"}))
    return path
