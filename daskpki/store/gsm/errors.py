"""Translates Secret Manager's errors into daskpki's, with the remedy. Pure.

Errors of one status are distinguished by their reason: a missing grant, a missing access scope of a VM, an API that is
off; a version that is missing, disabled or destroyed. `METHODS` says whether a cut-off call may be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from daskpki.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    AmbiguousError,
    ConflictError,
    DaskpkiError,
    DisabledError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from daskpki.quoting import shortened
from daskpki.settings import GsmUrl

NOT_DONE: Final = frozenset({"RESOURCE_EXHAUSTED", "ABORTED"})
"""Statuses of calls that changed nothing and may succeed later."""

CUT_OFF: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED", "DATA_LOSS"})
"""Statuses of calls that failed on the way there or back: a write may have been carried out."""

_BY_HTTP: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Method(NamedTuple):
    """A method's role for IAM hints, whether it may be repeated when cut off, and the status that then means done."""

    role: str
    repeatable: bool = True
    done: str | None = None


_ADMIN: Final = "roles/secretmanager.admin"
_MANAGER: Final = "roles/secretmanager.secretVersionManager"

METHODS: Final[Mapping[str, Method]] = {
    "create_secret": Method(_ADMIN, repeatable=False),
    "get_secret": Method("roles/secretmanager.viewer"),
    "list_secrets": Method("roles/secretmanager.viewer"),
    "update_secret": Method(_ADMIN, repeatable=False),
    "delete_secret": Method(_ADMIN, done="NOT_FOUND"),
    "add_secret_version": Method("roles/secretmanager.secretVersionAdder", repeatable=False),
    "access_secret_version": Method("roles/secretmanager.secretAccessor"),
    "list_secret_versions": Method("roles/secretmanager.viewer"),
    "enable_secret_version": Method(_MANAGER),
    "disable_secret_version": Method(_MANAGER),
    "destroy_secret_version": Method(_MANAGER, done="FAILED_PRECONDITION"),
    "get_iam_policy": Method("roles/secretmanager.viewer"),
    "set_iam_policy": Method(_ADMIN, repeatable=False),
    "test_iam_permissions": Method("roles/secretmanager.viewer"),
}


class ApiError(Exception):
    """An error response: canonical status, message, reason and metadata."""

    def __init__(self, status: str, message: str, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, reason, metadata)  # pickle calls the class with these arguments
        self.status = status
        self.message = message
        self.reason = reason
        self.metadata = {str(name): shortened(str(value)) for name, value in (metadata or {}).items()}

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


def status_of_http(code: int) -> str:
    """The canonical status of an HTTP code."""
    return _BY_HTTP.get(code, "UNKNOWN")


def is_temporary(http_status: int) -> bool:
    """True if another attempt may succeed after this HTTP status."""
    return http_status in (408, 429) or http_status >= 500  # noqa: PLR2004 - server errors


def may_retry(refusal: ApiError, method: str) -> bool:
    """True if the same call may be made again."""
    return refusal.status in NOT_DONE or (refusal.status in CUT_OFF and METHODS[method].repeatable)


def error_for(refusal: ApiError, method: str, subject: str, url: GsmUrl) -> DaskpkiError:
    """Translate a refusal; `subject` is the requested object in the user's words."""
    what = f"{subject} in {url}"
    match refusal.status:
        case "NOT_FOUND":
            error: DaskpkiError = NotFoundError(f"{what} does not exist")
        case "ALREADY_EXISTS":
            error = AlreadyExistsError(f"{what} exists")
        case "FAILED_PRECONDITION":
            error = _precondition(what, refusal.message)
        case "INVALID_ARGUMENT" | "OUT_OF_RANGE":
            error = UsageError(f"{what}: {refusal.message}")
        case "PERMISSION_DENIED" | "UNAUTHENTICATED":
            error = _denied(refusal, method, what, url)
        case _:
            error = _temporary(refusal, method, what)
    return error


