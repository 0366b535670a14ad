"""Connections: TLS is verified, proxies are used where they should be, the time limit is for the whole exchange."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import client
from typing import Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.boot.google import crc32c
from daskpki.boot.http import Connection, TryAgain, proxy_for
from daskpki.errors import AccessDeniedError, DaskpkiError, UnavailableError, UsageError
from tests.emulator.certificates import Web, web_certificate
from tests.emulator.metadata import MetadataServer
from tests.emulator.server import SecretManagerServer
from tests.support.boot_cloud import Cloud, boot_here, run_entrypoint


@given(st.binary(max_size=5000))
def test_crc32c_is_googles(data: bytes) -> None:
    assert crc32c(data) == google_crc32c.value(data)


def test_crc32c_of_the_standard() -> None:
    """RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA


@given(st.text(max_size=30))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        connection = Connection(text, encrypted=True)
    except UsageError:
        return
    assert connection.host
    assert 0 < connection.port < 65_536


@pytest.mark.parametrize(
    ("no_proxy", "proxy"),
    [
        ("", "http://p:1"),
        ("example.com", "http://p:1"),
        ("googleapis.com", None),
        (".googleapis.com", None),
        ("x, secretmanager.googleapis.com", None),
        ("x, .GoogleApis.com", None),
        ("apis.com", "http://p:1"),
        ("*", None),
    ],
)
def test_who_goes_through_the_proxy(no_proxy: str, proxy: str | None) -> None:
    environ = {"https_proxy": "http://p:1", "no_proxy": no_proxy}
    assert proxy_for("secretmanager.googleapis.com", environ) == proxy
    assert proxy_for("secretmanager.googleapis.com", {"NO_PROXY": no_proxy, "HTTPS_PROXY": "http://p:1"}) == proxy


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Web:
    return web_certificate(tmp_path_factory.mktemp("web"), "localhost", "fd00::5")


@pytest.fixture
def https(cloud: Cloud, web: Web) -> Iterator[Cloud]:
    """The same cloud over TLS, at https://localhost."""
    with SecretManagerServer(tls=web.context) as server, MetadataServer(server.tokens) as metadata:
        secure = Cloud(server, metadata, cloud.cluster)
        cloud.cluster.seed(server, secure.parent)
        yield secure


def environ_for(https: Cloud, **more: str) -> dict[str, str]:
    url = https.server.rest_url.replace("127.0.0.1", "localhost")
    return https.environ | {"DASKPKI_SECRET_MANAGER_ENDPOINT": url} | more


def test_tls_is_verified_against_the_trusted_cas(https: Cloud, web: Web) -> None:
    trusting = run_entrypoint(environ_for(https, SSL_CERT_FILE=str(web.trusted)), "exec", "worker", "--", "echo", "up")
    assert (trusting.returncode, trusting.stdout) == (0, "up\n")
    doubting = run_entrypoint(environ_for(https), "exec", "worker", "--", "echo", "up")
    assert (doubting.returncode, doubting.stdout) == (3, "")
    assert "certificate is not trusted here" in doubting.stderr


def test_tls_is_verified_for_the_name_that_was_called(https: Cloud, web: Web) -> None:
    done = run_entrypoint(https.environ | {"SSL_CERT_FILE": str(web.trusted)}, "exec", "worker", "--", "true")
    assert done.returncode == 3
    assert "127.0.0.1" in done.stderr


