"""Who may do what: a VM's own Application Default Credentials and IAM, over both transports.

The VM is a process of its own, since google-auth reads where the metadata server is when it is imported.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError
from daskpki.settings import ENDPOINT
from daskpki.store.gsm.store import GsmStore
from tests.emulator import MetadataServer
from tests.emulator.names import project_number
from tests.emulator.tokens import CLOUD_PLATFORM
from tests.support.drafts import STAMP, new_ca
from tests.support.gsm_places import GsmPlace, open_place

ACCOUNT = "operator@test-project.iam.gserviceaccount.com"
MEMBER = f"serviceAccount:{ACCOUNT}"
SECRET = "daskpki_c_secret_s"
LEAF = "daskpki_c_worker_w"
ADMIN, ACCESSOR = "roles/secretmanager.admin", "roles/secretmanager.secretAccessor"
NO_PAYLOADS = [
    *(f"secretmanager.secrets.{verb}" for verb in ("create", "get", "list", "update", "delete")),
    *(f"secretmanager.versions.{verb}" for verb in ("add", "destroy", "get", "list")),
]


class Vm(NamedTuple):
    """A VM with a service account that nothing is granted to."""

    place: GsmPlace
    metadata: MetadataServer
    process: ProcessPoolExecutor

    def run(self, work: Callable[[GsmStore], object]) -> Any:
        """The result of `work` on a store that is opened there."""
        return self.process.submit(_work, self.place, work).result(30)


def _work(place: GsmPlace, work: Callable[[GsmStore], object]) -> object:
    environ = {ENDPOINT: place.endpoint, "GCE_METADATA_HOST": os.environ["GCE_METADATA_HOST"]}
    with closing(GsmStore(place.url, environ=environ, policy=place.policy)) as store:
        return work(store)


def _become_vm(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


@pytest.fixture(scope="module", params=[("grpc", "europe-west1"), ("rest", None)], ids=["grpc-regional", "rest-global"])
def running(request: pytest.FixtureRequest) -> Iterator[Vm]:
    spawn = multiprocessing.get_context("spawn")
    with (
        open_place(*request.param) as place,
        MetadataServer(place.server.tokens, account=ACCOUNT) as metadata,
        ProcessPoolExecutor(1, spawn, initializer=_become_vm, initargs=(metadata.environment,)) as process,
    ):
        place.server.iam.define_role("roles/noPayloads", NO_PAYLOADS)
        place.server.iam.enforced = True
        place.server.seed(place.name(SECRET), b"x", labels=secret_names.labels("c", "secret", "s"))
        yield Vm(place, metadata, process)


@pytest.fixture
def vm(running: Vm) -> Iterator[Vm]:
    yield running
    for role in (ADMIN, ACCESSOR, "roles/noPayloads"):
        running.place.server.iam.withdraw("test-project", role, MEMBER)
    running.metadata.scopes = (CLOUD_PLATFORM,)
    running.metadata.rotate_token()


def read(store: GsmStore) -> bytes:
    return store.secrets.access(SECRET, 1).reveal()


def issue(store: GsmStore) -> int:
    drafts = new_ca(1)
    store.log("c").commit(lambda _: drafts, STAMP)
    store.secrets.create(LEAF, labels=secret_names.labels("c", "worker", "w"))
    return store.secrets.add(LEAF, Confidential("credential"))


def read_leaf(store: GsmStore) -> None:
    store.secrets.latest(LEAF)


def test_the_vm_s_own_account_is_the_principal(vm: Vm) -> None:
    vm.place.server.iam.grant("test-project", ADMIN, MEMBER)
    vm.place.server.reset_journal()
    assert vm.run(read) == b"x"
    assert {entry.principal for entry in vm.place.server.requests()} == {MEMBER}


def test_a_missing_grant_names_the_permission_and_the_role(vm: Vm) -> None:
    with pytest.raises(AccessDeniedError, match=r"secretmanager\.versions\.access") as raised:
        vm.run(read)
    assert ACCESSOR in str(raised.value.hint)
    assert raised.value.exit_code == 5


def test_a_wrong_access_scope_is_not_a_missing_grant(vm: Vm) -> None:
    vm.place.server.iam.grant("test-project", ADMIN, MEMBER)
    vm.metadata.scopes = ("https://www.googleapis.com/auth/devstorage.read_only",)
    vm.metadata.rotate_token()
    with pytest.raises(AccessDeniedError, match="access scopes") as raised:
        vm.run(read)
    assert "--scopes cloud-platform" in str(raised.value.hint)


def test_who_can_read_nothing_but_the_log_can_issue(vm: Vm) -> None:
    iam = vm.place.server.iam
    iam.grant("test-project", "roles/noPayloads", MEMBER)
    number, location = project_number("test-project"), vm.place.url.location
    parent = f"projects/{number}" + (f"/locations/{location}" if location else "")
    log_only = f'resource.name.startsWith("{parent}/secrets/{secret_names.records_id("c")}/")'
    iam.grant("test-project", ACCESSOR, MEMBER, condition=log_only)
    assert vm.run(issue) == 1
    with pytest.raises(AccessDeniedError):
        vm.run(read_leaf)
