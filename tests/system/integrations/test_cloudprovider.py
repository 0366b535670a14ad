"""dask-cloudprovider's GCPCluster: VMs that boot themselves, and no key in what Google is sent."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import dask.config
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dask_cloudprovider.gcp import instances as stock
from distributed import Client, Security

from daskpki.cloudprovider import GCPCluster
from daskpki.cluster.security import PkiSecurity
from daskpki.errors import PolicyError, UsageError
from daskpki.identity import Role
from daskpki.pki.credential import certificate_pem, key_pem
from tests.boot.test_dask import free_port
from tests.emulator.server import SecretManagerServer
from tests.support.compute_engine import IMAGE, ComputeEngine
from tests.support.key_search import Canary
from tests.support.material import Cluster
from tests.system.integrations.conftest import ACCOUNTS

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("configuration")]

PLACE: dict[str, Any] = {"projectid": "test-project", "zone": "us-east1-c", "scheduler_ngpus": 0, "worker_ngpus": 0}
OURS: dict[str, Any] = {
    **PLACE,
    "store": "gsm://test-project",
    "docker_image": IMAGE,
    "scheduler_service_account": ACCOUNTS[Role.SCHEDULER],
    "worker_service_account": ACCOUNTS[Role.WORKER],
}


def login(engine: ComputeEngine, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Google's client library pointed at the engine, and a service account's key to log in with."""
    build = functools.partial(
        stock.googleapiclient.discovery.build, client_options={"api_endpoint": f"{engine.url}/compute/v1/"}
    )
    monkeypatch.setattr(stock.googleapiclient.discovery, "build", build)
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"private_key": pem, "client_email": "me@example.com", "token_uri": f"{engine.url}/token"}
    return {"service_account_credentials": account}


def test_vms_boot_themselves_and_compute(
    alice: PkiSecurity,
    secrets: SecretManagerServer,
    keys: Canary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ComputeEngine(secrets, tmp_path) as engine:
        options: dict[str, Any] = {"scheduler_options": {"port": free_port(), "dashboard_address": "127.0.0.1:0"}}
        with (
            GCPCluster(**OURS, **login(engine, monkeypatch), **options, security=alice, n_workers=1) as cluster,
            Client(cluster) as client,
        ):
            client.wait_for_workers(1, timeout=60)
            assert client.submit(sum, [20, 22]).result(timeout=30) == 42
            (worker,) = client.scheduler_info()["workers"].values()
            assert keys.in_processes() == []
            assert worker["name"] == engine.bodies[1]["name"]
    scheduler, one = engine.bodies
    assert [scheduler["name"], one["name"]] == sorted(engine.deleted)
    for body, role in ((scheduler, Role.SCHEDULER), (one, Role.WORKER)):
        assert body["serviceAccounts"] == [
            {"email": ACCOUNTS[role], "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
        ]
        sent = json.dumps(body)
        assert keys.in_bytes("request", sent.encode()) == []
        assert "PRIVATE KEY" not in sent
        assert "DASK_INTERNAL_INHERIT_CONFIG" not in sent
    assert keys.in_bytes("configuration", json.dumps(dask.config.get("distributed.comm")).encode()) == []


def test_stock_sends_the_keys_of_all_roles_to_every_vm(
    cluster: Cluster, secrets: SecretManagerServer, keys: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same search finds them."""
    fields = {
        f"tls_{role}_{part}": text
        for role, slug in (
            ("scheduler", "scheduler/scheduler"),
            ("worker", "worker/worker"),
            ("client", "client/alice"),
        )
        for part, text in (
            ("cert", certificate_pem(cluster.credentials[slug])),
            ("key", key_pem(cluster.credentials[slug]).reveal().decode()),
        )
    }
    security = Security(tls_ca_file="ca", require_encryption=True, **fields)
    with ComputeEngine(secrets, tmp_path, full=True) as engine, pytest.raises(RuntimeError):
        stock.GCPCluster(**PLACE, **login(engine, monkeypatch), security=security)
    (body,) = engine.bodies
    found = {finding.key for finding in keys.in_bytes("request", json.dumps(body).encode())}
    assert found == set(cluster.credentials)


@pytest.mark.parametrize(
    ("settings", "error", "reason"),
    [
        ({"store": "local:"}, UsageError, "is not where VMs can read"),
        ({"security": Security()}, UsageError, "no Security of daskpki"),
        ({"worker_class": "dask_cuda.CUDAWorker"}, UsageError, "runs nannies"),
        ({"scheduler_options": {"jupyter": True}}, PolicyError, "without any authentication"),
        ({"worker_options": {"dashboard_address": ":8787"}}, PolicyError, "stays on loopback"),
        ({"env_vars": {"DASKPKI_WORKER_CLIENTS": "some"}}, UsageError, "some"),
    ],
)
def test_what_cannot_work_is_refused_before_a_vm_is_made(
    alice: PkiSecurity, settings: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        GCPCluster(**{**OURS, "security": alice, **settings})