def _temporary(refusal: ApiError, method: str, what: str) -> DaskpkiError:
    if may_retry(refusal, method):
        return UnavailableError(f"{what}: {refusal.message}", hint="try again in a minute")
    if refusal.status in CUT_OFF:
        return AmbiguousError(f"{what}: the write was cut off ({refusal.message})", hint="run the command again")
    return DaskpkiError(f"{what}: {refusal}")


def missing_permission(refusal: ApiError) -> str | None:
    """The permission that is not granted (yet), if the refusal names it; None if that is not the reason."""
    if refusal.reason != "IAM_PERMISSION_DENIED":
        return None
    return refusal.metadata.get("permission") or "secretmanager.versions.access"


def denied_by_google(
    refusal: ApiError, project: str | None = None, api: str = "secretmanager.googleapis.com"
) -> AccessDeniedError | None:
    """Explain a refusal that came before the API saw the request: the API is off, or the project may not be used.

    The project is usually that of the caller's credentials, not the one that the request is for.
    """
    named = refusal.metadata.get("consumer", "").removeprefix("projects/") or project or "PROJECT"
    service = refusal.metadata.get("service") or api
    match refusal.reason:
        case "SERVICE_DISABLED":
            return AccessDeniedError(
                f"the API {service} is off in project {named}",
                hint=f"gcloud services enable {service} --project {named}",
            )
        case "USER_PROJECT_DENIED" | "CONSUMER_INVALID":
            return AccessDeniedError(
                f"the project {named}, which the credentials bill for requests, may not be used: {refusal.message}",
                hint="gcloud auth application-default set-quota-project PROJECT, one that you may use "
                "(roles/serviceusage.serviceUsageConsumer)",
            )
        case "BILLING_DISABLED":
            return AccessDeniedError(f"project {named} has no billing account", hint="link one to it in the console")
    return None


_KEY: Final = re.compile(r"projects/[^\s/]+/locations/[^\s/]+/keyRings/[^\s/]+/cryptoKeys/\S+")


def _precondition(what: str, message: str) -> DaskpkiError:
    words = re.sub(r"projects/\S+", "", message).lower()  # without the secret's name, which may contain any of them
    if _KEY.search(message):
        return AccessDeniedError(
            f"{what} is encrypted by a key of Cloud KMS: {message}",
            hint="gcloud kms keys versions enable (or restore, while its destruction is scheduled)",
        )
    if "etag" in words:
        return ConflictError(f"{what} was changed in between", hint="read it again and repeat the change")
    if "destroyed" in words:
        return DisabledError(f"{what} is destroyed", hint="roll back to another version")
    if "disabled" in words:
        return DisabledError(f"{what} is disabled", hint="enable it, or roll back to another version")
    return DaskpkiError(f"{what}: {message}")


def _denied(refusal: ApiError, method: str, what: str, url: GsmUrl) -> DaskpkiError:
    if refusal.status == "UNAUTHENTICATED":
        return AccessDeniedError(
            f"{what}: Google did not accept the credentials ({refusal.message})",
            hint="gcloud auth application-default login, or attach a service account to this VM",
        )
    if error := denied_by_google(refusal, url.project):
        return error
    if refusal.reason == "ACCESS_TOKEN_SCOPE_INSUFFICIENT" or "authentication scopes" in refusal.message:
        return AccessDeniedError(
            f"{what}: this VM's access scopes do not allow Secret Manager, whatever IAM grants",
            hint="stop the VM, then gcloud compute instances set-service-account NAME --scopes cloud-platform",
        )
    permission = refusal.metadata.get("permission")
    if refusal.reason == "IAM_PERMISSION_DENIED" or permission:
        missing = permission or "the permission for it"
        ours = permission is None or permission.startswith("secretmanager.")
        return AccessDeniedError(
            f"{what}: {missing} is not granted, or it does not exist" + ("" if ours else f" ({refusal.message})"),
            hint=f"grant {METHODS[method].role if ours else f'a role with {missing}'}; a new grant takes some minutes "
            "to act",
        )
    return AccessDeniedError(
        f"{what}: {refusal.message}",
        hint="this is not a missing grant: check VPC Service Controls, organisation policies, and proxies on the way",
    )
