"""The ports of a deployed cluster, fixed so that a firewall can name them; all below Linux's ephemeral range.

The dashboard's is absent: it stays on loopback, and no rule lets it through.
"""

from __future__ import annotations

from typing import Final

SCHEDULER: Final = 8786
WORKERS: Final = (9000, 9999)
NANNIES: Final = (10000, 10999)

WORKER_ARGUMENTS: Final = (
    "--worker-port",
    f"{WORKERS[0]}:{WORKERS[1]}",
    "--nanny-port",
    f"{NANNIES[0]}:{NANNIES[1]}",
)
"""What `dask worker` is told, behind the entrypoint's `--`."""
