"""Start `python -m tests.emulator` as a process of its own, also inside a network namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ServerProcess:
    """A running process and where it listens."""

    process: subprocess.Popen[str]
    rest_url: str
    grpc_target: str
    metadata_host: str


@contextmanager
def server_process(*arguments: str, prefix: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """Run the servers until the block ends; they also end with this process.

    Args:
        arguments: Those of `python -m tests.emulator`.
        prefix: What runs it, such as `("ip", "netns", "exec", NAME)`.
    """
    command = [*prefix, sys.executable, "-m", "tests.emulator", "--exit-with-stdin", *arguments]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        where = json.loads(process.stdout.readline())
        try:
            yield ServerProcess(process, where["rest_url"], where["grpc_target"], where["metadata_host"])
        finally:
            process.stdin.close()
            process.wait(30)
