"""The pages of a booted cluster: in a real browser over mutual TLS, its health server, and the moment of its start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from daskpki.boot.plan import dask_environment
from daskpki.cluster.web.server import CONNECTIONS
from daskpki.confidential import Confidential
from daskpki.handover import encode_handover, parse_handover
from daskpki.identity import Role
from daskpki.pki.credential import encode_pkcs12
from tests.support.browser import Tab, browser, certificates_without_asking, make_home
from tests.support.cluster_material import Authority, Leaf
from tests.support.http_client import connected, visitor
from tests.support.nodes import PRELOADS, STARTED, Node, handover_of
from tests.support.paths import DOCS
from tests.support.ports import free_port

pytestmark = pytest.mark.cluster

PASSWORD = "in my browser"


class Booted(NamedTuple):
    """A scheduler, and two workers, one of them at `worker_health`; their pages are under mutual TLS."""

    authority: Authority
    scheduler: Node
    port: int
    health: int
    nannies_health: int
    worker_health: int
    early: list[str]


def environment(authority: Authority, role: Role, directory: Path, health: int) -> dict[str, str]:
    path = handover_of(authority, authority.leaf(role), directory, "limited")
    handover = parse_handover(path.read_bytes())._replace(dashboard="mtls", health=f"127.0.0.1:{health}", metrics="yes")
    path.write_bytes(encode_handover(handover))
    return dask_environment(handover, str(path), os.environ)


class Impatient(threading.Thread):
    """Asks from before the port is bound, as fast as it can, by TLS and without; notes whatever it is told."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.heard: list[str] = []
        self.stopped = threading.Event()
        self._port = port

    def run(self) -> None:
        strange = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        strange.check_hostname, strange.verify_mode = False, ssl.CERT_NONE
        while not self.stopped.wait(0.005):
            for context in (None, strange):
                with contextlib.suppress(OSError):
                    self._ask(context)

    def _ask(self, context: ssl.SSLContext | None) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 5) as plain:
            stream = context.wrap_socket(plain) if context else plain
            stream.sendall(b"GET /json/identity.json HTTP/1.1\r\nHost: x\r\n\r\n")
            if answer := stream.recv(1 << 16):
                self.heard.append(answer.decode(errors="replace"))


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    directory, authority = tmp_path_factory.mktemp("booted"), Authority()
    port, health, nannies_health = free_port(), free_port(), free_port()
    impatient = Impatient(port)
    impatient.start()
    where = ("--host", "tls://127.0.0.1", "--port", "0", "--dashboard-address", f"127.0.0.1:{port}")
    scheduler = Node(
        ["scheduler", *where, *PRELOADS[Role.SCHEDULER]],
        environment(authority, Role.SCHEDULER, directory / "s", health),
    )
    address = scheduler.wait_for(STARTED["scheduler"]).group(1)
    options = ("--nworkers", "2", "--nthreads", "1", "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    workers = Node(
        ["worker", address, *options, *PRELOADS[Role.WORKER]],
        environment(authority, Role.WORKER, directory / "w", nannies_health),
    )
    try:
        workers.wait_for(STARTED["worker"], 2)
        impatient.stopped.set()
        impatient.join()
        served = re.compile(rf"/health and /metrics at http://127\.0\.0\.1:(?!{nannies_health}\b)(\d+)")
        worker_health = int(workers.wait_for(served).group(1))
        yield Booted(authority, scheduler, port, health, nannies_health, worker_health, impatient.heard)
    finally:
        workers.stop()
        scheduler.stop()


@pytest.mark.long
def test_nobody_is_let_in_while_it_starts(booted: Booted) -> None:
    assert booted.early == []


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_health_server_says_health_and_metrics_and_nothing_else(booted: Booted) -> None:
    for port, dask in ((booted.health, "dask_scheduler_workers"), (booted.worker_health, "dask_worker_tasks")):
        assert fetch(port, "/health") == (200, "ok")
        assert dask in fetch(port, "/metrics")[1]
        assert "daskpki_trust_epoch " in fetch(port, "/metrics")[1]
        for path in ("/", "/status", "/daskpki", "/json/identity.json", "/info", "/health/x", "/sitemap.json"):
            assert fetch(port, path)[0] == 404
    assert fetch(booted.nannies_health, "/health") == (200, "ok")  # the nannies' process
    assert "daskpki_connections" in fetch(booted.nannies_health, "/metrics")[1]


