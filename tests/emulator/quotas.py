"""Quotas, counted always and enforced on demand: requests per project and minute, writes per secret and second."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from tests.emulator.names import project_number
from tests.emulator.status import SERVICE, ApiError, error_info

PER_MINUTE = {"access": 90_000, "read": 600, "write": 600}
WRITES_PER_SECRET_AND_SECOND = 2

_WRITES = (
    "CreateSecret",
    "UpdateSecret",
    "DeleteSecret",
    "AddSecretVersion",
    "EnableSecretVersion",
    "DisableSecretVersion",
    "DestroySecretVersion",
    "SetIamPolicy",
)


def quota_of(method: str) -> str:
    """The quota that a method draws on: access, read or write."""
    if method == "AccessSecretVersion":
        return "access"
    return "write" if method in _WRITES else "read"


class Quotas:
    """Fixed windows of one minute and one second; thread-safe.

    Attributes:
        enforced: Whether too many requests are refused with RESOURCE_EXHAUSTED.
        per_minute: The limits per project, by quota; a test may lower them.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.enforced = False
        self.per_minute = dict(PER_MINUTE)
        self.per_secret = WRITES_PER_SECRET_AND_SECOND
        self._now = now
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._secret_writes: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def draw(self, method: str, project: str, secret: str | None) -> None:
        """Count one request, and refuse it where the quota is enforced and used up."""
        quota, number, now = quota_of(method), project_number(project), self._now().timestamp()
        with self._lock:
            window = (number, quota, int(now // 60))
            self._counts[window] += 1
            if self.enforced and self._counts[window] > self.per_minute[quota]:
                raise _exceeded(quota, number, self.per_minute[quota])
            if method in ("AddSecretVersion", "UpdateSecret") and secret:
                self._secret_writes[secret, int(now)] += 1
                if self.enforced and self._secret_writes[secret, int(now)] > self.per_secret:
                    raise _exceeded("write", number, self.per_secret)

    def busiest_minute(self, quota: str, project: str | None = None) -> int:
        """The most requests on a quota that fell into one minute."""
        number = project_number(project) if project else None
        with self._lock:
            counts = [n for (owner, kind, _), n in self._counts.items() if kind == quota and number in (None, owner)]
        return max(counts, default=0)

    def busiest_second(self, secret: str) -> int:
        """The most writes to one secret, by its canonical name, that fell into one second."""
        with self._lock:
            return max((n for (name, _), n in self._secret_writes.items() if name == secret), default=0)


def _exceeded(quota: str, number: str, limit: int) -> ApiError:
    metric = f"{quota.capitalize()} requests"
    return ApiError(
        "RESOURCE_EXHAUSTED",
        f"Quota exceeded for quota metric '{metric}' and limit '{metric} per minute' of service '{SERVICE}'"
        f" for consumer 'project_number:{number}'.",
        error_info(
            "RATE_LIMIT_EXCEEDED",
            service=SERVICE,
            consumer=f"projects/{number}",
            quota_metric=f"{SERVICE}/{quota}_requests",
            quota_limit=f"{quota.capitalize()}RequestsPerMinutePerProject",
            quota_limit_value=str(limit),
        ),
    )
