"""A credential in one file: what is read, what is refused, and what a running node makes of a file that is replaced."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daskpki.boot.launch import boot
from daskpki.boot.refresh import open_source
from daskpki.cluster.refresh import NullSource, Poller
from daskpki.cluster.trust_updates import TrustMessage
from daskpki.errors import AccessDeniedError, CorruptError, DaskpkiError, NotFoundError, NotTrustedError, UsageError
from daskpki.identity import Role
from daskpki.pki.certificates import load_certificate
from daskpki.pki.credential import certificate_pem, encode_credential, key_pem
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust_document import parse_trust
from tests.support.boot_cloud import Cloud, Recorder, boot_here, fill, plain_environ
from tests.support.booted import running
from tests.support.material import Cluster, make_cluster
from tests.support.nightly import sample
from tests.support.ports import free_port
from tests.support.sandbox import OWN_MOUNTS, for_every_user
from tests.support.secret_volume import Started, Volume

FORMS = ["payload", "bundle"]
WORKER = ("worker", "--scheduler", "tls://10.0.0.2")


def write(cluster: Cluster, slug: str, directory: Path, form: str = "payload", *, trust: bool = True) -> Path:
    """The credential's file in that form, and the trust document beside it."""
    credential = cluster.credentials[slug]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = directory / "credential"
    pem = key_pem(credential).reveal().decode() + certificate_pem(credential)
    file.write_bytes(encode_credential(credential, 1).reveal() if form == "payload" else pem.encode())
    file.chmod(0o600)
    if trust:
        (directory / "trust.json").write_bytes(cluster.trust.reveal())
    return file


def boot_file(file: Path, *argv: str, **environ: str) -> Recorder:
    return boot_here(plain_environ(DASKPKI_CREDENTIAL_FILE=str(file), **environ), *(argv or WORKER))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_boots_with_the_trust_document_beside_it(cluster: Cluster, tmp_path: Path, form: str) -> None:
    started = boot_file(write(cluster, "worker/worker", tmp_path / "etc", form))
    assert started.files["cert"].decode() == certificate_pem(cluster.credentials["worker/worker"])
    assert started.files["key"] == key_pem(cluster.credentials["worker/worker"]).reveal()
    assert started.files["trust"] == cluster.trust.reveal()
    assert started.handover is not None
    assert (started.handover.file, started.handover.store) == (str(tmp_path / "etc" / "credential"), None)


@pytest.mark.parametrize("form", FORMS)
def test_the_trust_document_comes_from_secret_manager_where_none_lies_beside(
    cloud: Cloud, tmp_path: Path, form: str
) -> None:
    file = write(cloud.cluster, "worker/worker", tmp_path / "etc", form, trust=False)
    started = boot_here(cloud.environ | {"DASKPKI_CREDENTIAL_FILE": str(file)}, *WORKER)
    assert started.files["trust"] == cloud.cluster.trust.reveal()
    assert {request.partition("/")[0] for request in cloud.requests} == {"trust"}


def test_or_from_a_local_store(cluster: Cluster, tmp_path: Path) -> None:
    environ = fill(cluster, tmp_path / "store", tmp_path / "key")
    file = write(cluster, "worker/worker", tmp_path / "etc", trust=False)
    started = boot_here(environ, *WORKER, "--credential-file", str(file))
    assert started.files["trust"] == cluster.trust.reveal()


def test_a_pinned_ca_has_to_have_signed_it(cluster: Cluster, tmp_path: Path) -> None:
    file = write(cluster, "worker/worker", tmp_path / "etc")
    assert boot_file(file, DASKPKI_CA_SHA256=fingerprint(cluster.anchor)).started
    with pytest.raises(NotTrustedError, match="not signed by the pinned CA"):
        boot_file(file, DASKPKI_CA_SHA256="ab" * 32)


def test_without_a_trust_document_nothing_starts(cluster: Cluster, tmp_path: Path) -> None:
    file = write(cluster, "worker/worker", tmp_path / "etc", trust=False)
    with pytest.raises(NotFoundError, match=r"no trust\.json lies beside the credential file, and no store is named"):
        boot_file(file)


