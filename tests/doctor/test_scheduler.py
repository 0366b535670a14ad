"""A scheduler looked at from outside: a real one, and impostors of every kind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from daskpki.credentials.sources import Environment, this_process
from daskpki.doctor.checks import Finding
from daskpki.doctor.scheduler import Admission, Page, ask_page, check_page, dial, examine_scheduler, stranger
from daskpki.pki.trust_document import parse_trust
from tests.support.boot_cloud import plain_environ
from tests.support.booted import running, until
from tests.support.listeners import listening, over_tls
from tests.support.material import Cluster, make_cluster
from tests.support.ports import free_port
from tests.support.schedulers import scheduler as stock_scheduler


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture(scope="module")
def credentials(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("credentials")
    for slug in cluster.credentials:
        cluster.export(slug, directory / slug.partition("/")[0])
    return directory


def surroundings(monkeypatch: pytest.MonkeyPatch, directory: Path | None) -> Environment:
    if directory is not None:
        monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(directory / "client"))
    return this_process()


def looked(port: int, cluster: Cluster, here: Environment) -> dict[str, list[Finding]]:
    """The findings about the scheduler's own port, by severity."""
    address = f"tls://127.0.0.1:{port}"
    found: dict[str, list[Finding]] = {"ok": [], "note": [], "warning": [], "error": []}
    for finding in examine_scheduler(address, parse_trust(cluster.trust).document, here):
        if finding.subject == address:
            found[finding.severity].append(finding)
    return found


@pytest.mark.cluster
def test_a_scheduler_of_the_entrypoint_is_in_order(
    cluster: Cluster, credentials: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_port()
    environ = plain_environ(DASKPKI_CREDENTIAL_DIR=str(credentials / "scheduler"))
    dask = ("--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0")
    log = tmp_path / "log"
    with running(environ, log, "scheduler", "--", *dask) as process:
        until(lambda: "ready at" in log.read_text() or process.poll() is not None)()
        assert process.poll() is None, log.read_text()
        found = looked(port, cluster, surroundings(monkeypatch, credentials))
    reasons = [finding.reason for finding in found["ok"]]
    assert not found["error"], found
    assert any("scheduler/scheduler, valid until" in reason for reason in reasons)
    assert any("refuses connections without a certificate" in reason for reason in reasons)
    assert any("admits spiffe://" in reason for reason in reasons)
    assert any("mode limited: it unpickles nothing that a worker's certificate sends" in reason for reason in reasons)


@pytest.mark.cluster
def test_a_stock_scheduler_with_our_files_is_too(
    cluster: Cluster, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stock_scheduler(credentials / "scheduler") as address:
        found = looked(int(address.rpartition(":")[2]), cluster, surroundings(monkeypatch, credentials))
    assert len(found["ok"]) == 3, found
    (told,) = found["warning"]
    assert "Dask's own TLS, where every certificate of the CA may do everything" in told.reason


def test_who_talks_to_strangers_is_told(cluster: Cluster, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(over_tls(credentials / "scheduler", demand=False)) as port:
        found = looked(port, cluster, surroundings(monkeypatch, None))
    assert [finding.reason for finding in found["error"]] == ["it accepts connections without a certificate"]


def test_an_impostor_is_told(cluster: Cluster, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's leaf, and another cluster's scheduler, though each demands a certificate."""
    with listening(over_tls(credentials / "worker", demand=True)) as port:
        found = looked(port, cluster, surroundings(monkeypatch, None))
    assert "is a worker, where a scheduler is expected" in found["error"][0].reason
    with listening(over_tls(credentials / "scheduler", demand=True)) as port:
        found = looked(port, make_cluster(), surroundings(monkeypatch, None))
    assert "not valid for a scheduler of cluster" in found["error"][0].reason


def test_without_tls_and_without_anybody(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(lambda connection: connection.sendall(b"plain Dask greets at once")) as port:
        found = looked(port, cluster, surroundings(monkeypatch, None))
    assert "does not speak TLS" in found["error"][0].reason
    found = looked(free_port(), cluster, surroundings(monkeypatch, None))
    assert "nothing answers" in found["error"][0].reason


def test_a_listener_that_says_nothing_is_no_verdict(credentials: Path) -> None:
    with listening(over_tls(credentials / "scheduler", demand=False, greeting=b"")) as port:
        assert dial("127.0.0.1", port, stranger(), timeout=0.2).answer is Admission.SILENT


def test_a_dashboard_is_recognised_by_its_answer() -> None:
    def page(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nok")

    with listening(page) as port:
        assert ask_page("127.0.0.1", port) == ("HTTP/1.1 200 OK", True)
    with listening(lambda connection: connection.sendall(b"something else")) as port:
        assert ask_page("127.0.0.1", port).status is None
    assert ask_page("127.0.0.1", free_port()).status is None


def test_a_dashboard_that_refuses_strangers_is_in_order() -> None:
    """As daskpki's own on another machine's port that is open; on this machine it answers to the Host localhost."""
    asked = []

    def page(connection: socket.socket) -> None:
        asked.append(connection.recv(100))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with listening(page) as port:
        status = ask_page("127.0.0.1", port).status
    assert b"\r\nHost: localhost\r\n" in asked[0]
    assert check_page("10.0.0.2", 8787, Page(status, loopback=False)).severity == "ok"
    assert check_page("10.0.0.2", 8787, Page("HTTP/1.1 200 OK", loopback=False)).severity == "error"
