"""What a healthy boot asks for, and what it then hands to Dask."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from daskpki.errors import NotFoundError, NotTrustedError, UsageError
from tests.support.boot_cloud import TOKEN_PATH, Cloud, boot_here, run_entrypoint
from tests.support.material import make_cluster


def test_a_boot_makes_four_requests_and_only_reads_by_access(cloud: Cloud) -> None:
    started = boot_here(cloud.environ, "scheduler")
    assert cloud.requests == ["scheduler_scheduler/versions/latest", "trust/versions/latest", "trust/versions/2"]
    assert {entry.method for entry in cloud.server.requests()} == {"AccessSecretVersion"}
    assert [entry.method for entry in cloud.metadata.journal.entries()] == [TOKEN_PATH]
    assert started.argv[2:4] == ["-m", "distributed.cli.dask_scheduler"]


def test_a_usual_boot_loads_no_client_of_google_or_dask(cloud: Cloud) -> None:
    """Each would take longer to import than the whole boot."""
    script = """if 1:
        import json, os, sys
        from daskpki.boot.launch import boot
        boot(["scheduler"], os.environ, lambda *_: print(json.dumps(sorted(sys.modules))))"""
    done = subprocess.run([sys.executable, "-c", script], env=cloud.environ, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "cryptography.x509" in loaded, "every boot makes the full check"
    assert not loaded & {"urllib.request", "argparse", "distributed"}
    assert not [name for name in loaded if name.startswith("google")]


def test_a_node_makes_five_requests(cloud: Cloud) -> None:
    done = run_entrypoint(cloud.environ, "node", "--worker-user", "no-such-user")
    assert done.returncode == 2, done.stderr
    assert cloud.server.count() == 0
    from daskpki.boot.launch import prepare
    from daskpki.boot.options import parse_arguments
    from daskpki.boot.settings import parse_settings

    checked = prepare(parse_settings(parse_arguments(["node"]), cloud.environ), cloud.environ)
    assert [each.identity.slug for each in checked.material.credentials] == ["scheduler/scheduler", "worker/worker"]
    assert cloud.server.count() + cloud.metadata.count() == 5


@pytest.mark.parametrize("kind", ["scheduler", "worker"])
def test_dask_gets_the_credential_of_its_role_and_no_other(cloud: Cloud, kind: str) -> None:
    started = boot_here(cloud.environ | {"DASKPKI_SCHEDULER": "tls://10.0.0.2"}, kind)
    assert started.handover is not None
    assert (started.handover.role, started.handover.name) == (kind, kind)
    assert started.environ[f"DASK_DISTRIBUTED__COMM__TLS__{kind.upper()}__KEY"] == started.handover.key
    other = "SCHEDULER" if kind == "worker" else "WORKER"
    assert f"DASK_DISTRIBUTED__COMM__TLS__{other}__KEY" not in started.environ
    assert ssl.PEM_cert_to_DER_cert(started.files["cert"].decode()) == cloud.cluster.credentials[f"{kind}/{kind}"].leaf


def test_regional_secrets_are_read_at_their_location(cloud: Cloud) -> None:
    cloud.parent = "projects/test-project/locations/europe-west1"
    cloud.cluster.seed(cloud.server, cloud.parent)
    assert boot_here(cloud.environ, "scheduler").started
    assert all("/locations/europe-west1/" in entry.path for entry in cloud.server.requests())


def test_the_name_may_be_the_vms_own(cloud: Cloud) -> None:
    cloud.cluster.issue("worker/vm-1")
    cloud.cluster.seed(cloud.server, cloud.parent)
    started = boot_here(cloud.environ | {"DASKPKI_NAME": "@instance"}, "exec", "worker", "--", "true")
    assert started.handover is not None
    assert started.handover.name == "vm-1"


def test_a_stale_latest_is_overtaken_by_number(cloud: Cloud) -> None:
    cluster = make_cluster("stale")
    cloud.cluster = cluster
    cluster.seed(cloud.server, cloud.parent)
    cloud.server.latest_lag(cloud.secret("trust"))
    revoking = cluster.publish(revoked=[cluster.credentials["scheduler/scheduler"]])
    cloud.server.seed(cloud.secret("trust"), revoking.reveal())
    with pytest.raises(NotTrustedError, match="revoked"):
        boot_here(cloud.environ, "scheduler")
    assert boot_here(cloud.environ, "exec", "worker", "--", "true").started


def test_a_missing_credential_names_the_command_that_issues_it(cloud: Cloud) -> None:
    with pytest.raises(NotFoundError, match="no credential worker/w7") as caught:
        boot_here(cloud.environ, "worker", "--name", "w7", "--scheduler", "tls://h")
    assert caught.value.hint == "daskpki --cluster c issue worker --name w7"


def test_grpc_endpoints_are_for_commands_only(cloud: Cloud) -> None:
    with pytest.raises(UsageError, match="gRPC"):
        boot_here(cloud.environ | {"DASKPKI_SECRET_MANAGER_ENDPOINT": "grpc://127.0.0.1:1"}, "scheduler")


def test_an_unencrypted_endpoint_elsewhere_is_refused(cloud: Cloud) -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        boot_here(cloud.environ | {"DASKPKI_SECRET_MANAGER_ENDPOINT": "http://10.0.0.1:80"}, "scheduler")


def test_no_file_is_written(cloud: Cloud, tmp_path: Path) -> None:
    environ = cloud.environ | {"TMPDIR": str(tmp_path)}
    done = run_entrypoint(environ, "exec", "scheduler", "--", "sh", "-c", "test -r $DASKPKI_HANDOVER")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
