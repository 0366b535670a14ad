"""`--version N`: exactly that version of its own credential is booted, and kept while Dask runs."""

from __future__ import annotations

import ssl

import pytest

from daskpki.boot.launch import prepare
from daskpki.boot.options import parse_arguments
from daskpki.boot.refresh import open_source
from daskpki.boot.settings import parse_settings
from daskpki.cluster.tls import KeyPair
from daskpki.confidential import Confidential
from daskpki.errors import NotFoundError, NotTrustedError, UsageError
from daskpki.identity import Role
from daskpki.pki.credential import Credential, certificate_pem, encode_credential
from tests.emulator.clients import grpc_client
from tests.support.boot_cloud import Cloud, Recorder, boot_here, plain_environ, run_entrypoint
from tests.support.material import make_cluster


@pytest.fixture
def generations(cloud: Cloud) -> list[Credential]:
    """Three versions of the scheduler's and the worker's secrets; the worker's, by number less one."""
    cloud.cluster = cluster = make_cluster("pinned")
    cluster.seed(cloud.server, cloud.parent)
    made = [cluster.credentials["worker/worker"]]
    for _ in range(2):
        for role in ("scheduler", "worker"):
            renewed = cluster.issue(f"{role}/{role}")
            cloud.server.seed(cloud.secret(f"{role}_{role}"), encode_credential(renewed, 1).reveal())
        made.append(renewed)
    return made


def leaf(started: Recorder) -> bytes:
    return ssl.PEM_cert_to_DER_cert(started.files["cert"].decode())


WORKER = ("exec", "worker")
RUN = ("--", "true")


def test_without_it_the_newest_is_booted_with_it_that_one(cloud: Cloud, generations: list[Credential]) -> None:
    assert leaf(boot_here(cloud.environ, *WORKER, *RUN)) == generations[2].leaf
    for number, credential in enumerate(generations, start=1):
        assert leaf(boot_here(cloud.environ, *WORKER, "--version", str(number), *RUN)) == credential.leaf
        assert leaf(boot_here(cloud.environ | {"DASKPKI_VERSION": str(number)}, *WORKER, *RUN)) == credential.leaf


def test_the_boot_says_so_and_asks_no_more_than_otherwise(cloud: Cloud, generations: list[Credential]) -> None:
    done = run_entrypoint(cloud.environ, *WORKER, "--version", "2", *RUN)
    assert done.returncode == 0, done.stderr
    assert f"{generations[1].identity.uri} (version 2, which it keeps), from " in done.stderr
    assert cloud.requests == ["worker_worker/versions/2", "trust/versions/latest", "trust/versions/2"]


@pytest.mark.usefixtures("generations")
def test_a_node_pins_each_role_by_name(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["node", "--version", "scheduler=1,worker=2"]
    prepare(parse_settings(parse_arguments(argv), cloud.environ), cloud.environ)
    said = capsys.readouterr().err
    assert "scheduler/scheduler (version 1, which it keeps) and " in said
    assert "worker/worker (version 2, which it keeps), from" in said
    assert cloud.requests[:2] == ["scheduler_scheduler/versions/1", "worker_worker/versions/2"]
    assert parse_settings(parse_arguments(["node", "--version", "worker=2"]), {}).versions == {Role.WORKER: 2}


def test_a_version_that_cannot_be_read_is_refused(cloud: Cloud, generations: list[Credential]) -> None:
    secret = cloud.secret("worker_worker")
    grpc_client(cloud.server.grpc_target).disable_secret_version(name=f"{secret}/versions/2")
    with pytest.raises(NotTrustedError, match=r"version 2, .* is disabled"):
        boot_here(cloud.environ, *WORKER, "--version", "2", *RUN)
    grpc_client(cloud.server.grpc_target).destroy_secret_version(name=f"{secret}/versions/1")
    with pytest.raises(NotTrustedError, match=r"version 1, .* is destroyed"):
        boot_here(cloud.environ, *WORKER, "--version", "1", *RUN)
    with pytest.raises(NotFoundError, match="no credential worker/worker in version 9") as missing:
        boot_here(cloud.environ, *WORKER, "--version", "9", *RUN)
    assert missing.value.hint == "leave --version out to boot the newest"
    assert leaf(boot_here(cloud.environ, *WORKER, "--version", "3", *RUN)) == generations[2].leaf


def test_it_is_the_way_past_a_newest_version_that_is_disabled(cloud: Cloud, generations: list[Credential]) -> None:
    grpc_client(cloud.server.grpc_target).disable_secret_version(name=f"{cloud.secret('worker_worker')}/versions/3")
    with pytest.raises(NotTrustedError, match="is disabled") as refused:
        boot_here(cloud.environ, *WORKER, *RUN)
    assert "--version N" in str(refused.value.hint)
    assert leaf(boot_here(cloud.environ, *WORKER, "--version", "2", *RUN)) == generations[1].leaf


def test_a_pinned_version_that_was_revoked_does_not_boot(cloud: Cloud, generations: list[Credential]) -> None:
    trust = cloud.cluster.publish(revoked=[generations[0]])
    cloud.server.seed(cloud.secret("trust"), trust.reveal())
    with pytest.raises(NotTrustedError, match="revoked"):
        boot_here(cloud.environ, *WORKER, "--version", "1", *RUN)
    assert boot_here(cloud.environ, *WORKER, "--version", "2", *RUN).started


def test_a_pinned_node_never_fetches_another_credential(cloud: Cloud, generations: list[Credential]) -> None:
    """The control is the same boot without the pin."""
    for argv, found in (((), certificate_pem(generations[2])), (("--version", "1"), None)):
        handover = boot_here(cloud.environ, *WORKER, *argv, *RUN).handover
        assert handover is not None
        source = open_source(handover, cloud.environ)
        assert source is not None
        cloud.server.reset_journal()
        credential = source.credential(KeyPair("", Confidential(b"")))
        assert (credential.certificates if credential else None) == found
        assert bool(cloud.requests) == (found is not None)


@pytest.mark.parametrize("text", ["0", "-1", "latest", "01", "1,2", "worker=", "scheduler=1", "99999999999"])
def test_what_is_no_version_of_a_worker(text: str) -> None:
    with pytest.raises(UsageError, match=r"must give one number for each role that it names \(worker\)"):
        parse_settings(parse_arguments([*WORKER, f"--version={text}", *RUN]), {})


@pytest.mark.parametrize("text", ["1", "client=1", "worker=1,worker=2"])
def test_what_are_no_versions_of_a_node(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_settings(parse_arguments(["node", "--version", text]), {})
    assert refused.value.hint == "for example --version scheduler=3,worker=3"


def test_a_directory_has_no_versions() -> None:
    with pytest.raises(UsageError, match="--version '2' reads a store"):
        boot_here(plain_environ(DASKPKI_CREDENTIAL_DIR="/d", DASKPKI_VERSION="2"), *WORKER, *RUN)
