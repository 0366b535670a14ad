"""What a running node asks Secret Manager for: one request a minute, and what is new is found all the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from daskpki.boot.launch import boot
from daskpki.boot.refresh import open_source
from daskpki.cluster.refresh import Poller
from daskpki.cluster.security import NodeSecurity
from daskpki.handover import VARIABLE, load_handover
from daskpki.identity import Role
from daskpki.pki.credential import Credential, certificate_pem, encode_credential
from tests.emulator.clients import grpc_client
from tests.support.boot_cloud import Cloud, Recorder
from tests.support.material import Cluster, make_cluster

MINUTE = 60.0
HOUR = 61  # looks: a leaf of 30 days is backdated by five minutes, so a 720th of its life is 0.4 s more than an hour
TRUST, LEAF = "trust/versions/2", "worker_worker/versions/2"


class Node(Recorder):
    """In the place of os.execve: what the preload of the started program would make of the handover."""

    security: NodeSecurity

    def __call__(self, command: str, argv: list[str], environ: dict[str, str]) -> None:
        super().__call__(command, argv, environ)
        self.security = NodeSecurity(load_handover(environ[VARIABLE]))


@dataclass
class PolledNode:
    """A node's poller over the test server, and its clock."""

    security: NodeSecurity
    poller: Poller
    hands: list[float]

    def look(self, times: int = 1) -> None:
        """So many looks, a minute apart."""
        for _ in range(times):
            self.hands[0] += MINUTE
            assert self.poller.poll()

    @property
    def certificates(self) -> str:
        return self.security.enforcement(Role.WORKER).pair.certificates


@pytest.fixture
def cluster() -> Cluster:
    """One of its own, since it moves on here."""
    return make_cluster()


@pytest.fixture
def polled(cloud: Cloud) -> PolledNode:
    """A worker's, which has looked once and asks by number from now on."""
    node = Node()
    boot(("worker", "--scheduler", "tls://10.0.0.2"), cloud.environ, node)
    assert node.handover is not None
    source, hands = open_source(node.handover, cloud.environ), [0.0]
    enforcement = node.security.enforcement(Role.WORKER)
    assert source.credential(enforcement.pair) is not None
    poller = Poller(node.security.manager, source, clock=lambda: hands[0])
    assert poller.poll()
    cloud.server.reset_journal()
    return PolledNode(node.security, poller, hands)


def test_an_hour_of_polls_costs_a_request_a_minute_and_one_for_the_credential(cloud: Cloud, polled: PolledNode) -> None:
    polled.look(HOUR)
    assert Counter(cloud.requests) == {TRUST: HOUR, LEAF: 1}


def test_a_renewed_credential_is_in_use_within_the_hour(cloud: Cloud, polled: PolledNode) -> None:
    renewed = renew(cloud)
    cloud.server.latest_lag(cloud.secret("worker_worker"), at=1)
    polled.look(HOUR)
    assert polled.certificates == certificate_pem(renewed)


def test_after_news_a_newer_credential_is_looked_for_at_once(cloud: Cloud, polled: PolledNode) -> None:
    cloud.server.seed(cloud.secret("trust"), cloud.cluster.publish().reveal())
    renewed = renew(cloud)
    polled.look()
    assert polled.certificates == certificate_pem(renewed)


def test_who_is_revoked_asks_for_a_newer_credential_each_time(cloud: Cloud, polled: PolledNode) -> None:
    revoked = cloud.cluster.credentials["worker/worker"]
    cloud.server.seed(cloud.secret("trust"), cloud.cluster.publish(revoked=[revoked]).reveal())
    polled.look(3)
    assert Counter(cloud.requests)[LEAF] == 3
    renewed = renew(cloud)
    polled.look()
    assert polled.certificates == certificate_pem(renewed)
    cloud.server.reset_journal()
    polled.look(3)
    assert len(cloud.requests) == 3


@pytest.mark.parametrize("secret", ["trust", "worker_worker"])
def test_a_newest_version_that_was_disabled_is_not_passed_over(cloud: Cloud, polled: PolledNode, secret: str) -> None:
    cloud.server.seed(cloud.secret(secret), b"whatever it said")
    grpc_client(cloud.server.grpc_target).disable_secret_version(name=f"{cloud.secret(secret)}/versions/2")
    polled.hands[0] += HOUR * MINUTE
    assert not polled.poller.poll()
    renew(cloud)
    cloud.server.seed(cloud.secret("trust"), cloud.cluster.publish().reveal())
    polled.look()


def renew(cloud: Cloud) -> Credential:
    credential = cloud.cluster.issue("worker/worker")
    cloud.server.seed(cloud.secret("worker_worker"), encode_credential(credential, 1).reveal())
    return credential
