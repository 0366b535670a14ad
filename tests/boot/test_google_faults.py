"""The fault matrix: every fault at every request of a boot, with its outcome, and none outlives the deadline.

A boot asks the metadata server for the VM's name (where that is its credential's) and for a token; then Secret Manager
for the leaf, the newest trust document, the trust document's next number, and the secrets to mount. What may be wrong
around a boot has its tests elsewhere: proxies and TLS in test_http_connections.py, clocks in test_verify.py, no memfd
in test_memfd.py; a read-only root, any user, PID 1 in tests/deploy/test_single_vm.py.
"""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

from daskpki.boot.fetch import fetch
from daskpki.boot.http import RetryPolicy
from daskpki.boot.options import parse_arguments
from daskpki.boot.settings import parse_settings
from daskpki.errors import DaskpkiError, UnavailableError
from tests.support.boot_cloud import TOKEN_PATH, Cloud, boot_here, run_entrypoint
from tests.support.material import Cluster, make_cluster

EXPECTED: Final = """
                        name   token  leaf   trust  next   secret
slow                    75     75     75     75     75     75
reset                   75     75     75     75     75     75
truncated               75     75     75     75     -      75
408                     75     75     75     75     75     75
429                     75     75     75     75     75     75
500                     75     75     75     75     75     75
502 as a page           75     75     75     75     75     75
503                     75     75     75     75     75     75
wrong crc32c            -      -      75     75     -      75
token not accepted      -      -      75     75     75     75
grant not there yet     -      -      75     75     75     75
not there               4      5      4      4      start  4
disabled                -      -      3      3      3      3
destroyed               -      -      3      3      3      3
API off                 -      -      5      5      5      5
wrong scope             -      -      5      5      5      5
403 as a page           5      5      5      5      5      5
another server          5      5      -      -      -      -
"""
"""Exit codes. Where it is 75, the fault may pass, and then the boot goes on; `-` is no such thing, or no difference."""

DISABLED = "Secret Version [projects/1/secrets/s/versions/1] is in {} state."
FAULTS: Final[dict[str, dict[str, Any]]] = {
    "slow": {"latency": 30.0},
    "reset": {"reset": True},
    "truncated": {"truncate": True},
    "408": {"http": 408},
    "429": {"http": 429},
    "500": {"http": 500},
    "502 as a page": {"http": 502, "html": True},
    "503": {"http": 503},
    "wrong crc32c": {"wrong_crc32c": True},
    "token not accepted": {"http": 401},
    "grant not there yet": {"status": "PERMISSION_DENIED", "reason": "IAM_PERMISSION_DENIED"},
    "not there": {"http": 404},
    "disabled": {"status": "FAILED_PRECONDITION", "message": DISABLED.format("DISABLED")},
    "destroyed": {"status": "FAILED_PRECONDITION", "message": DISABLED.format("DESTROYED")},
    "API off": {"status": "PERMISSION_DENIED", "reason": "SERVICE_DISABLED"},
    "wrong scope": {"status": "PERMISSION_DENIED", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"},
    "403 as a page": {"http": 403, "html": True},
    "another server": {"http": 302, "html": True},
}
SECRETS: Final = {"leaf": ("worker_vm-1", 1), "trust": ("trust", 1), "next": ("trust", 2)}
MOUNT = "db-password=fd"


class Cell:
    """One fault at one request, and what is to come of it: an exit code, or `start`."""

    def __init__(self, fault: str, request: str, outcome: str) -> None:
        self.fault, self.request, self.outcome = fault, request, outcome

    def strike(self, cloud: Cloud, *, times: int | None, **settings: Any) -> None:
        chosen = {**FAULTS[self.fault], **settings}
        if self.request in ("name", "token"):
            cloud.metadata.fail("instance/name" if self.request == "name" else TOKEN_PATH, times=times, **chosen)
            return
        kind, number = SECRETS.get(self.request, ("secret_db-password", 1))
        cloud.server.fail("AccessSecretVersion", secret=f"*_{kind}", nth=number, times=times, **chosen)


def cells(*outcomes: str) -> list[Any]:
    head, *rows = EXPECTED.strip("\n").splitlines()
    return [
        pytest.param(Cell(fault, request, outcome), id=f"{fault} at {request}")
        for fault, row in ((row[:24].strip(), row[24:].split()) for row in rows)
        for request, outcome in zip(head.split(), row, strict=True)
        if outcome in outcomes
    ]


def test_every_fault_has_its_row() -> None:
    assert {cell.values[0].fault for cell in cells("75", "3", "4", "5")} == set(FAULTS)


@pytest.fixture(scope="session")
def busy() -> Cluster:
    return make_cluster("busy", ["worker/vm-1"])


@pytest.fixture
def cloud(cloud: Cloud, busy: Cluster) -> Cloud:
    cloud.cluster = busy
    busy.seed(cloud.server, cloud.parent)
    cloud.server.seed(cloud.secret("secret_db-password"), b"hunter2")
    return cloud


ARGUMENTS = ("exec", "worker", "--name", "@instance", "--secret", MOUNT, "--", "true")


def read_all(cloud: Cloud, seconds: float, *, real: bool = False) -> list[str]:
    """The notes of a boot that reads all, within these seconds; only waiting moves their clock, unless it is `real`."""
    notes: list[str] = []
    passed = [0.0]

    def wait(pause: float) -> None:
        passed[0] += pause

    patience = RetryPolicy(seconds, notes.append, sleep=wait, now=lambda: passed[0])
    if real:
        patience = RetryPolicy(time.monotonic() + seconds, notes.append)
    fetch(parse_settings(parse_arguments(ARGUMENTS), cloud.environ), cloud.environ, patience)
    return notes


def test_a_boot_makes_each_of_the_requests_once(cloud: Cloud) -> None:
    assert read_all(cloud, 20) == []
    assert [entry.method for entry in cloud.metadata.journal.entries()] == ["instance/name", TOKEN_PATH]
    assert cloud.requests == [
        "worker_vm-1/versions/latest", "trust/versions/latest", "trust/versions/2",
        "secret_db-password/versions/latest",
    ]  # fmt: skip


@pytest.mark.parametrize("cell", cells("75"))
def test_a_fault_that_passes_ends_in_a_start(cloud: Cloud, cell: Cell) -> None:
    cell.strike(cloud, times=2, **({"latency": 0.1} if cell.fault == "slow" else {}))
    notes = read_all(cloud, 20)
    assert len(notes) == (0 if cell.fault == "slow" else 1)


@pytest.mark.parametrize("cell", cells("75"))
def test_a_fault_that_stays_ends_at_the_deadline_with_cause_and_remedy(cloud: Cloud, cell: Cell) -> None:
    slow = cell.fault == "slow"
    cell.strike(cloud, times=None)
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match=r"^gave up at the deadline: \S") as caught:
        read_all(cloud, 0.4 if slow else 20, real=slow)
    assert time.monotonic() - begin < 10
    assert caught.value.hint


