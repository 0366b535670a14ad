"""The proxy before a live scheduler's dashboard: what passes, who is refused, and what is said when nothing answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from pathlib import Path

import pytest
from tornado.httputil import HTTPHeaders

from daskpki.cluster.policy import Dashboard
from daskpki.dashboard.browser import Entrance, owner_in
from daskpki.dashboard.proxy import Location, Upstream, headers_for, parse_location
from daskpki.errors import DaskpkiError, NotTrustedError, PolicyError, UsageError
from daskpki.identity import Role
from tests.support.cluster_material import Authority
from tests.support.dashboards import Proxy, alices_browser, proxy, scheduler
from tests.support.http_client import Connection, connected
from tests.support.ports import free_port

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def ended(connection: Connection) -> bool:
    """After what was on its way."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while await asyncio.wait_for(connection.reader.read(1 << 16), 20):
            pass
    return True


def test_alice_sees_the_pages_and_their_websockets_until_she_is_revoked(authority: Authority) -> None:
    alice = authority.leaf(Role.CLIENT, "alice")

    async def scenario() -> None:
        async with scheduler(authority) as running, alices_browser(running, alice) as (through, browser, cookie):
            own = f"http://127.0.0.1:{through.port}"
            page = await browser.ask("/daskpki", Cookie=cookie, Origin=own)
            assert page.status == 200
            assert "client/alice" in page.body
            assert page.headers.count("Content-Security-Policy") == 2
            assert (await browser.ask("/json/counts.json", Cookie=cookie)).status == 200
            assert (await browser.ask("/no-such-page", Cookie=cookie)).status == 404
            async with connected(through.port) as stream:
                opened = await stream.ask("/eventstream", Cookie=cookie, Origin=own, **UPGRADE)
                assert opened.status == 101
                running.revoke(alice)
                assert await ended(stream)
            refused = await browser.ask("/status", Cookie=cookie)
            assert refused.status == 403
            assert "is revoked" in refused.body

    asyncio.run(scenario())


