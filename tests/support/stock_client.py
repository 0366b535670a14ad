"""A stock Dask client for the tests: `python -m tests.support.stock_client DIRECTORY PORT WORKERS` prints what it gets."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.security import Security


def main() -> None:
    directory, port, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    security = Security(
        tls_ca_file=str(directory / "ca.pem"),
        tls_client_cert=str(directory / "cert.pem"),
        tls_client_key=str(directory / "key.pem"),
        require_encryption=True,
    )
    client: Any = Client(f"tls://127.0.0.1:{port}", security=security, timeout=60)
    with client:
        client.wait_for_workers(workers, timeout=60)
        total = client.submit(sum, [20, 22]).result(timeout=60)
        print("result", total)  # noqa: T201 - the test reads it
        print("scheduler uid", client.run_on_scheduler(os.getuid))  # noqa: T201 - likewise
        for uid in client.run(os.getuid).values():
            print("worker uid", uid)  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
