"""The way in through Jupyter: a Unix socket in a folder of one's own, and the addresses of one's own logins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daskpki.dashboard.jupyter import link_in_jupyter, setup_dashboard
from daskpki.dashboard.proxy import Upstream
from daskpki.dashboard.socket_server import Schedulers, scheduler_in, serve
from daskpki.errors import AccessDeniedError, NotFoundError
from daskpki.identity import Role
from tests.support.cluster_material import Authority
from tests.support.dashboards import Running, scheduler


@asynccontextmanager
async def served(folder: Path, running: Running, known: Sequence[str]) -> AsyncIterator[Path]:
    def reach(address: str) -> Upstream:
        assert address == running.address
        return running.upstream(running.authority.leaf(Role.CLIENT, "alice"))

    await asyncio.to_thread(folder.mkdir, mode=0o700)
    serving = asyncio.create_task(serve(folder / "socket", Schedulers(lambda: known, reach)))
    while not await asyncio.to_thread((folder / "socket").exists):
        assert not serving.done(), serving.exception()
    try:
        yield folder / "socket"
    finally:
        serving.cancel()


async def ask(path: Path, uri: str) -> str:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"GET {uri} HTTP/1.1\r\nHost: hub.example.org\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode(errors="replace")
    writer.close()
    return answer.removeprefix("HTTP/1.1 ")


def test_schedulers_of_ones_own_logins_and_no_others(authority: Authority, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scheduler(authority) as running:
            place = running.address.removeprefix("tls://")
            async with served(tmp_path / "mine", running, [running.address]) as path:
                assert f'href="./{place}/status"' in await ask(path, "/")
                assert "client/alice" in await ask(path, f"/{place}/daskpki")
                assert (await ask(path, f"/{place.replace(':', '%3A')}/json/counts.json")).startswith("200")
                for strange in ("/127.0.0.1:22/", "/metadata.google.internal:80/", "/x", "/daskpki"):
                    answer = await ask(path, strange)
                    assert answer.startswith("404"), (strange, answer)
            async with served(tmp_path / "none", running, []) as path:
                assert f"no login of yours is for {running.address}" in await ask(path, f"/{place}/status")
                assert "No login names a scheduler" in await ask(path, "/")

    asyncio.run(scenario())


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(AccessDeniedError, match=r"is open to others \(mode 0755\)"):
        asyncio.run(serve(tmp_path / "socket", Schedulers(list, lambda _address: pytest.fail("not asked"))))
    assert not (tmp_path / "socket").exists()


def test_the_path_names_the_scheduler() -> None:
    assert scheduler_in("/10.0.0.5:8786/status?a=b") == ("tls://10.0.0.5:8786", "/status?a=b")
    assert scheduler_in("/[fd00::5]:8786") == ("tls://[fd00::5]:8786", "/")
    with pytest.raises(NotFoundError, match="is not a scheduler's address"):
        scheduler_in("/../etc")


def test_links_lead_through_jupyter_where_it_runs_the_kernel() -> None:
    assert link_in_jupyter("tls://h:8786", {"JUPYTERHUB_SERVICE_PREFIX": "/user/a/"}) == "/user/a/daskpki/h:8786/status"
    assert link_in_jupyter("tls://h:8786", {}) is None
    assert link_in_jupyter("tls://h:8786", {"JPY_PARENT_PID": "1"}) is None  # no Jupyter server has that number
    assert setup_dashboard()["unix_socket"] is True