EVIL = "https://evil.example"
REFUSED = {
    "a name that was led here": ({"Host": "evil.example"}, 403, "is not this server's"),
    "localhost, to which the cookie does not belong": ({"Host": "localhost"}, 403, "is not this server's"),
    "a page of another origin": ({"Origin": EVIL}, 403, f"the page at {EVIL} may not read"),
    "a page of another port": ({"Origin": "http://127.0.0.1:1"}, 403, "may not read"),
    "a file": ({"Origin": "null"}, 403, "may not read"),
    "a foreign WebSocket": ({"Origin": EVIL, **UPGRADE}, 403, "may not read"),
    "a WebSocket of no page": (UPGRADE, 403, "comes from no browser"),
    "a wrong cookie": ({"Cookie": "x"}, 403, "is not signed in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_is_not_alices_browser_is_refused(authority: Authority, case: str) -> None:
    more, status, reason = REFUSED[case]

    async def scenario() -> None:
        alice = authority.leaf(Role.CLIENT, "alice")
        async with scheduler(authority) as running, alices_browser(running, alice) as (through, browser, cookie):
            assert (await browser.ask("/json/counts.json", Cookie=cookie)).status == 200
            headers = {"Cookie": cookie} | more
            if "Cookie" in more:
                headers["Cookie"] = f"{through.entrance.cookie_name}=guessed"
            if (host := headers.pop("Host", None)) is not None:
                browser.host = f"{host}:{through.port}"
            answer = await browser.ask("/json/counts.json", **headers)
            assert answer.status == status
            assert reason in answer.body

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/json/counts.json", 405), ("DELETE", "/", 405), ("GET", "http://127.0.0.1/json/counts.json", 400)],
)
def test_nothing_but_reading_paths_passes(authority: Authority, method: str, path: str, status: int) -> None:
    async def scenario() -> None:
        alice = authority.leaf(Role.CLIENT, "alice")
        async with scheduler(authority) as running, alices_browser(running, alice) as (_, browser, cookie):
            assert (await browser.ask(path, method, Cookie=cookie, Content_Length="0")).status == status

    asyncio.run(scenario())


async def sign_in(through: Proxy, secret: str) -> tuple[int, str, str]:
    body = f"secret={secret}"
    reader, writer = await asyncio.open_connection("127.0.0.1", through.port)
    lines = ["POST /daskpki-sign-in HTTP/1.1", f"Host: 127.0.0.1:{through.port}", "Origin: null", "Connection: close"]
    lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}", "", body]
    writer.write("\r\n".join(lines).encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, text = answer.partition("\r\n\r\n")
    return int(answer.split()[1]), head, text


def test_a_link_is_good_for_one_browser(authority: Authority) -> None:
    async def scenario() -> None:
        alice = authority.leaf(Role.CLIENT, "alice")
        async with scheduler(authority) as running, proxy(running.upstream(alice)) as through:
            secret = str(through.entrance.secret)
            status, head, text = await sign_in(through, "guessed")
            assert (status, "Set-Cookie" in head) == (403, False)
            assert "not the link" in text
            status, head, _ = await sign_in(through, secret)
            assert status == 200
            (cookie,) = (line for line in head.splitlines() if line.startswith("Set-Cookie: "))
            assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
            status, head, text = await sign_in(through, secret)
            assert (status, "Set-Cookie" in head) == (403, False)
            assert "used already" in text

    asyncio.run(scenario())


ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", "/json/counts.json", headers={"Cookie": sys.argv[2]})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


def test_the_cookie_is_worthless_to_another_user_of_the_machine(authority: Authority) -> None:
    """Another server of 127.0.0.1 that alice's browser visits gets her cookie, since cookies ignore ports."""

    async def ask(*prefix: str, port: int, cookie: str) -> str:
        command = (*prefix, "/usr/bin/python3", "-c", ASK, str(port), cookie)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd="/")
        return (await process.communicate())[0].decode()

    async def scenario() -> None:
        alice = authority.leaf(Role.CLIENT, "alice")
        async with scheduler(authority) as running, alices_browser(running, alice) as (through, _, cookie):
            assert (await ask(port=through.port, cookie=cookie)).startswith("200 ")
            as_nobody = ("runuser", "-u", "nobody", "--") if os.getuid() == 0 else ("sudo", "-u", "nobody")
            answer = await ask(*as_nobody, port=through.port, cookie=cookie)
            assert answer.startswith("403 ")
            assert "belongs to another user" in answer

    asyncio.run(scenario())


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 11
   1: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 12
