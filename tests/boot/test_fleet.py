"""Many VMs boot at once, against a Secret Manager that refuses twice as many requests with 429: all come up.

Each is a process of its own, with its own leaf and its own token, by which its requests are told apart.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.support.boot_cloud import Cloud
from tests.support.material import make_cluster
from tests.support.nightly import by_day

VMS = by_day(60, night=200)
HEALTHY = 4
"""A token, the leaf, the newest trust document, and whether there is a newer one."""

REFUSED = 2 * VMS


@pytest.fixture
def fleet(cloud: Cloud) -> Cloud:
    """The cloud with a leaf for each VM, where every request for a token gets its own."""
    cloud.cluster = make_cluster("fleet", [f"worker/w-{number}" for number in range(VMS)])
    cloud.cluster.seed(cloud.server, cloud.parent)
    cloud.metadata.caches = False
    return cloud


def boot_at_once(cloud: Cloud, count: int) -> str:
    """What the VMs said on stderr, after all have come up."""
    command = [sys.executable, "-m", "tests.support.booting_fleet", str(count), "worker", "--name", "w-{}"]
    environ = cloud.environ | {"DASKPKI_SCHEDULER": "tls://10.0.0.2", "DASKPKI_DEADLINE": "180"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def requests_by_vm(cloud: Cloud) -> dict[str, Counter[int]]:
    """For each token the HTTP statuses of what was asked with it."""
    found: dict[str, Counter[int]] = {}
    for entry in cloud.server.requests():
        found.setdefault(entry.headers["authorization"], Counter())[entry.http_status] += 1
    return found


def test_a_healthy_fleet_makes_four_requests_per_vm(fleet: Cloud) -> None:
    boot_at_once(fleet, 10)
    asked = requests_by_vm(fleet)
    assert len(asked) == fleet.metadata.count() == 10
    assert {1 + found.total() for found in asked.values()} == {HEALTHY}


@pytest.mark.timeout(300)
def test_many_vms_at_once_all_come_up_although_most_are_refused_at_first(fleet: Cloud) -> None:
    quota = "Quota exceeded for quota metric 'Access requests'."
    fleet.server.fail("AccessSecretVersion", nth=50, times=REFUSED, http=429, message=quota)
    said = boot_at_once(fleet, VMS)
    asked = requests_by_vm(fleet)
    assert len(asked) == fleet.metadata.count() == VMS
    for found in asked.values():  # a refusal costs its own repetition and nothing else
        assert set(found) <= {200, 404, 429}
        assert 1 + found[200] + found[404] == HEALTHY
    assert sum(found[429] for found in asked.values()) == REFUSED
    assert quota in said
    assert said.count("trust epoch") == VMS