@contextmanager
def proxy(answer: bytes | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """A real HTTP proxy for CONNECT (or one that always gives this answer), and the heads that it was sent."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve_proxy, args=(listener, heads, answer), daemon=True).start()
        yield listener.getsockname()[1], heads
        listener.shutdown(socket.SHUT_RDWR)


def _serve_proxy(listener: socket.socket, heads: list[bytes], answer: bytes | None) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(1000)
        heads.append(head)
        if answer is not None:
            near.sendall(answer)
            near.close()
            continue
        far = socket.create_connection(("127.0.0.1", int(head.split()[1].rpartition(b":")[2])))
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side went away
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_a_proxy_is_used_for_secret_manager_and_not_for_metadata(https: Cloud, web: Web) -> None:
    with proxy() as (port, heads):
        url = f"http://user:p%40ss@127.0.0.1:{port}"
        environ = environ_for(https, SSL_CERT_FILE=str(web.trusted), https_proxy=url, http_proxy=url)
        done = run_entrypoint(environ, "exec", "worker", "--", "echo", "up")
    assert (done.returncode, done.stdout) == (0, "up\n"), done.stderr
    (head,) = heads
    authority = f"localhost:{https.server.listener.port}"
    assert re.match(rf"CONNECT {authority} HTTP/1\.[01]\r\nHost: {authority}\r\n", head.decode())
    assert b"\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n" in head
    assert "p@ss" not in done.stderr


@pytest.mark.parametrize(
    ("status", "kind"),
    [(407, AccessDeniedError), (403, AccessDeniedError), (404, AccessDeniedError)]
    + [(passing, UnavailableError) for passing in (408, 429, 500, 502, 503, 504)],
)
def test_what_a_proxy_refuses_is_told_by_its_settings(https: Cloud, status: int, kind: type[DaskpkiError]) -> None:
    """At once where no waiting mends it, else at the deadline."""
    with proxy(f"HTTP/1.1 {status} no\r\nContent-Length: 0\r\n\r\n".encode()) as (port, heads):
        environ = environ_for(https, https_proxy=f"http://127.0.0.1:{port}", DASKPKI_DEADLINE="1")
        with pytest.raises(kind, match=rf"the proxy 127\.0\.0\.1 answers {status}") as caught:
            boot_here(environ, "scheduler")
    assert "https_proxy=http://USER:PASSWORD@HOST:PORT" in str(caught.value.hint)
    assert len(heads) == 1 or kind is UnavailableError


@pytest.mark.parametrize(
    "value", ["127.0.0.1:{}", "bob:word@127.0.0.1:{}", "http://127.0.0.1:{}", "HTTP://127.0.0.1:{}/"]
)
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_is_read_as_curl_and_pip_read_it(
    monkeypatch: pytest.MonkeyPatch, https: Cloud, web: Web, variable: str, value: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(web.trusted))
    with proxy() as (port, heads):
        environ = environ_for(https) | {variable: value.format(port)}
        boot_here(environ, "scheduler")
    (head,) = heads
    assert head.startswith(b"CONNECT ")
    assert (b"Proxy-Authorization: Basic Ym9iOndvcmQ=" in head) == ("bob" in value)


def test_a_proxy_gets_the_password_as_it_was_given() -> None:
    """Its bytes may be no UTF-8, in the URL as in the environment, which has them as surrogates."""
    for password in ("%ff", "\udcff"):
        with proxy(b"HTTP/1.1 407 no\r\n\r\n") as (port, heads):
            environ = {"https_proxy": f"http://bob:{password}@127.0.0.1:{port}"}
            with pytest.raises(AccessDeniedError, match="answers 407"):
                Connection("[fd00::5]", encrypted=True, environ=environ).get("/", {}, 5)
        assert b"Proxy-Authorization: Basic Ym9iOv8=\r\n" in heads[0]
        assert re.match(r"CONNECT \[fd00::5\]:443 HTTP/1\.[01]\r\nHost: \[fd00::5\]:443\r\n", heads[0].decode())


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "a b", "a\x0bb"])
def test_what_cannot_be_a_name_ends_without_another_attempt(host: str) -> None:
    proxy_of = {"https_proxy": "http://127.0.0.1:1"}
    for authority, environ in ((host, {}), (host, proxy_of), ("h", {"https_proxy": f"http://{host}:3128"})):
        with pytest.raises(UsageError, match="cannot be the name of a host") as caught:
            Connection(authority, encrypted=True, environ=environ)
        assert repr(host) in str(caught.value)


@pytest.mark.parametrize("name", ["[fd00::5]", "localhost"])
def test_through_a_proxy_an_address_is_compared_as_a_name_is(
    monkeypatch: pytest.MonkeyPatch, web: Web, name: str
) -> None:
    """CONNECT and Host have an IPv6 address in brackets, a certificate has it without."""
    monkeypatch.setenv("SSL_CERT_FILE", str(web.trusted))
    with socket.create_server(("127.0.0.1", 0)) as listener, proxy() as (port, connects):
        authority = f"{name}:{listener.getsockname()[1]}"
        heads: list[bytes] = []
        threading.Thread(target=_answer_over_tls, args=(listener, web, heads), daemon=True).start()
        connection = Connection(authority, encrypted=True, environ={"https_proxy": f"127.0.0.1:{port}"})
        assert connection.get("/", {}, 5).body == b"up"
        connection.close()
    assert connects[0].startswith(f"CONNECT {authority} HTTP/1.".encode())  # 1.0 by Python 3.11
    assert f"\r\nHost: {authority}\r\n".encode() in heads[0]


def _answer_over_tls(listener: socket.socket, web: Web, heads: list[bytes]) -> None:
    with web.context.wrap_socket(listener.accept()[0], server_side=True) as connection:
        heads.append(connection.recv(1000))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup")


def test_a_name_beyond_ascii_is_one_to_a_proxy_too() -> None:
    with proxy(b"HTTP/1.1 407 no\r\n\r\n") as (port, heads):
        connection = Connection("b\u00fccher.example", encrypted=True, environ={"https_proxy": f"127.0.0.1:{port}"})
        with pytest.raises(AccessDeniedError, match="answers 407"):
            connection.get("/", {}, 5)
    assert heads[0].startswith(b"CONNECT xn--bcher-kva.example:443 ")


def test_no_port_is_taken_for_port_0() -> None:
    with pytest.raises(UsageError, match="is not HOST or HOST:PORT"):
        Connection("h:0", encrypted=True)
    with pytest.raises(UsageError, match="is not of the form http://HOST:PORT"):
        Connection("h", encrypted=True, environ={"https_proxy": "http://127.0.0.1:0"})


def test_a_proxy_of_another_kind_is_refused(https: Cloud) -> None:
    with pytest.raises(UsageError, match="socks5://h"):
        boot_here(environ_for(https, https_proxy="socks5://h:1"), "scheduler")


@pytest.mark.parametrize("url", ["http://user:s3cret/x@proxy:3128", "http://proxy:s3cret", "http://[proxy:3128"])
def test_a_proxy_s_malformed_url_is_refused_and_not_repeated(https: Cloud, url: str) -> None:
    done = run_entrypoint(environ_for(https, https_proxy=url), "exec", "worker", "--", "echo", "up")
    assert (done.returncode, "Traceback" in done.stderr, "s3cret" in done.stderr) == (2, False, False), done.stderr
    assert "https_proxy=http://HOST:PORT" in done.stderr


@pytest.mark.parametrize(
    ("addresses", "reached"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.3", "127.0.0.1"], True),
        (["127.0.0.3", "127.0.0.4", "127.0.0.1"], True),
        (["127.0.0.3"], False),
        ([], False),
    ],
)
def test_each_address_of_a_name_is_tried(
    monkeypatch: pytest.MonkeyPatch,
    addresses: Sequence[str],
    reached: bool,  # noqa: FBT001 - from the table
) -> None:
    """As for `localhost`, whose first one is often ::1, where nobody listens."""
    with proxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup") as (port, _):
        connection = Connection(f"name.example:{port}", encrypted=False)
        with named(monkeypatch, addresses, port):
            if reached:
                assert connection.get("/", {}, 5).body == b"up"
            else:
                with pytest.raises(TryAgain, match=r"name\.example: .*(refused|empty list)"):
                    connection.get("/", {}, 5)
        connection.close()


@contextmanager
def named(monkeypatch: pytest.MonkeyPatch, addresses: Sequence[str], port: int) -> Iterator[None]:
    """These addresses for `name.example`."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
    resolve = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **named: Any) -> Any:
        return found if host == "name.example" else resolve(host, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield


def test_an_address_that_does_not_answer_leaves_time_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an IPv6 address where no IPv6 is routed: the first one accepts no further connection."""
    with (
        proxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup") as (port, _),
        socket.create_server(("127.0.0.3", port), backlog=0),
        socket.create_connection(("127.0.0.3", port)),
    ):
        connection = Connection(f"name.example:{port}", encrypted=False)
        with named(monkeypatch, ["127.0.0.3", "127.0.0.1"], port):
            begin = time.monotonic()
            assert connection.get("/", {}, 4).body == b"up"
            assert time.monotonic() - begin > 0.9, "control: the first one did not answer"
        connection.close()


def _drip(connection: socket.socket, portion: bytes = b"H") -> None:
    """A little every 50 ms, without end: each read succeeds, the exchange never does."""
    try:
        while True:
            connection.sendall(portion)
            time.sleep(0.05)
    except OSError:
        return


def _drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    _drip(connection)


def _go_on(connection: socket.socket) -> None:
    _drip(connection, b"HTTP/1.1 100 Continue\r\n\r\n")


def _wait(connection: socket.socket) -> None:
    while connection.recv(1000):
        pass


@pytest.mark.parametrize(
    ("kind", "behave"),
    [
        ("server", _drip),
        ("server", _drip_body),
        ("server", _go_on),
        ("server", _wait),
        ("TLS", _wait),
        ("proxy", _drip),
        ("proxy", _wait),
    ],
)
def test_the_time_limit_is_for_the_whole_exchange(kind: str, behave: Callable[[socket.socket], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def serve() -> None:
            with listener.accept()[0] as connection, contextlib.suppress(ConnectionError):
                behave(connection)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        if kind == "proxy":
            connection = Connection("h", encrypted=True, environ={"https_proxy": address})
        else:
            connection = Connection(address, encrypted=kind == "TLS")
        begin = time.monotonic()
        with pytest.raises(TryAgain, match="no answer in time"):
            connection.get("/", {}, 0.3)
        assert time.monotonic() - begin < (0.6 if kind == "server" else 1.2)  # TLS begins with loading the CAs
        server.join(5)
        assert not server.is_alive(), "its connection was closed"


def request_late(monkeypatch: pytest.MonkeyPatch, moment: threading.Event, over: threading.Event) -> None:
    """Have a request wait for that moment, and tell when it is over."""
    request = client.HTTPConnection.request

    def late(*arguments: Any, **named: Any) -> None:
        moment.wait(5)
        try:
            request(*arguments, **named)
        finally:
            over.set()

    monkeypatch.setattr(client.HTTPConnection, "request", late)


def test_a_request_that_was_abandoned_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, over = threading.Event(), threading.Event()
    request_late(monkeypatch, given_up, over)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(TryAgain, match="no answer in time"):
            Connection(f"127.0.0.1:{listener.getsockname()[1]}", encrypted=False).get("/", {}, 0.2)
        given_up.set()
        assert over.wait(5)
        with listener.accept()[0] as connection:
            assert connection.recv(1000) == b""
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_request_that_is_abandoned_while_it_is_sent_stays_encrypted(
    monkeypatch: pytest.MonkeyPatch, web: Web
) -> None:
    """The thread sends it when the other one has just begun to shut the connection down."""
    monkeypatch.setenv("SSL_CERT_FILE", str(web.trusted))
    ending, over = threading.Event(), threading.Event()
    shutdown = socket.socket.shutdown
    received = b""

    def late_shutdown(opened: socket.socket, how: int) -> None:
        ending.set()
        over.wait(5)
        shutdown(opened, how)

    def serve(listener: socket.socket) -> None:
        nonlocal received
        with web.context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            while data := socket.socket.recv(connection, 65_536):  # what is on the wire
                received += data

    request_late(monkeypatch, ending, over)
    monkeypatch.setattr(socket.socket, "shutdown", late_shutdown)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        connection = Connection(f"localhost:{listener.getsockname()[1]}", encrypted=True)
        with pytest.raises(TryAgain, match="no answer in time"):
            connection.get("/", {"Authorization": "Bearer MARKED"}, 1)
        server.join(5)
    assert received, "control: it was sent"
    assert b"MARKED" not in received
