"""The demo's home directory and processes: real commands and entrypoints, always ended and removed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, Queue
from typing import Final, Self

from daskpki.errors import DaskpkiError

_START_LIMIT: Final = 40.0
"""Seconds that a scheduler or worker may take to start; a slow machine needs a tenth of that."""
_END_LIMIT: Final = 10.0
_KEPT_LINES: Final = 30


class Node:
    """One process of the cluster; its output is read while it runs, and the last lines are kept."""

    def __init__(self, name: str, arguments: list[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self._lines: Queue[str | None] = Queue()
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        command = [sys.executable, "-m", "daskpki.boot", *arguments]
        self.process = subprocess.Popen(
            command, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._last.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> str:
        """Wait for a line with `pattern`, and return its first group; DaskpkiError if none comes in time."""
        expression = re.compile(pattern)
        while True:
            try:
                line = self._lines.get(timeout=_START_LIMIT)
            except Empty:
                line = None
            if line is None:
                raise DaskpkiError(f"{self.name} did not start; its last lines:\n{''.join(self._last)}")
            if found := expression.search(line):
                return found[1]

    def end(self) -> int:
        """End the process, and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Stage:
    """A temporary home directory with a local store and its key file; removed at the end."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="daskpki-demo-"))  # 0700 from its first instant
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DASKPKI_", "DASK_"))}
        self.environ = kept | {
            "HOME": str(self.home),
            "DASKPKI_HOME": str(self.home / "daskpki"),
            "DASKPKI_KEY_FILE": str(self.home / "store.key"),
            "DASK_CONFIG": str(self.home / "dask"),
            "DASK_TEMPORARY_DIRECTORY": str(self.home / "scratch"),
        }
        self._nodes: list[Node] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for node in reversed(self._nodes):
            node.end()
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *arguments: str, module: str = "daskpki", **environ: str) -> list[str]:
        """Run a daskpki command, or another module, and return its output lines; DaskpkiError if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DaskpkiError(f"{module} {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def start(self, role: str, name: str, *arguments: str) -> Node:
        """Start a scheduler or worker through the entrypoint; it is ended with the stage."""
        environ = self.environ | {"DASKPKI_STORE": "local:", "DASKPKI_NAME": name}
        node = Node(f"{role}/{name}", [role, *arguments], environ)
        self._nodes.append(node)
        return node
