"""Access from a terminal: a server on 127.0.0.1 for one browser of this user.

Every user of the machine can reach a port of 127.0.0.1, and so can every page that the browser opens. The rules for a
request, in this order:

1. Host is 127.0.0.1 with our port, which stops pages whose names resolve to this machine (DNS rebinding).
2. Origin, if present, is this server; a WebSocket must have one.
3. The connection belongs to this user, if the kernel shows that (Linux). Cookies ignore ports: another
   server of 127.0.0.1 that the browser visits gets ours, and this rule makes it worthless to other users.
4. The cookie is valid. It is given for a one-time secret in a file that only this user can read. A form posts the
   secret: it is never in an argument list, a URL or the browser's history.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hmac import compare_digest
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application

from daskpki.cluster.web.page import OwnPage, template
from daskpki.dashboard.jupyter import announce
from daskpki.dashboard.proxy import Forward, Upstream
from daskpki.errors import DaskpkiError, PolicyError
from daskpki.files import write_private

LOOPBACK: Final = "127.0.0.1"
SIGN_IN: Final = "/daskpki-sign-in"
_CONNECTIONS: Final = Path("/proc/net/tcp")
_LARGEST_FORM: Final = 1 << 12  # bytes; the secret has 43
_AGAIN: Final = "run daskpki dashboard again for another one"

UNKNOWN_OWNER: Final = (
    "This system does not show which user opens a connection. If your browser visits a server of another user of this "
    "machine while this runs, that user could use the dashboard as you."
)


class Entrance:
    """The rules for one server. `owner_of` returns the user of a connection, by the client's end; None: unknown."""

    def __init__(self, port: int, user: int, owner_of: Callable[[tuple[str, int]], int | None]) -> None:
        self.port = port
        self.netloc = f"{LOOPBACK}:{port}"
        self.secret: str | None = secrets.token_urlsafe(32)
        self.cookie_name = f"daskpki-{port}"
        self._cookie = secrets.token_urlsafe(32)
        self._user = user
        self._owner_of = owner_of

    def verify_place(self, host: str, client: tuple[str, int]) -> bool:
        """Check rules 1 and 3; PolicyError. Return False if the system does not show who owns the connection."""
        if host != self.netloc:
            raise PolicyError(f"Host {host[:100]!r} is not this server's", hint=f"it is http://{self.netloc}")
        owner = self._owner_of(client)
        if owner not in (None, self._user):
            raise PolicyError(f"this dashboard belongs to another user of this machine (you have uid {owner})")
        return owner is not None

    def verify(self, request: HTTPServerRequest) -> None:
        """Check all rules; PolicyError."""
        self.verify_place(request.host, peer_of(request))
        origin = request.headers.get("Origin")
        if origin is None and "Upgrade" in request.headers:
            raise PolicyError("a WebSocket without an Origin comes from no browser")
        if origin is not None and origin != f"http://{self.netloc}":
            raise PolicyError(f"the page at {origin[:100]} may not read these pages")
        cookie = request.cookies.get(self.cookie_name)
        if cookie is None or not compare_digest(cookie.value.encode(), self._cookie.encode()):
            raise PolicyError("this browser is not signed in", hint=_AGAIN)

    def redeem(self, secret: str) -> str:
        """Exchange the one-time secret for the cookie; PolicyError for a wrong or a used secret."""
        if self.secret is None:
            raise PolicyError("the link was used already", hint=_AGAIN)
        if not compare_digest(secret.encode(), self.secret.encode()):
            raise PolicyError("this is not the link of this dashboard", hint=_AGAIN)
        self.secret = None
        return self._cookie


