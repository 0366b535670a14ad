"""How many cores this process may use: affinity and the container's limit, as Dask counts them for its own default."""

from __future__ import annotations

import math
import os

_LIMIT = "/sys/fs/cgroup/cpu.max"


def usable_cores(limit_file: str = _LIMIT) -> int:
    """At least 1. `limit_file` is cgroup v2's `QUOTA PERIOD`, in microseconds; QUOTA is `max` without a limit."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(limit_file, encoding="ascii") as file:  # noqa: PTH123 - pathlib costs 9 ms at boot
            quota, period = file.read().split()
            return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return max(1, allowed)
