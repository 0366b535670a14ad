"""The README's and the documentation's sessions do what they show."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator.metadata import MetadataServer
from tests.emulator.server import SecretManagerServer
from tests.support.desktop import Desktop, desktop
from tests.support.doc_sessions import DASK_S_LATE_TIMER, Step, blocks, differences, run
from tests.support.paths import DOCS, ROOT

LATE = """
import asyncio, gc, sys, time
from distributed.batched import BatchedSend

class Comm:
    closed = staticmethod(lambda: False)

    async def write(self, *arguments, **options):
        return 1

async def send():
    sender = BatchedSend(interval="10ms")
    sender.start(Comm())
    sender.send("message")
    while not (sender.next_deadline and sender.waker._waiters):  # the timer is set
        await asyncio.sleep(0)
    loop.call_later(0.01, loop.stop)
    time.sleep(0.1)  # both timers are due in the same turn of the loop

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
task = loop.create_task(send())
loop.run_forever()
loop.close()
gc.collect()
print(any(name.startswith("daskpki") for name in sys.modules))
"""

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
RUNNABLE = [page for page in PAGES if any(block.runs for block in blocks(page))]


@pytest.fixture(scope="module")
def session() -> Iterator[Desktop]:
    with desktop() as running:
        yield running


@pytest.fixture
def surroundings(session: Desktop, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A fresh home beside a desktop's keyring, and a Google project on loopback."""
    home = tmp_path / "home"
    home.mkdir()
    own = {"HOME": str(home), "XDG_DATA_HOME": str(home / ".local/share"), "XDG_CONFIG_HOME": str(home / ".config")}
    with SecretManagerServer() as server, MetadataServer(server.tokens, project="my-project") as metadata:
        cloud = {"DASKPKI_SECRET_MANAGER_ENDPOINT": server.rest_url, "GCE_METADATA_HOST": metadata.host}
        cloud["GCE_METADATA_IP"] = metadata.host  # what google-auth pings
        kept = {name: value for name, value in session.environ.items() if not name.startswith(("DASK", "COLUMNS"))}
        yield {**kept, **own, **cloud}


def test_there_are_sessions_to_run() -> None:
    assert ROOT / "README.md" in RUNNABLE
    assert len(RUNNABLE) >= 5


@pytest.mark.cluster
@pytest.mark.xdist_group("documented-ports")
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_session_prints_what_the_page_shows(page: Path, surroundings: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    results = run(page, directory, surroundings)
    wrong = [difference for step, printed in results if (difference := differences(step, printed))]
    log = directory / "background.log"
    assert not wrong, "\n\n".join([*wrong, log.read_text() if log.exists() else ""])


@pytest.mark.parametrize(
    ("promised", "printed"),
    [
        ("made the CA", "made a CA"),
        (
            "worker/worker  issued  5afc4d2fab837ad3617372a1519c93b3  in 30 days",
            "worker/worker  revoked  5afc  in 1 day",
        ),
        ("wrote /work/dir/worker/key.pem", "wrote /tmp/worker/trust.json"),
        ("", "error: the store is locked"),
        ("error: ...", "hint: no"),
    ],
)
def test_a_difference_is_noticed(promised: str, printed: str) -> None:
    assert differences(Step("daskpki list", (promised,)), [printed])


def test_what_a_timer_of_dask_prints_at_the_end_is_dask_s_own() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True, timeout=60)
    assert DASK_S_LATE_TIMER in done.stderr + "\n"
    assert done.stdout == "False\n", "daskpki has a part in it"


def test_what_varies_is_no_difference() -> None:
    step = Step("daskpki list", ("client/alice  issued  4a17561ac31ff7e14b3e296a8b12e966  in 30 days",))
    assert not differences(step, ["client/alice   issued   00ff561ac31ff7e14b3e296a8b12e966   in 3 hours"])
    assert not differences(Step("daskpki export", ("/work/dir/worker/key.pem",)), ["/tmp/pytest-7/worker/key.pem"])
