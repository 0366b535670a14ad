"""`daskpki dashboard` as a person runs it: a real process, a real browser, and a link in her notebook's Client."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

import daskpki
from daskpki.dashboard.jupyter import announce, find_port
from daskpki.identity import Role
from tests.support.browser import browser
from tests.support.cluster_material import Authority
from tests.support.dashboards import Running, export, scheduler

pytestmark = pytest.mark.cluster

AT = re.compile(r"is at (http://127\.0\.0\.1:\d+)/status")
FILE = re.compile(r"file://\S+")


class Command(NamedTuple):
    """The command as it runs: where its pages are, and the file that opens them."""

    process: asyncio.subprocess.Process
    url: str
    file: Path


@asynccontextmanager
async def command(running: Running, credential: Path, home: Path, *options: str) -> AsyncIterator[Command]:
    words = ("-m", "daskpki", "dashboard", running.address, "--no-browser", *options)
    environ = os.environ | {"DASKPKI_CREDENTIAL_DIR": str(credential), "DASKPKI_HOME": str(home)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            found = AT.search((await process.stdout.readline()).decode())
            file = FILE.search((await process.stdout.readline()).decode())
        assert found, (await process.communicate())[1].decode()
        assert file
        yield Command(process, found[1], Path(unquote(urlsplit(file[0]).path)))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
        assert said.decode() == ""
        assert process.returncode == 0


def argument_lists_with(text: str) -> list[Path]:
    """Processes whose arguments hold that text, by what every user of the machine can read."""
    found = []
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in words.read_bytes():
                found.append(words)
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
    return found


def test_alices_browser_opens_the_dashboard_and_loses_it_when_she_is_revoked(
    authority: Authority, tmp_path: Path
) -> None:
    alice = authority.leaf(Role.CLIENT, "alice")
    pictures = os.environ.get("DASKPKI_PICTURES")

    async def scenario() -> None:
        credential, home = export(authority, alice, tmp_path / "alice"), tmp_path / "home"
        (tmp_path / "browser").mkdir()
        async with (
            scheduler(authority) as running,
            command(running, credential, home) as shown,
            browser(tmp_path / "browser") as tab,
        ):
            assert stat.S_IMODE(shown.file.stat().st_mode) == 0o600
            assert stat.S_IMODE(shown.file.parent.stat().st_mode) == 0o700
            page = shown.file.read_text()
            (secret,) = re.findall(r'value="([^"]+)"', page)
            assert not await asyncio.to_thread(argument_lists_with, secret)
            assert await tab.open(shown.file.as_uri()) is None
            await tab.until("location.pathname === '/status' && window.Bokeh && Bokeh.documents.length > 0")
            assert not shown.file.exists()
            assert await tab.evaluate("document.cookie") == ""  # HttpOnly
            if pictures:
                await asyncio.to_thread(Path(pictures, "status.png").write_bytes, await tab.picture())
            assert await tab.open(f"{shown.url}/daskpki") is None
            await tab.until("document.body.innerText.includes('client/alice')")
            assert await tab.open(f"{shown.url}/") is None
            await tab.until("location.pathname === '/status'")  # Dask's own redirect stays here
            used = tmp_path / "used.html"
            used.write_text(page)
            assert await tab.open(used.as_uri()) is None
            await tab.until("document.body.innerText.includes('the link was used already')")
            assert await tab.open(f"{shown.url}/daskpki") is None
            await tab.until("typeof refresh === 'function' && document.body.innerText.includes('client/alice')")
            running.revoke(alice)
            await tab.until("document.body.classList.contains('lost')")
            assert await tab.open(f"{shown.url}/status") is None
            await tab.until("document.body.innerText.includes('is revoked')")

    asyncio.run(scenario())


def test_a_notebooks_client_links_to_the_proxy_that_runs(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = authority.leaf(Role.CLIENT, "alice")
    home = tmp_path / "home"

    async def scenario() -> None:
        credential = export(authority, alice, tmp_path / "alice")
        monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(credential))
        monkeypatch.setenv("DASKPKI_HOME", str(home))
        async with (
            scheduler(authority) as running,
            daskpki.connect(address=running.address, asynchronous=True) as client,
        ):
            without = client.dashboard_link
            assert without is not None
            assert without.endswith(f":{running.port}/status")
            async with command(running, credential, home) as shown:
                assert client.dashboard_link == f"{shown.url}/status"
                assert f'href="{shown.url}/status"' in client._repr_html_()
            assert client.dashboard_link == without
            monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/alice/")
            place = running.address.removeprefix("tls://")
            assert client.dashboard_link == f"/user/alice/daskpki/{place}/status"

    asyncio.run(scenario())


def test_a_proxy_that_was_killed_is_not_linked_to(tmp_path: Path) -> None:
    address = "tls://10.0.0.5:8786"
    with announce(tmp_path, address, 8001):
        assert find_port(tmp_path, address) == 8001
        assert find_port(tmp_path, "tls://10.0.0.6:8786") is None
    assert find_port(tmp_path, address) is None
    (tmp_path / "dashboards" / "8002").touch(mode=0o600)
    (tmp_path / "dashboards" / "8002").write_text(address)
    assert find_port(tmp_path, address) is None