def test_strangers_at_the_health_port_hold_few_descriptors(booted: Booted) -> None:
    """400 held all 256 of a scheduler: nobody got in, no revocation either, and its log grew by 80 kB a second."""
    with contextlib.ExitStack() as opened:
        silent = [
            opened.enter_context(socket.create_connection(("127.0.0.1", booted.health), 20))
            for _ in range(CONNECTIONS + 8)
        ]
        assert [each.recv(1) for each in silent[:8]] == [b""] * 8
        assert fetch(booted.health, "/health") == (200, "ok")


def test_promtool_takes_the_scrape_and_the_alert_rules_name_what_is_in_it(booted: Booted) -> None:
    scraped = fetch(booted.health, "/metrics")[1]
    ours = "".join(line for line in scraped.splitlines(keepends=True) if "daskpki_" in line)
    done = subprocess.run(["promtool", "check", "metrics"], input=ours, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rules = (DOCS / "deploy" / "monitoring" / "prometheus-rules.yaml").read_text()
    named = set(re.findall(r"\bdaskpki_[a-z_]+", rules))
    assert named
    assert named <= set(re.findall(r"^daskpki_[a-z_]+", scraped, re.MULTILINE))


def test_each_connection_has_a_line_in_the_log(booted: Booted) -> None:
    lines = [json.loads(line) for line in re.findall(r"audit - \w+ - (\{.*\})", booted.scheduler.drain())]
    assert "spiffe://default.daskpki.internal/worker/worker" in [each["peer"] for each in lines]
    assert {each["kind"] for each in lines} >= {"connected"}


def home_of(booted: Booted, directory: Path, leaf: Leaf | None) -> Path:
    """What `daskpki export client/alice --p12 FILE` writes, imported."""
    p12 = directory / "alice.p12"
    if leaf is not None:
        sealed = encode_pkcs12(leaf.credential, (booted.authority.der,), Confidential(PASSWORD.encode()))
        p12.write_bytes(sealed.reveal())
    ca = booted.authority.files(booted.authority.revoked, directory / "files").ca
    return make_home(directory, Path(ca), p12 if leaf else None, PASSWORD)


def test_alices_browser_opens_the_pages(booted: Booted, tmp_path: Path) -> None:
    home = home_of(booted, tmp_path, booted.authority.leaf(Role.CLIENT, "alice"))
    pictures = os.environ.get("DASKPKI_PICTURES")

    async def look(tab: Tab) -> None:
        at = f"https://127.0.0.1:{booted.port}"
        assert await tab.open(f"{at}/daskpki") is None
        await tab.until("document.body && document.body.innerText.includes('client/alice')")
        text = await tab.evaluate("document.body.innerText")
        assert "worker/worker" in text
        assert "worker/stray has the role worker, and here only client is accepted" in text
        was = await tab.evaluate("document.querySelector('small').innerText")
        await tab.until(f"document.querySelector('small').innerText !== {json.dumps(was)}")  # it is live
        assert await tab.evaluate("document.body.classList.contains('lost')") is False
        picture = await tab.picture()
        assert picture.startswith(b"\x89PNG")
        if pictures:
            await asyncio.to_thread(Path(pictures).write_bytes, picture)
        assert await tab.open(f"{at}/status") is None
        await tab.until("window.Bokeh && Bokeh.documents.length > 0")  # its WebSocket came through
        assert await tab.evaluate("document.querySelector('a[href=daskpki]').innerText") == "Daskpki"

    stranger = visitor(booted.authority, booted.authority.leaf(Role.WORKER, "stray"), tmp_path / "stray")

    async def scenario() -> None:
        async with connected(booted.port, stranger) as refused:
            assert (await refused.ask("/daskpki")).status == 403
        async with browser(home) as tab:
            await look(tab)

    with certificates_without_asking():
        asyncio.run(scenario())


def test_a_browser_without_a_certificate_sees_nothing(booted: Booted, tmp_path: Path) -> None:
    async def scenario() -> str | None:
        async with browser(home_of(booted, tmp_path, None)) as tab:
            return await tab.open(f"https://127.0.0.1:{booted.port}/daskpki")

    # The alert that says why, or only that the connection ended, when that is noticed before the alert is read.
    assert str(asyncio.run(scenario())).startswith("net::ERR_")
    booted.scheduler.wait_for(re.compile(r"turned-away.*PEER_DID_NOT_RETURN_A_CERTIFICATE"))
