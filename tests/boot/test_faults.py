"""The fault matrix: every fault at every request of a boot, with its outcome, and none outlives the deadline.

A boot asks four things: the metadata server for a token, then Secret Manager for the leaf, for the trust document, and
for the trust document's next number. A fault that passes ends in a start; one that stays ends in exit code 75 with the
cause; what no waiting will mend ends at once, in 3, 4 or 5.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError, NotTrustedError, UnavailableError
from tests.boot.cloud import TOKEN_PATH, Cloud, boot_here

ACCESSES = {"leaf": 1, "trust": 2, "next": 3}
TRANSIENT: dict[str, dict[str, Any]] = {
    "503": {"http": 503},
    "500": {"http": 500},
    "502 as a page": {"http": 502, "html": True},
    "429": {"http": 429},
    "408": {"http": 408},
    "reset": {"reset": True},
    "truncated": {"truncate": True},
}
ONLY_ACCESS: dict[str, dict[str, Any]] = {
    "wrong crc32c": {"wrong_crc32c": True},
    "401": {"http": 401},
    "grant not there yet": {"status": "PERMISSION_DENIED", "reason": "IAM_PERMISSION_DENIED"},
}
ONLY_WITH_PAYLOAD = ("wrong crc32c", "truncated")
"""The reply for the next number is a 404, which these leave as it is."""

DEADLINE = 1.5
Injector = Callable[[Cloud, dict[str, Any], int | None], None]


def at_token(cloud: Cloud, fault: dict[str, Any], times: int | None) -> None:
    cloud.metadata.fail(TOKEN_PATH, times=times, **fault)


def at_access(number: int) -> Injector:
    def inject(cloud: Cloud, fault: dict[str, Any], times: int | None) -> None:
        cloud.server.fail("AccessSecretVersion", nth=number, times=times, **fault)

    return inject


def cells() -> list[Any]:
    found = [pytest.param(at_token, fault, id=f"{name} at token") for name, fault in TRANSIENT.items()]
    for place, number in ACCESSES.items():
        for name, fault in {**TRANSIENT, **ONLY_ACCESS}.items():
            if place != "next" or name not in ONLY_WITH_PAYLOAD:
                found.append(pytest.param(at_access(number), fault, id=f"{name} at {place}"))
    return found


@pytest.mark.parametrize(("inject", "fault"), cells())
def test_a_fault_that_passes_ends_in_a_start(cloud: Cloud, inject: Injector, fault: dict[str, Any]) -> None:
    inject(cloud, fault, 2)
    assert boot_here(cloud.environ, "scheduler").started


@pytest.mark.parametrize(("inject", "fault"), cells())
def test_a_fault_that_stays_ends_at_the_deadline_with_its_cause(
    cloud: Cloud, inject: Injector, fault: dict[str, Any]
) -> None:
    inject(cloud, fault, None)
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match="gave up at the deadline: ") as caught:
        boot_here(cloud.environ | {"DASKPKI_DEADLINE": "1"}, "scheduler")
    assert time.monotonic() - begin < DEADLINE
    assert caught.value.exit_code == 75


@pytest.mark.parametrize("place", ["token", *ACCESSES])
def test_silence_does_not_outlive_the_deadline(cloud: Cloud, place: str) -> None:
    inject = at_token if place == "token" else at_access(ACCESSES[place])
    inject(cloud, {"latency": 30.0}, None)
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match="no answer in time"):
        boot_here(cloud.environ | {"DASKPKI_DEADLINE": "1"}, "scheduler")
    assert time.monotonic() - begin < DEADLINE


def test_the_metadata_server_may_come_up_late(cloud: Cloud) -> None:
    with cloud.metadata.refusing(), pytest.raises(UnavailableError, match="Connection refused"):
        boot_here(cloud.environ | {"DASKPKI_DEADLINE": "1"}, "scheduler")
    assert boot_here(cloud.environ, "scheduler").started


def test_a_token_that_expires_between_two_requests_is_replaced(cloud: Cloud) -> None:
    def expire(_entry: object) -> None:
        cloud.server.tokens.revoke_all()
        cloud.metadata.rotate_token()

    cloud.server.after("AccessSecretVersion", expire)
    assert boot_here(cloud.environ, "scheduler").started
    assert cloud.metadata.count() == 2


def _no_account(cloud: Cloud) -> None:
    cloud.metadata.account = None


def _https_only(cloud: Cloud) -> None:
    cloud.metadata.require_https()


def _wrong_scope(cloud: Cloud) -> None:
    cloud.metadata.scopes = ("https://www.googleapis.com/auth/logging.write",)


def _api_off(cloud: Cloud) -> None:
    cloud.server.disable_api("test-project")


def _no_secret(cloud: Cloud) -> None:
    cloud.server.fail("AccessSecretVersion", times=None, status="NOT_FOUND")


def _disabled(cloud: Cloud) -> None:
    message = "Secret Version [projects/1/secrets/s/versions/1] is in DISABLED state."
    cloud.server.fail("AccessSecretVersion", times=None, status="FAILED_PRECONDITION", message=message)


def _destroyed(cloud: Cloud) -> None:
    message = "Secret Version [projects/1/secrets/s/versions/1] is in DESTROYED state."
    cloud.server.fail("AccessSecretVersion", times=None, status="FAILED_PRECONDITION", message=message)


def _denied_by_policy(cloud: Cloud) -> None:
    cloud.server.fail("AccessSecretVersion", times=None, http=403, html=True)


@pytest.mark.parametrize(
    ("break_it", "error", "words", "remedy"),
    [
        (_no_account, AccessDeniedError, "no service account", "set-service-account"),
        (_https_only, AccessDeniedError, "refuses plain HTTP", "HTTPS metadata"),
        (_wrong_scope, AccessDeniedError, "access scopes", "cloud-platform"),
        (_api_off, AccessDeniedError, "API is off", "gcloud services enable"),
        (_no_secret, NotFoundError, "no credential scheduler/scheduler", "issue scheduler"),
        (_disabled, NotTrustedError, "is disabled", "enable it"),
        (_destroyed, NotTrustedError, "is destroyed", "roll back"),
        (_denied_by_policy, AccessDeniedError, "403", ""),
    ],
)
def test_what_no_waiting_mends_ends_at_once(
    cloud: Cloud, break_it: Callable[[Cloud], None], error: type[DaskpkiError], words: str, remedy: str
) -> None:
    break_it(cloud)
    with pytest.raises(error, match=words) as caught:
        boot_here(cloud.environ, "scheduler")
    assert remedy in (caught.value.hint or "")
    assert cloud.server.count() + cloud.metadata.count() <= 3


def test_a_worker_cannot_read_the_schedulers_secret_and_is_told_which_grant_is_missing(cloud: Cloud) -> None:
    member = f"serviceAccount:{cloud.metadata.account}"
    for kind in ("worker_worker", "trust"):
        prefix = cloud.secret(kind).rpartition("/")[2]
        cloud.server.iam.grant_prefix("test-project", "roles/secretmanager.secretAccessor", member, prefix=prefix)
    assert boot_here(cloud.environ, "exec", "worker", "--", "true").started
    with pytest.raises(UnavailableError, match=r"secretmanager\.versions\.access") as caught:
        boot_here(cloud.environ | {"DASKPKI_DEADLINE": "1"}, "scheduler")
    assert caught.value.hint == (
        "gcloud secrets add-iam-policy-binding daskpki_c_scheduler_scheduler --project test-project "
        f"--member {member} --role roles/secretmanager.secretAccessor"
    )
