"""The servers as a process of their own, for tests in other processes and network namespaces.

`python -m tests.emulator` prints one line of JSON with the addresses, then serves until SIGTERM or SIGINT, or with
`--exit-with-stdin` until its standard input ends. `--iam FILE` is JSON; all of it is optional:

    {"tokens": {"TOKEN": {"principal": "user:alice@example.com", "scopes": ["..."], "lifetime": 3600}},
     "grants": [{"project": "p", "role": "roles/secretmanager.viewer", "members": ["..."], "prefix": "daskpki_"}],
     "secrets": [{"secret": "projects/p/secrets/s", "payloads": ["BASE64"], "labels": {}}],
     "faults": [{"method": "AccessSecretVersion", "http": 503, "times": 2}],
     "metadata_faults": [{"method": "instance/service-accounts/*/token", "http": 503}]}
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.emulator.metadata import MetadataServer
from tests.emulator.server import SecretManagerServer
from tests.emulator.tokens import CLOUD_PLATFORM


def main() -> None:
    """Serve."""
    options = _parser().parse_args()
    config = json.loads(options.iam.read_text()) if options.iam else {}
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(options.journal.open("w")) if options.journal else None
        server = SecretManagerServer(
            host=options.host, rest_port=options.rest_port, grpc_port=options.grpc_port, journal_sink=sink
        )
        metadata = MetadataServer(
            server.tokens,
            host=options.host,
            port=options.metadata_port,
            project=options.project,
            account=options.account or None,
            scopes=options.scopes.split(","),
            instance=options.instance,
            attributes=dict(pair.split("=", 1) for pair in options.attribute),
            journal_sink=sink,
        )
        configure(server, metadata, config)
        stack.enter_context(server)
        stack.enter_context(metadata)
        _announce(server, metadata)
        _wait(exit_with_stdin=options.exit_with_stdin)


def configure(server: SecretManagerServer, metadata: MetadataServer, config: Mapping[str, Any]) -> None:
    """Apply an `--iam` file."""
    for text, settings in config.get("tokens", {}).items():
        server.tokens.add(text, **settings)
    for grant in config.get("grants", ()):
        _grant(server, grant)
    for seed in config.get("secrets", ()):
        payloads = map(base64.b64decode, seed.get("payloads", ()))
        server.seed(seed["secret"], *payloads, labels=seed.get("labels"))
    for fault in config.get("faults", ()):
        server.faults.add(**fault)
    for fault in config.get("metadata_faults", ()):
        metadata.faults.add(**fault)


def _grant(server: SecretManagerServer, grant: Mapping[str, Any]) -> None:
    arguments = (grant["project"], grant["role"], *grant["members"])
    if "prefix" in grant:
        server.iam.grant_prefix(*arguments, prefix=grant["prefix"])
    else:
        server.iam.grant(*arguments, condition=grant.get("condition", ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    for port in ("--rest-port", "--grpc-port", "--metadata-port"):
        parser.add_argument(port, type=int, default=0)
    parser.add_argument("--iam", type=Path)
    parser.add_argument("--journal", type=Path, help="write every request to this file, one JSON object a line")
    parser.add_argument("--project", default="test-project")
    parser.add_argument("--account", default="vm@test-project.iam.gserviceaccount.com", help="empty for none")
    parser.add_argument("--scopes", default=CLOUD_PLATFORM)
    parser.add_argument("--instance", default="vm-1")
    parser.add_argument("--attribute", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--exit-with-stdin", action="store_true")
    return parser


def _announce(server: SecretManagerServer, metadata: MetadataServer) -> None:
    addresses = {
        "rest_url": server.rest_url,
        "grpc_target": server.grpc_target,
        "metadata_host": metadata.host,
        "rest_port": server.listener.port,
        "grpc_port": int(server.grpc_target.rpartition(":")[2]),
        "metadata_port": metadata.listener.port,
    }
    print(json.dumps(addresses), flush=True)  # noqa: T201 (this is what the parent reads)


def _wait(*, exit_with_stdin: bool) -> None:
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    if exit_with_stdin:
        threading.Thread(target=_set_at_end_of_stdin, args=(done,), daemon=True).start()
    done.wait()


def _set_at_end_of_stdin(done: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):  # not sys.stdin's buffer: its lock would outlive the main thread
        continue
    done.set()


if __name__ == "__main__":
    main()
