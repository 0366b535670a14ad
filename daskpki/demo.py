"""`daskpki demo`: a cluster, a computation and three attacks in a temporary home directory, narrated.

`Stage` is the home directory and the processes that run in it: real commands and entrypoints, always ended and removed.
`tell_story` has the steps and their checks; the attackers connect by plain TLS. Run as a program, this module is
Alice's part: it connects to the scheduler at an address, computes a sum, and prints how the workers shared it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue
from typing import Final, Self

import daskpki
from daskpki.cluster.tls import key_pair, load_key_pair
from daskpki.credentials.contexts import split_scheduler
from daskpki.credentials.sources import fetch_credential
from daskpki.credentials.verified import Pins, VerifiedCredential
from daskpki.errors import DaskpkiError
from daskpki.identity import Role
from daskpki.settings import DEFAULT_CLUSTER, store_url

_START_LIMIT: Final = 40.0
"""Seconds that a scheduler or worker may take to start; a slow machine needs a tenth of that."""
_END_LIMIT: Final = 10.0
_CONNECT_LIMIT: Final = 10.0
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


def _context(anchors: Sequence[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a stranger takes any scheduler
    context.load_verify_locations(cadata=b"".join(anchors))
    return context


def _refusal(address: str, context: ssl.SSLContext) -> str:
    """Connect, and return the reason of the refusal; DaskpkiError if there is none.

    In TLS 1.3 the client learns of it only when it reads after the handshake (RFC 8446, 4.4.2.4).
    """
    try:
        with (
            socket.create_connection(split_scheduler(address), _CONNECT_LIMIT) as plain,
            context.wrap_socket(plain) as secured,
        ):
            secured.recv(1)
    except ssl.SSLError as error:
        return str(error.reason).lower().replace("_", " ")
    except OSError as error:
        return f"connection closed ({error})"
    raise DaskpkiError(f"{address} let a stranger in")


class Impostor:
    """A listener that shows a client's certificate where a scheduler is expected."""

    def __init__(self, alice: VerifiedCredential) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_key_pair(context, key_pair(alice.credential))
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tls://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:  # closed: the demo is over
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(1)
            except OSError:  # the caller hung up, as it should
                continue

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


_OTHERS: Final = "elsewhere"

_NEXT: Final = """Next, a cluster that stays:
  $ export DASKPKI_KEY_FILE=$HOME/daskpki.key
  $ daskpki init-ca --with scheduler,worker,client/alice
  $ daskpki-entrypoint node"""


def tell_story(tell: Callable[[str], None]) -> None:
    """Run the demo; raises DaskpkiError at the first check that fails."""
    began = time.monotonic()
    with Stage() as stage:
        tell("In a temporary home directory, a CA and certificates for a scheduler, two workers and alice:\n")
        command = ("init-ca", "--with", "scheduler,worker/w-0,worker/w-1,client/alice")
        tell(f"  $ daskpki {' '.join(command)}")
        for line in stage.run(*command):
            tell(f"    {line}")
        address = _start_cluster(stage, tell)
        tell("\nAlice connects with her own certificate, and computes:\n")
        for line in _compute(stage, address):
            tell(f"    {line}")
        _turn_away_strangers(stage, tell, address)
        tell("\nThe processes are ended, and the directory with all keys is removed.")
    tell(f"All checks passed, in {time.monotonic() - began:.0f} seconds.")
    tell(_NEXT)


def _start_cluster(stage: Stage, tell: Callable[[str], None]) -> str:
    tell("\nEach machine's entrypoint fetches its own credential into memory, checks it, and becomes Dask:\n")
    tell("  $ daskpki-entrypoint scheduler")
    options = ("--", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    scheduler = stage.start("scheduler", "scheduler", *options)
    address = scheduler.wait_for(r"Scheduler at:\s+(tls://\S+)")
    tell(f"    Scheduler at {address}")
    one_thread = ("--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard")
    workers = {name: stage.start("worker", name, "--scheduler", address, "--", *one_thread) for name in ("w-0", "w-1")}
    for name, worker in workers.items():
        tell(f"  $ DASKPKI_NAME={name} daskpki-entrypoint worker --scheduler {address}")
        started = worker.wait_for(r"Start worker at:\s+(tls://\S+)")
        tell(f"    Worker at {started}")
    return address


def _compute(stage: Stage, address: str) -> list[str]:
    """Run Alice's program, which is `alice` below, and return what it prints."""
    source = {"DASKPKI_SOURCE": "store", "DASKPKI_STORE": "local:", "DASKPKI_NAME": "alice"}
    return stage.run(address, module="daskpki.demo", **source)


def _turn_away_strangers(stage: Stage, tell: Callable[[str], None], address: str) -> None:
    tell("\nThree strangers knock:\n")
    stage.run("--cluster", _OTHERS, "init-ca", "--with", "client/mallory")
    alice, mallory = _credential(stage, DEFAULT_CLUSTER, "alice"), _credential(stage, _OTHERS, "mallory")
    anchors = alice.trust.roots
    of_another_ca = _context(anchors)
    load_key_pair(of_another_ca, key_pair(mallory.credential))
    tell(f"  no certificate                      refused: {_refusal(address, _context(anchors))}")
    tell(f"  a certificate of another CA         refused: {_refusal(address, of_another_ca)}")
    tell(f"  a client that poses as a scheduler  refused: {_impostor(stage, alice)}")


def _credential(stage: Stage, cluster: str, name: str) -> VerifiedCredential:
    from daskpki.store.opening import open_store

    with closing(open_store(store_url(stage.environ), environ=stage.environ)) as store:
        return fetch_credential(store, cluster, Role.CLIENT, name, pins=Pins(), now=datetime.now(UTC))


def _impostor(stage: Stage, alice: VerifiedCredential) -> str:
    """Run Alice's program against an address where a client's certificate answers."""
    impostor = Impostor(alice)
    try:
        _compute(stage, impostor.address)
    except DaskpkiError as error:
        return str(error).splitlines()[-1].rpartition("Error: ")[2]
    finally:
        impostor.close()
    raise DaskpkiError("a client's certificate was taken for a scheduler's")


_NUMBERS: Final = 20_000_000
_WORKERS: Final = 2


def alice(address: str) -> int:
    """Connect to the scheduler at `address`, compute a sum and print it; 0 if the answer was right."""
    import dask.array as da

    with daskpki.connect(address=address, timeout=20) as client:
        client.wait_for_workers(_WORKERS, timeout=30)
        numbers = da.arange(_NUMBERS, chunks=_NUMBERS // 20).persist()
        total = int(numbers.sum().compute())
        shares = [str(len(chunks)) for chunks in client.has_what().values()]
        sys.stdout.write(
            f"connected to {client.scheduler.address}\n"
            f"the sum of 0 to {_NUMBERS - 1:,} is {total:,}\n"
            f"{len(shares)} workers have {' and '.join(shares)} results\n"
        )
    return 0 if total == _NUMBERS * (_NUMBERS - 1) // 2 else 1


if __name__ == "__main__":
    sys.exit(alice(sys.argv[1]))