@pytest.mark.parametrize("cell", cells("3", "4", "5"))
def test_what_no_waiting_mends_ends_at_once_with_cause_and_remedy(cloud: Cloud, cell: Cell) -> None:
    cell.strike(cloud, times=1)
    with pytest.raises(DaskpkiError) as caught:
        read_all(cloud, 20)
    assert str(caught.value.exit_code) == cell.outcome
    assert caught.value.hint


@pytest.mark.parametrize("cell", cells("start"))
def test_what_a_healthy_boot_meets_is_no_fault(cloud: Cloud, cell: Cell) -> None:
    cell.strike(cloud, times=None)
    assert read_all(cloud, 20) == []


AS_PROCESSES = ("429 at token", "reset at trust", "grant not there yet at leaf", "API off at leaf", "disabled at next")


@pytest.mark.parametrize("cell", [one for one in cells("75", "3", "5") if one.id in AS_PROCESSES])
def test_a_process_ends_with_one_last_line_and_the_exit_code(cloud: Cloud, cell: Cell) -> None:
    cell.strike(cloud, times=None if cell.outcome == "75" else 1)
    begin = time.monotonic()
    done = run_entrypoint(cloud.environ | {"DASKPKI_DEADLINE": "1"}, *ARGUMENTS)
    assert str(done.returncode) == cell.outcome
    assert time.monotonic() - begin < 30
    *notes, last = done.stderr.splitlines()
    assert last.startswith("daskpki-entrypoint: error: ")
    assert last.endswith(")")
    assert all(note.endswith("; trying again") for note in notes)


def test_servers_may_come_up_late(cloud: Cloud) -> None:
    with (
        cloud.metadata.refusing(),
        pytest.raises(UnavailableError, match=r"metadata server at 127\.0\.0\.1: Connection re"),
    ):
        read_all(cloud, 20)
    cloud.server.listener.stop()
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1: Connection refused") as caught:
        read_all(cloud, 20)
    assert "Private Google Access" in str(caught.value.hint)
    cloud.server.listener.start()
    read_all(cloud, 20)


@pytest.mark.parametrize("number", [2, 3])
def test_a_token_that_expires_between_two_requests_is_replaced(cloud: Cloud, number: int) -> None:
    def expire(_entry: object) -> None:
        cloud.server.tokens.revoke_all()
        cloud.metadata.rotate_token()

    cloud.server.before("AccessSecretVersion", expire, nth=number)
    assert len(read_all(cloud, 20)) == 1
    assert cloud.metadata.count(TOKEN_PATH) == 2


def test_a_worker_cannot_read_the_schedulers_secret_and_is_told_which_grant_is_missing(cloud: Cloud) -> None:
    member = f"serviceAccount:{cloud.metadata.account}"
    for kind in ("worker_vm-1", "trust", "secret"):
        prefix = cloud.secret(kind).rpartition("/")[2]
        cloud.server.iam.grant_prefix("test-project", "roles/secretmanager.secretAccessor", member, prefix=prefix)
    assert boot_here(cloud.environ, *ARGUMENTS).started
    with pytest.raises(UnavailableError, match=r"secretmanager\.versions\.access") as caught:
        boot_here(cloud.environ | {"DASKPKI_DEADLINE": "1"}, "scheduler")
    assert caught.value.hint == (
        "gcloud secrets add-iam-policy-binding daskpki_busy_scheduler_scheduler --project test-project "
        f"--member {member} --role roles/secretmanager.secretAccessor"
    )


def test_an_answer_without_end_ends_at_the_deadline(cloud: Cloud) -> None:
    """A server that calls every further number disabled: each request succeeds in being refused, and time runs out."""
    Cell("disabled", "next", "75").strike(cloud, times=None)
    with pytest.raises(UnavailableError, match="gave up at the deadline"):
        read_all(cloud, 0.5, real=True)
