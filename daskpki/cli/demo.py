"""`daskpki demo`: a cluster, a computation and three attacks in a temporary home directory, narrated.

`Stage` is the home directory and the processes that run in it: real commands and entrypoints, always ended and removed.
`tell_story` has the steps and their checks; the attackers connect by plain TLS. Run as a program, this module is
Alice's part: it connects to the scheduler at an address, computes a sum, and prints how the workers shared it.
"""

from __future__ import annotations

import os
import re
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import TYPE_CHECKING, Final

import daskpki
from daskpki.cli.invocation import Invocation
from daskpki.errors import DaskpkiError
from daskpki.identity import Role
from daskpki.settings import DEFAULT_CLUSTER, store_url

if TYPE_CHECKING:
    from daskpki.credentials.verified import VerifiedCredential

_START_LIMIT: Final = 40.0
"""Seconds that a scheduler or worker may take to start; a slow machine needs a tenth of that."""
_END_LIMIT: Final = 10.0
_LOOK_EVERY: Final = 0.1
_KEPT_LINES: Final = 30


def demo(invocation: Invocation) -> None:
    """Show daskpki on this machine in under a minute: a CA, a secured cluster, a computation, three refused strangers.

    Example:  [bold]daskpki demo[/bold]

    It needs no input and no account, and leaves nothing behind. Exits 0 only if every step succeeded.
    """
    if find_spec("numpy") is None:
        raise DaskpkiError("the demo computes with dask.array, which needs numpy", hint="pip install 'daskpki[all]'")
    told: list[str] = []
    tell_story(told.append if invocation.output.as_json else lambda line: print(line, flush=True))
    if invocation.output.as_json:
        invocation.output.result({"held": True, "story": "\n".join(told).splitlines()}, ())


class Node:
    """One process of the cluster, whose output goes to a file in its home directory."""

    def __init__(self, name: str, arguments: list[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self._read = 0
        command = [sys.executable, "-m", "daskpki.boot", *arguments]
        with NamedTemporaryFile(dir=environ["HOME"], delete=False) as output:
            self._log = Path(output.name)
            self.process = subprocess.Popen(command, env=dict(environ), stdout=output, stderr=subprocess.STDOUT)

    def wait_for(self, pattern: str) -> str:
        """Wait for the next line with `pattern`, and return its first group; DaskpkiError if none comes in time."""
        line = re.compile(f"(?:{pattern}).*\n")
        ends = time.monotonic() + _START_LIMIT
        while True:
            is_last = self.process.poll() is not None or time.monotonic() > ends
            text = self._log.read_text(errors="replace")
            if found := line.search(text, self._read):
                self._read = found.end()
                return found[1]
            if is_last:
                last = "\n".join(text.splitlines()[-_KEPT_LINES:])
                raise DaskpkiError(f"{self.name} did not start; its last lines:\n{last}")
            time.sleep(_LOOK_EVERY)

    def end(self) -> int:
        """End the process, and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Stage(ExitStack):
    """A temporary home directory with a local store and its key file; removed at the end."""

    def __init__(self) -> None:
        super().__init__()
        directory = TemporaryDirectory(prefix="daskpki-demo-", ignore_cleanup_errors=True)
        self.home = Path(self.enter_context(directory))  # 0700 from its first instant
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DASKPKI_", "DASK_"))}
        self.environ = kept | {
            "HOME": str(self.home),
            "DASKPKI_HOME": str(self.home / "daskpki"),
            "DASKPKI_KEY_FILE": str(self.home / "store.key"),
            "DASK_CONFIG": str(self.home / "dask"),
            "DASK_TEMPORARY_DIRECTORY": str(self.home / "scratch"),
        }

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
        self.callback(node.end)
        return node


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
    return stage.run(address, module="daskpki.cli.demo", **source)


def _turn_away_strangers(stage: Stage, tell: Callable[[str], None], address: str) -> None:
    from daskpki.cluster.tls import client_context, key_pair
    from daskpki.doctor.scheduler import stranger

    tell("\nThree strangers knock:\n")
    stage.run("--cluster", _OTHERS, "init-ca", "--with", "client/mallory")
    alice, mallory = _credential(stage, DEFAULT_CLUSTER, "alice"), _credential(stage, _OTHERS, "mallory")
    of_another_ca = client_context(key_pair(mallory.credential), alice.trust.roots, ssl.TLSVersion.TLSv1_2)
    tell(f"  no certificate                      refused: {_refusal(address, stranger())}")
    tell(f"  a certificate of another CA         refused: {_refusal(address, of_another_ca)}")
    tell(f"  a client that poses as a scheduler  refused: {_pose_as_scheduler(stage, alice)}")


def _credential(stage: Stage, cluster: str, name: str) -> VerifiedCredential:
    from daskpki.credentials.sources import fetch_credential
    from daskpki.credentials.verified import Pins
    from daskpki.store.opening import open_store

    with closing(open_store(store_url(stage.environ), environ=stage.environ)) as store:
        return fetch_credential(store, cluster, Role.CLIENT, name, pins=Pins(), now=datetime.now(UTC))


def _refusal(address: str, context: ssl.SSLContext) -> str:
    """Connect, and return the reason of the refusal; DaskpkiError if there is none."""
    from daskpki.credentials.contexts import split_scheduler
    from daskpki.doctor.scheduler import Admission, dial

    dialled = dial(*split_scheduler(address), context)
    if dialled.answer is not Admission.REFUSED:
        raise DaskpkiError(f"{address} does not refuse a stranger: {dialled.detail or dialled.answer}")
    return dialled.detail


class _Silent(socketserver.BaseRequestHandler):
    """Waits until the caller hangs up."""

    def handle(self) -> None:
        with suppress(OSError):
            self.request.recv(1)


def _pose_as_scheduler(stage: Stage, alice: VerifiedCredential) -> str:
    """Run Alice's program against a listener that shows a client's certificate, and return why it refuses."""
    from daskpki.cluster.tls import key_pair, load_key_pair

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_key_pair(context, key_pair(alice.credential))
    with socketserver.TCPServer(("127.0.0.1", 0), _Silent) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            _compute(stage, f"tls://127.0.0.1:{server.server_address[1]}")
        except DaskpkiError as error:
            return str(error).splitlines()[-1].rpartition("Error: ")[2]
        finally:
            server.shutdown()
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
