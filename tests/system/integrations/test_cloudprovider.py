"""dask-cloudprovider's GCPCluster: VMs that boot themselves, and no key in what Google is sent."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.config
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dask_cloudprovider.gcp import instances as stock
from dask_cloudprovider.generic.vmcluster import VMCluster
from distributed import Client, Security
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.cloudprovider import Boot, GCPCluster, _Booting, check_variables
from daskpki.cluster.security import PkiSecurity
from daskpki.errors import PolicyError, UsageError
from daskpki.identity import Role
from daskpki.pki.credential import certificate_pem, key_pem
from tests.emulator.server import SecretManagerServer
from tests.support.compute_engine import ACCOUNTS, IMAGE, ComputeEngine
from tests.support.key_search import Canary
from tests.support.material import Cluster
from tests.support.ports import free_port

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
    ("wrong", "error", "reason"),
    [
        ({"store": "local:"}, UsageError, "VMs cannot read the store"),
        ({"security": Security()}, UsageError, "no Security of daskpki"),
        ({"worker_class": "dask_cuda.CUDAWorker"}, UsageError, "runs nannies"),
        ({"scheduler_options": {"jupyter": True}}, PolicyError, "without any authentication"),
        ({"worker_options": {"dashboard_address": ":8787"}}, PolicyError, "stays on loopback"),
        ({"env_vars": {"DASKPKI_WORKER_CLIENTS": "some"}}, UsageError, "some"),
        ({"env_vars": {"A": "two\nlines"}}, UsageError, r"env_vars\['A'\] is not printable text on one line"),
        ({"env_vars": {"A B": "x"}}, UsageError, "not a variable's name"),
        ({"env_vars": {"PORT": 8786}}, UsageError, "is not printable text"),
        ({"docker_image": "a:1; id"}, UsageError, "is not an image"),
    ],
)
def test_what_cannot_work_is_refused_before_a_vm_is_made(
    alice: PkiSecurity, wrong: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        GCPCluster(**{**OURS, "security": alice, **wrong})


def run_by_shell(process: Any) -> list[str]:
    """The words of `docker run` as a VM's shell makes them, from the stock template through a YAML parser."""
    text = VMCluster.render_cloud_init(
        SimpleNamespace(debug=False),
        image=IMAGE, command=process.command, docker_args=process.docker_args, env_vars=process.env_vars,
        extra_bootstrap=None, gpu_instance=False, bootstrap=False, auto_shutdown=False,
    )  # fmt: skip
    line: str = yaml.safe_load(text)["runcmd"][0]
    command = line.replace("docker run", "printf '%s\\0'", 1)
    return subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout.decode().split("\0")[:-1]


# Cs: code points that no UTF-8 holds.
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "it's",
        "$(id)",
        'say "x"',
        '{"version": 1}',
        "a;b `id`",
        "two words",
        "",
        "{{ 7 }}",
        "%",
        "\\",
        "# x",
        ": y",
        " z ",
    ]
)


@settings(deadline=None, max_examples=60)
@given(variables=st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), values, max_size=4))
def test_variables_arrive_as_they_are_or_are_refused_before(variables: dict[str, str]) -> None:
    boot = Boot("s@p", {**variables, "DASKPKI_STORE": "gsm://a-project"}, {})
    if not all(value.isprintable() for value in variables.values()):
        with pytest.raises(UsageError):
            check_variables(variables)
        return
    assert check_variables(variables) == variables
    process = SimpleNamespace(role=Role.SCHEDULER, docker_args="--label 'a b'")
    _Booting.start_with(process, boot)  # type: ignore[arg-type] # what a VM of the stock class has by then
    words = run_by_shell(process)
    image = words.index(IMAGE)
    given_variables = [words[at + 1] for at, word in enumerate(words[:image]) if word == "-e"]
    assert given_variables == [f"{name}={value}" for name, value in boot.environment.items()]
    assert words[image + 1] == "scheduler"
    assert {"--label", "a b"} <= set(words)
