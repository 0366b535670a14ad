"""A running node polls its credential directory, which Kubernetes replaces in one step when its secret changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daskpki.boot.launch import boot
from daskpki.boot.refresh import open_source
from daskpki.cluster.refresh import NullSource, Poller, WholeSource
from daskpki.handover import Handover
from daskpki.identity import Role
from daskpki.pki.certificates import load_certificate
from daskpki.pki.credential import certificate_pem
from tests.support.material import make_cluster
from tests.support.secret_volume import Started, Volume

WORKER = "worker/worker"


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    cluster = make_cluster()
    names = ("ca.pem", "cert.pem", "key.pem", "trust.json")
    return Volume(cluster, tmp_path / "etc" / "dask", names, lambda place: cluster.export(WORKER, place))


@pytest.fixture
def started(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Started:
    started = Started()
    monkeypatch.chdir(volume.path.parent)
    boot(("worker", "--credential-dir", "dask", "--scheduler", "tls://10.0.0.2", "--cluster", "c"), {}, started)
    monkeypatch.undo()  # wherever the program may be by then
    return started


def handover_of(started: Started) -> Handover:
    assert started.handover is not None
    return started.handover


@pytest.fixture
def poll(started: Started) -> Callable[[], bool]:
    source = open_source(handover_of(started), {})
    return Poller(started.security.manager, source, share=0).poll


def in_use(started: Started) -> str:
    return started.security.enforcement(Role.WORKER).pair.certificates


def test_nothing_new_changes_nothing(started: Started, poll: Callable[[], bool]) -> None:
    before = started.security.enforcement(Role.WORKER).pair
    assert poll()
    assert started.security.enforcement(Role.WORKER).pair is before


def test_a_renewed_credential_is_in_use_after_a_poll(
    volume: Volume, started: Started, poll: Callable[[], bool]
) -> None:
    renewed = volume.cluster.issue(WORKER, now=datetime.now(UTC))
    assert poll()
    assert in_use(started) != certificate_pem(renewed)
    volume.update()
    assert poll()
    assert in_use(started) == certificate_pem(renewed)


def test_a_newer_trust_document_holds_after_a_poll(volume: Volume, started: Started, poll: Callable[[], bool]) -> None:
    bob = volume.cluster.issue("client/bob", now=datetime.now(UTC))
    volume.cluster.publish(revoked=[bob])
    volume.update()
    assert poll()
    trust = started.security.enforcement(Role.WORKER).trust
    assert load_certificate(bob.leaf).serial_number in trust.revoked
    older = trust.epoch
    volume.cluster.epoch -= 2
    volume.cluster.publish()
    volume.update()
    assert poll()  # an older one is none
    assert started.security.enforcement(Role.WORKER).trust.epoch == older


def test_half_of_a_newer_credential_changes_nothing(volume: Volume, started: Started, poll: Callable[[], bool]) -> None:
    """Where files are replaced one by one."""
    before = in_use(started)
    renewed = volume.cluster.issue(WORKER, now=datetime.now(UTC))
    newer = volume.cluster.export(WORKER, volume.path.parent / "newer")
    (newer / "cert.pem").rename(volume.path / "cert.pem")
    assert not poll()
    assert in_use(started) == before
    (newer / "key.pem").rename(volume.path / "key.pem")
    assert poll()
    assert in_use(started) == certificate_pem(renewed)


def test_a_directory_that_cannot_be_read_any_more_is_said_at_start(
    volume: Volume, started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(open_source(handover_of(started), {}), WholeSource)
    (volume.path / "key.pem").resolve().chmod(0o644)
    with caplog.at_level(logging.WARNING, "distributed.daskpki"):
        assert isinstance(open_source(handover_of(started), {}), NullSource)
    assert "and no newer credential: " in caplog.text
    assert "is open to others (mode 0644)" in caplog.text
