"""Errors as Google APIs give them: one status, one message, google.rpc details; and their two spellings.

The names and the HTTP mapping are those of google/rpc/code.proto.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

SERVICE = "secretmanager.googleapis.com"

HTTP_BY_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}

# The other way round is not unique: this is what gRPC shows for an HTTP status a front end made up.
STATUS_BY_HTTP = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class ApiError(Exception):
    """A refusal, with what each transport needs to tell it."""

    def __init__(
        self,
        status: str,
        message: str,
        *details: Message,
        http_status: int | None = None,
        headers: Mapping[str, str] | None = None,
        html: bool = False,
    ) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.details = details
        self.http_status = http_status or HTTP_BY_STATUS[status]
        self.headers = dict(headers or {})
        self.html = html

    def rpc_status(self) -> status_pb2.Status:
        """The google.rpc.Status that both transports carry."""
        code = code_pb2.Code.Value(self.status)
        status = status_pb2.Status(code=code, message=self.message)
        for detail in self.details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status


def error_info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    """The machine-readable reason of a refusal."""
    domain = "iam.googleapis.com" if reason.startswith("IAM_") else "googleapis.com"
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def invalid(message: str) -> ApiError:
    """The request can never succeed."""
    return ApiError("INVALID_ARGUMENT", message)


def failed_precondition(message: str) -> ApiError:
    """The request does not fit the resource's present state."""
    return ApiError("FAILED_PRECONDITION", message)


def not_found(message: str) -> ApiError:
    """The caller may know that nothing is there."""
    return ApiError("NOT_FOUND", message)


def permission_denied(permission: str, resource: str) -> ApiError:
    """A missing grant; the same words for a missing resource, so that names cannot be probed."""
    return ApiError(
        "PERMISSION_DENIED",
        f"Permission '{permission}' denied for resource '{resource}' (or it may not exist).",
        error_info("IAM_PERMISSION_DENIED", permission=permission, resource=resource),
    )
