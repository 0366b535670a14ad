"""Real JupyterLab with dask-labextension and jupyter-server-proxy: the dashboard in frames, a link in a kernel.

With DASKPKI_NIGHTLY=1 only, and with the extra `long` (pyproject.toml).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from daskpki.identity import Role
from tests.support.browser import browser
from tests.support.cluster_material import Authority
from tests.support.dashboards import Running, export, scheduler
from tests.support.ports import free_port

pytestmark = pytest.mark.cluster

TOKEN = "for this test"
EXPOSED = "--LabApp.expose_app_in_browser=True"
LINK = "import daskpki; client = daskpki.connect(); print('link', client.dashboard_link)"


@asynccontextmanager
async def jupyterlab(running: Running, credential: Path, home: Path) -> AsyncIterator[str]:
    """JupyterLab of a person whose dask-labextension has the dashboard's address; its URL."""
    place = running.address.removeprefix("tls://")
    settings = home / "settings" / "dask-labextension" / "plugin.jupyterlab-settings"
    await asyncio.to_thread(settings.parent.mkdir, parents=True)
    settings.write_text(json.dumps({"defaultURL": f"/daskpki/{place}", "hideClusterManager": True}))
    port = free_port()
    own = {"HOME": home, "JUPYTER_RUNTIME_DIR": home / "runtime", "JUPYTERLAB_SETTINGS_DIR": home / "settings"}
    environ = os.environ | {name: str(path) for name, path in own.items()}
    environ |= {"DASKPKI_CREDENTIAL_DIR": str(credential), "DASKPKI_SCHEDULER": running.address}
    environ |= {"JUPYTER_TOKEN": TOKEN, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    options = ("--no-browser", "--allow-root", f"--ServerApp.port={port}", f"--ServerApp.root_dir={home}", EXPOSED)
    command = (sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", "--ServerApp.port_retries=0", *options)
    process = await asyncio.create_subprocess_exec(*command, env=environ, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(90):
            while b"is running at" not in said:
                line = await process.stderr.readline()
                assert line, said.decode()
                said += line
        reading = asyncio.create_task(process.stderr.read())
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await reading


async def say_in_kernel(url: str, code: str) -> str:
    """What a new kernel of that Jupyter prints."""
    http, authorised = AsyncHTTPClient(), {"Authorization": f"token {TOKEN}"}
    made = await http.fetch(f"{url}/api/kernels", method="POST", body="{}", headers=authorised)
    kernel = json.loads(made.body)["id"]
    channels = await websocket_connect(
        HTTPRequest(f"{url.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels", headers=authorised)
    )
    header = {"msg_id": uuid4().hex, "msg_type": "execute_request", "session": "s", "username": "a", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    request: dict[str, Any] = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    await channels.write_message(json.dumps(request | {"channel": "shell", "buffers": []}))
    said = ""
    async with asyncio.timeout(90):
        while (text := await channels.read_message()) is not None:
            message = json.loads(text)
            assert message["msg_type"] != "error", message["content"]
            if message["msg_type"] == "stream":
                said += message["content"]["text"]
            if message["msg_type"] == "execute_reply":
                break
    channels.close()
    await http.fetch(f"{url}/api/kernels/{kernel}", method="DELETE", headers=authorised)
    return said


FRAME = """(() => {
    const frame = document.querySelector("iframe[src*='daskpki/']");
    const bokeh = frame && frame.contentWindow.Bokeh;
    return bokeh && bokeh.documents.length > 0;
})()"""


def test_the_dashboard_lives_in_jupyterlabs_frames_until_its_person_is_revoked(
    authority: Authority, tmp_path: Path
) -> None:
    alice = authority.leaf(Role.CLIENT, "alice")
    pictures = os.environ.get("DASKPKI_PICTURES")

    async def scenario() -> None:
        credential = export(authority, alice, tmp_path / "alice")
        await asyncio.to_thread((tmp_path / "browser").mkdir)
        async with (
            scheduler(authority) as running,
            jupyterlab(running, credential, tmp_path / "home") as url,
            browser(tmp_path / "browser") as tab,
        ):
            place = running.address.removeprefix("tls://")
            assert f"link /daskpki/{place}/status\n" in await say_in_kernel(url, LINK)
            assert await tab.open(f"{url}/lab?token={TOKEN.replace(' ', '%20')}") is None
            await tab.until("window.jupyterapp && jupyterapp.restored.then(() => true)")
            await tab.evaluate("jupyterapp.shell.activateById('dask-dashboard-launcher')")
            await tab.click("button[value='Task Stream']:enabled")
            await tab.until(FRAME)
            if pictures:
                await asyncio.to_thread(Path(pictures, "jupyterlab.png").write_bytes, await tab.picture())
            async with asyncio.timeout(60):
                stranger = await AsyncHTTPClient().fetch(
                    f"{url}/daskpki/{place}/daskpki.json", raise_error=False, follow_redirects=False
                )
            assert stranger.code in {302, 403}  # Jupyter asks who it is
            assert await tab.open(f"{url}/daskpki/{place}/daskpki") is None
            await tab.until("typeof refresh === 'function' && document.body.innerText.includes('client/alice')")
            assert await tab.open(f"{url}/daskpki/127.0.0.1:22/status") is None
            await tab.until("document.body.innerText.includes('no login of yours is for tls://127.0.0.1:22')")
            running.revoke(alice)
            assert await tab.open(f"{url}/daskpki/{place}/status") is None
            await tab.until("document.body.innerText.includes('is revoked')")

    asyncio.run(scenario())
