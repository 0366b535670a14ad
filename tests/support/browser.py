"""Debian's Chromium, headless, with a profile of its own: a person's browser that holds a certificate.

It is driven over the DevTools protocol. The certificate lies in an NSS database in its home directory, where Chromium
looks for it on Linux, and a policy file chooses it without asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import subprocess
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

POLICY = Path("/etc/chromium/policies/managed/daskpki-tests.json")
_LISTENING = re.compile(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/")
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--window-size=1400,1000",
)


def make_home(directory: Path, anchors: Path, p12: Path | None = None, password: str = "") -> Path:
    """A home directory whose owner trusts `anchors` (PEM), and has imported a PKCS#12 as `daskpki export` writes it."""
    database = directory / ".pki" / "nssdb"
    database.mkdir(parents=True)
    _run("certutil", "-N", "-d", f"sql:{database}", "--empty-password")
    _run("certutil", "-A", "-d", f"sql:{database}", "-n", "daskpki", "-t", "C,,", "-i", str(anchors))
    if p12 is not None:
        _run("pk12util", "-i", str(p12), "-d", f"sql:{database}", "-W", password, "-K", "")
    return directory


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def certificates_without_asking() -> Iterator[None]:
    """While this lasts, Chromium shows whichever client certificate it has."""
    POLICY.parent.mkdir(parents=True, exist_ok=True)
    rule = json.dumps({"pattern": "https://127.0.0.1", "filter": {}})
    POLICY.write_text(json.dumps({"AutoSelectCertificateForUrls": [rule]}))
    try:
        yield
    finally:
        POLICY.unlink()


class Tab:
    """The browser's one tab."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol, and wait for its answer."""
        number = next(self._numbers)
        await self._connection.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while (text := await self._connection.read_message()) is not None:
            message = json.loads(text)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
        raise ConnectionError("the browser ended")

    async def open(self, url: str) -> str | None:
        """Go there; the browser's own error, such as net::ERR_BAD_SSL_CLIENT_AUTH_CERT, or None."""
        answer = await self.call("Page.navigate", url=url)
        error: str | None = answer.get("errorText")
        return error

    async def until(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, at most 60 s; its value."""
        awaited = f"""new Promise(found => {{
            const look = () => {{ const value = {expression}; value ? found(value) : setTimeout(look, 100); }};
            look();
        }})"""
        async with asyncio.timeout(60):
            return await self.evaluate(awaited)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    async def picture(self) -> bytes:
        """What it shows, as PNG."""
        return b64decode((await self.call("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def browser(home: Path) -> AsyncIterator[Tab]:
    """Chromium for the owner of that home directory."""
    process = await asyncio.create_subprocess_exec(
        "chromium",
        *_OPTIONS,
        f"--user-data-dir={home / 'profile'}",
        env=os.environ | {"HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        connection = await websocket_connect(await _first_tab(process), max_message_size=1 << 28)
        yield Tab(connection)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _first_tab(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        async for line in process.stderr:
            if found := _LISTENING.search(line.decode(errors="replace")):
                answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{found[1]}/json/list")
                pages = [each for each in json.loads(answer.body) if each["type"] == "page"]
                return str(pages[0]["webSocketDebuggerUrl"])
    raise ConnectionError("the browser ended")