"""


def test_the_kernels_table_says_whose_a_connection_is() -> None:
    assert owner_in(TABLE, ("127.0.0.1", 0xD431), ("127.0.0.1", 0x1F90)) == 1000
    assert owner_in(TABLE, ("127.0.0.1", 0xD432), ("127.0.0.1", 0x1F90)) is None


def test_an_owner_that_nobody_can_name_is_refused_and_a_kernel_that_tells_nothing_is_told() -> None:
    unlisted = Entrance(1, 1000, lambda _client: -1)
    with pytest.raises(PolicyError, match="another user"):
        unlisted.verify_place("127.0.0.1:1", ("127.0.0.1", 2))
    untold = Entrance(1, 1000, lambda _client: None)
    assert not untold.verify_place("127.0.0.1:1", ("127.0.0.1", 2))


def test_only_what_pages_need_goes_on_to_the_scheduler() -> None:
    sent = HTTPHeaders(
        {"Host": "me", "Cookie": "c", "Authorization": "token t", "Referer": "r", "X-Forwarded-For": "f"}
    )
    sent["X-Forwarded-For"] = "f"
    sent["Accept"], sent["Origin"] = "text/html", "http://me"
    assert dict(headers_for(sent, "10.0.0.5:8787")) == {
        "Accept": "text/html",
        "Host": "10.0.0.5:8787",
        "Connection": "close",
        "Origin": "https://10.0.0.5:8787",
    }


def test_where_nobody_answers_the_three_causes_are_named(authority: Authority) -> None:
    async def scenario() -> DaskpkiError:
        alice, nowhere = authority.leaf(Role.CLIENT, "alice"), Location("127.0.0.1", free_port())
        async with scheduler(authority) as running:
            with pytest.raises(DaskpkiError, match=r"does not answer at 127\.0\.0\.1:") as caught:
                await running.upstream(alice, nowhere).connect()
            return caught.value

    hint = str(asyncio.run(scenario()).hint)
    for cause in ("--dashboard loopback", "ssh -N -L", "firewall", "your tunnel lacks the port", "--dashboard-address"):
        assert cause in hint


def test_a_dashboard_without_tls_is_named(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskpki.cluster.security._PATIENCE", 1.0)

    async def scenario() -> None:
        alice = authority.leaf(Role.CLIENT, "alice")
        async with scheduler(authority, Dashboard.LOOPBACK) as running:
            with pytest.raises(DaskpkiError, match=r"answers without TLS.*--dashboard loopback") as caught:
                await running.upstream(alice).connect()
            assert f"http://127.0.0.1:{running.port}/status" in str(caught.value.hint)

    asyncio.run(scenario())


def test_a_scheduler_that_is_not_there_is_named(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskpki.cluster.security._PATIENCE", 1.0)

    async def scenario() -> None:
        alice = authority.leaf(Role.CLIENT, "alice")
        async with scheduler(authority) as running:
            security = running.security(alice)
        with pytest.raises(DaskpkiError, match=r"the scheduler at tls://127\.0\.0\.1:.* does not answer"):
            await Upstream(f"tls://127.0.0.1:{free_port()}", security).connect()

    asyncio.run(scenario())


def test_a_worker_that_answers_in_the_dashboards_place_is_refused(authority: Authority, tmp_path: Path) -> None:
    async def scenario() -> None:
        files = authority.files(authority.leaf(Role.WORKER), tmp_path)
        posing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        posing.load_cert_chain(files.cert, files.key)
        async with scheduler(authority) as running:
            server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0, ssl=posing)
            async with server:
                place = Location("127.0.0.1", server.sockets[0].getsockname()[1])
                with pytest.raises(NotTrustedError, match="has the role worker, and here only scheduler is accepted"):
                    await running.upstream(authority.leaf(Role.CLIENT, "alice"), place).connect()

    asyncio.run(scenario())


async def answer_as_a_thief(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switch to a WebSocket, with a cookie for every server of 127.0.0.1."""
    await reader.readuntil(b"\r\n\r\n")
    lines = ["HTTP/1.1 101 Switching Protocols", "Server: thief", "Set-Cookie: _xsrf=known", "Connection: Upgrade"]
    lines += ["Upgrade: websocket", "sec-websocket-accept: x", "Refresh: 0;url=https://evil.example", "", ""]
    writer.write("\r\n".join(lines).encode())
    await writer.drain()
    writer.close()


def test_a_compromised_scheduler_sets_no_cookie_by_a_websocket(authority: Authority, tmp_path: Path) -> None:
    async def scenario() -> str:
        files = authority.files(authority.leaf(Role.SCHEDULER), tmp_path)
        stolen = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        stolen.load_cert_chain(files.cert, files.key)
        async with scheduler(authority) as running:
            server = await asyncio.start_server(answer_as_a_thief, "127.0.0.1", 0, ssl=stolen)
            async with server:
                place = Location("127.0.0.1", server.sockets[0].getsockname()[1])
                upstream = running.upstream(authority.leaf(Role.CLIENT, "alice"), place)
                async with proxy(upstream) as through, connected(through.port) as browser:
                    origin = f"http://127.0.0.1:{through.port}"
                    answer = await browser.ask("/eventstream", Cookie=through.cookie(), Origin=origin, **UPGRADE)
                    return answer.headers

    _status, *headers = asyncio.run(scenario()).strip().lower().splitlines()
    assert sorted(headers) == ["connection: upgrade", "sec-websocket-accept: x", "upgrade: websocket"]


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "a@b:1", "host:1/x", "[::1:1"])
def test_a_dashboards_address_is_host_and_port(text: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT"):
        parse_location(text)
    assert parse_location("[::1]:8787").netloc == "[::1]:8787"
    assert parse_location("scheduler.example:8787") == Location("scheduler.example", 8787)