class SignIn(OwnPage):
    """Exchanges the one-time secret in a form for the cookie. The form comes from a file, so Origin is not checked."""

    policy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

    def initialize(self, entrance: Entrance, signed_in: Callable[[], None]) -> None:
        """Take the rules, and a callback for the use of the secret."""
        self._entrance = entrance
        self._signed_in = signed_in

    def post(self) -> None:
        """Answer with the cookie."""
        try:
            is_owner_known = self._entrance.verify_place(self.request.host, peer_of(self.request))
            cookie = self._entrance.redeem(self.get_body_argument("secret", ""))
        except PolicyError as refusal:
            self.set_status(HTTPStatus.FORBIDDEN)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"daskpki: {refusal.with_hint}\n")
            return
        self._signed_in()
        self.set_cookie(self._entrance.cookie_name, cookie, httponly=True, samesite="Strict", path="/")
        doubt = None if is_owner_known else UNKNOWN_OWNER
        self.finish(template(__package__, "sign_in.html").render(secret=None, doubt=doubt))


def peer_of(request: HTTPServerRequest) -> tuple[str, int]:
    """Return the other end of the request's connection."""
    stream = request.connection.stream  # type: ignore[union-attr] # as tornado's own get_ssl_certificate
    if stream.socket is None:
        raise PolicyError("the connection is over")
    host, port = stream.socket.getpeername()[:2]
    return host, port


def owner_in(table: str, client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Find the user of the connection from `client` to `server` in Linux' /proc/net/tcp; None: not listed."""
    wanted = [_as_listed(client), _as_listed(server)]
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[7])
    return None


def _as_listed(end: tuple[str, int]) -> str:
    (number,) = struct.unpack("=I", socket.inet_aton(end[0]))  # in the machine's byte order, as the kernel writes it
    return f"{number:08X}:{end[1]:04X}"


def owner_by_kernel(client: tuple[str, int], port: int) -> int | None:
    """Find the user of a connection to our port; None if the system does not show it, -1 for an unlisted connection."""
    try:
        table = _CONNECTIONS.read_text("ascii")
    except OSError:
        return None
    owner = owner_in(table, client, (LOOPBACK, port))
    return -1 if owner is None else owner


def application(upstream: Upstream, entrance: Entrance, signed_in: Callable[[], None]) -> Application:
    """Make the server's application."""

    async def route(request: HTTPServerRequest) -> tuple[Upstream, str]:
        entrance.verify(request)
        return upstream, request.uri or "/"

    return Application(
        [
            (SIGN_IN, SignIn, {"entrance": entrance, "signed_in": signed_in}),
            (r".*", Forward, {"route": route}),
        ]
    )


@contextmanager
def sign_in_file(entrance: Entrance) -> Iterator[Path]:
    """Write a page that signs a browser in to a directory that only this user may enter."""
    with TemporaryDirectory(prefix="daskpki-dashboard-") as directory:
        path = Path(directory) / "open.html"
        action = f"http://{entrance.netloc}{SIGN_IN}"
        page = template(__package__, "sign_in.html").render(action=action, secret=entrance.secret)
        write_private(path, page.encode())
        yield path


async def serve(
    upstream: Upstream, *, port: int, home: Path, open_page: Callable[[str], object], tell: Callable[[str], None]
) -> None:
    """Serve one person's browser until SIGINT or SIGTERM; DaskpkiError if dashboard or port are not available."""
    (await upstream.connect()).close()
    try:
        sockets = bind_sockets(port, LOOPBACK, family=socket.AF_INET)
    except OSError as error:
        raise DaskpkiError(f"--port {port}: {error.strerror}", hint="another --port, or none for a free one") from error
    port = sockets[0].getsockname()[1]
    entrance = Entrance(port, os.getuid(), lambda client: owner_by_kernel(client, port))
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    with sign_in_file(entrance) as page, announce(home, upstream.address, port):

        def signed_in() -> None:
            with suppress(OSError):
                page.unlink()

        server = HTTPServer(application(upstream, entrance, signed_in), max_body_size=_LARGEST_FORM)
        server.add_sockets(sockets)
        tell(f"the dashboard of {upstream.address} is at http://{entrance.netloc}/status; Ctrl-C ends it")
        if not open_page(page.as_uri()):
            tell(f"open this file once, in a browser of yours on this machine: {page.as_uri()}")
        await over.wait()
        server.stop()