def _world_readable(file: Path) -> None:
    file.chmod(0o644)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def _two_keys(file: Path) -> None:
    file.write_bytes(file.read_bytes() * 2)


def _of_another(file: Path) -> None:
    other = make_cluster().credentials["worker/worker"]
    file.write_text(key_pem(other).reveal().decode() + certificate_pem(other))


def _key_of_another(file: Path) -> None:
    certificates = file.read_text().partition("-----END PRIVATE KEY-----\n")[2]
    file.write_text(key_pem(make_cluster().credentials["worker/worker"]).reveal().decode() + certificates)


def _in_an_open_directory(file: Path) -> None:
    file.parent.chmod(0o777)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (_world_readable, (AccessDeniedError, "the credential file .* is open to others")),
        (_in_an_open_directory, (AccessDeniedError, "the directory of the credential file .* is open to others")),
        (_cut, (CorruptError, "the credential")),
        (_two_keys, (CorruptError, "the credential")),
        (_of_another, (NotTrustedError, "certificate|certified|signed|CA")),
        (Path.unlink, (NotFoundError, "the credential file .* is not there")),
    ],
    ids=["mode", "directory", "cut", "two keys", "another cluster", "gone"],
)
def test_what_does_not_check_out_does_not_start(
    cluster: Cluster, tmp_path: Path, form: str, change: Callable[[Path], None], refused: tuple[type[DaskpkiError], str]
) -> None:
    expected, words = refused
    file = write(cluster, "worker/worker", tmp_path / "etc", form)
    change(file)
    with pytest.raises(expected, match=words) as refusal:
        boot_file(file)
    assert str(tmp_path) not in str(refusal.value)  # what was given as a path may have been a key


def test_a_key_and_a_certificate_that_do_not_belong_together(cluster: Cluster, tmp_path: Path) -> None:
    file = write(cluster, "worker/worker", tmp_path / "etc", "bundle")
    _key_of_another(file)
    with pytest.raises(NotTrustedError, match="does not belong to its certificate"):
        boot_file(file)


def test_another_roles_file_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(NotTrustedError, match="has the role client, but a worker is to be started"):
        boot_file(write(cluster, "client/alice", tmp_path / "etc"))


@pytest.mark.parametrize(
    ("argv", "environ", "words"),
    [
        (["--credential-file", "/f", "--credential-dir", "/d"], {}, "--credential-file and --credential-dir are two"),
        ([], {"DASKPKI_CREDENTIAL_FILE": "/f", "DASKPKI_CREDENTIAL_DIR": "/d"}, "are two sources"),
        (["--credential-file", "/f", "--version", "3"], {}, "reads a store"),
        (["--credential-file", "/f", "--secret", "db=/run/db"], {}, "reads a store"),
    ],
)
def test_two_sources_are_refused(argv: list[str], environ: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        boot_here(plain_environ(**environ), *WORKER, *argv)


def test_a_node_needs_two_credentials(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a node has two credentials"):
        boot_file(tmp_path / "f", "node")


@pytest.mark.parametrize(("options", "code"), [("ro", 0), ("rw", 5)], ids=["read-only", "writable"])
def test_what_a_csi_driver_mounts_may_be_read_by_all_of_a_container(
    cluster: Cluster, tmp_path: Path, options: str, code: int
) -> None:
    """It belongs to root with mode 0644 on a file system of its own in memory, and the container is another user's."""
    file = write(cluster, "worker/worker", tmp_path / "etc")
    file.chmod(0o644)
    boot = f"{sys.executable} -m daskpki.boot exec worker --credential-file /mnt/credential -- true"
    script = f"""
        set -e
        mount -t tmpfs none /mnt
        cp -p {file} {file.parent}/trust.json /mnt/
        chown root:root /mnt/*
        mount -o remount,{options} /mnt
        exec setpriv --reuid=65532 --regid=65532 --clear-groups {boot}
    """
    command = [*OWN_MOUNTS, "sh", "-c", for_every_user(), "sh", "sh", "-c", script]
    done = subprocess.run(command, env=plain_environ(), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr


@pytest.fixture(params=FORMS)
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Volume:
    cluster = make_cluster()

    def write_in_form(place: Path) -> Path:
        return write(cluster, "worker/worker", place, str(request.param)).parent

    return Volume(cluster, tmp_path / "etc" / "dask", ("credential", "trust.json"), write_in_form)


@pytest.fixture
def started(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Started:
    started = Started()
    monkeypatch.chdir(volume.path)
    boot((*WORKER, "--credential-file", "credential"), {}, started)
    monkeypatch.undo()  # wherever the program may be by then
    return started


@pytest.fixture
def poll(started: Started) -> Callable[[], bool]:
    assert started.handover is not None
    source = open_source(started.handover, {})
    assert not isinstance(source, NullSource)
    return Poller(started.security.manager, source, share=0).poll


def in_use(started: Started) -> str:
    return started.security.enforcement(Role.WORKER).pair.certificates


def test_a_renewed_credential_is_in_use_after_a_poll(
    volume: Volume, started: Started, poll: Callable[[], bool]
) -> None:
    before = in_use(started)
    renewed = volume.cluster.issue("worker/worker", now=datetime.now(UTC))
    assert poll()
    assert in_use(started) == before
    volume.update()
    assert poll()
    assert in_use(started) == certificate_pem(renewed)


def test_a_newer_trust_document_holds_after_a_poll(volume: Volume, started: Started, poll: Callable[[], bool]) -> None:
    bob = volume.cluster.issue("client/bob", now=datetime.now(UTC))
    volume.cluster.publish(revoked=[bob])
    volume.update()
    assert poll()
    assert load_certificate(bob.leaf).serial_number in started.security.enforcement(Role.WORKER).trust.revoked


def test_half_of_a_file_changes_nothing(volume: Volume, started: Started, poll: Callable[[], bool]) -> None:
    before = in_use(started)
    file = (volume.path / "credential").resolve()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert not poll()
    assert in_use(started) == before
    file.write_bytes(whole)
    assert poll()


def test_a_store_is_asked_for_newer_trust_documents_where_none_lies_beside(cloud: Cloud, tmp_path: Path) -> None:
    file = write(cloud.cluster, "worker/worker", tmp_path / "etc", trust=False)
    started = boot_here(cloud.environ | {"DASKPKI_CREDENTIAL_FILE": str(file)}, *WORKER)
    assert started.handover is not None
    source = open_source(started.handover, cloud.environ)
    held = parse_trust(cloud.cluster.trust).document
    older = held._replace(epoch=held.epoch - 1)
    refused: list[TrustMessage] = []
    found = source.trust_after(older, lambda message, _error: refused.append(message))
    assert (found and found.signed, refused) == (cloud.cluster.trust, [])
    assert source.trust_after(held, lambda message, _error: refused.append(message)) is None


@pytest.mark.cluster
@pytest.mark.timeout(120)
@pytest.mark.parametrize("form", sample(list(FORMS), one_of=2))
def test_a_scheduler_a_worker_and_a_client_use_it(cluster: Cluster, tmp_path: Path, form: str) -> None:
    slugs = {"scheduler": "scheduler/scheduler", "worker": "worker/worker", "client": "client/alice"}
    address = f"tls://127.0.0.1:{free_port()}"
    environ = {
        role: plain_environ(
            DASKPKI_CREDENTIAL_FILE=str(write(cluster, slug, tmp_path / role, form)), DASKPKI_SCHEDULER=address
        )
        for role, slug in slugs.items()
    }
    dask = ("--port", address.rpartition(":")[2], "--dashboard-address", "127.0.0.1:0")
    program = f"from distributed import Client; print(Client({address!r}, timeout=60).submit(sum, [20, 22]).result())"
    loader = {"DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER": "daskpki.loader.security_loader"}
    with ExitStack() as stack:
        stack.enter_context(running(environ["scheduler"], tmp_path / "scheduler.log", "scheduler", "--", *dask))
        stack.enter_context(running(environ["worker"], tmp_path / "worker.log", "worker", "--", "--nworkers", "1"))
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environ["client"] | loader,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
