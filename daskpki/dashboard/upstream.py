"""The proxy's other end: a scheduler's dashboard under mutual TLS, and the reasons why it cannot be reached."""

from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tornado.gen import with_timeout
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TornadoTimeoutError

from daskpki.cluster.security import PkiSecurity, open_stream, scheduler_services
from daskpki.credentials.contexts import LIMIT_OF_PORTS
from daskpki.errors import DaskpkiError, UsageError
from daskpki.quoting import shown

_PROBE: Final = 2.0
"""Seconds for a server to show whether it speaks HTTP without TLS."""


class Location(NamedTuple):
    """Address at which a dashboard listens."""

    host: str
    port: int

    @property
    def netloc(self) -> str:
        """HOST:PORT, as in a URL and the header Host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_location(text: str) -> Location:
    """Parse HOST:PORT; UsageError."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.netloc != text or "@" in text:
        raise UsageError(f"{shown(text)} is not HOST:PORT", hint="for example --dashboard-address 127.0.0.1:8787")
    return Location(host, port)


class Upstream:
    """The dashboard of one scheduler, reached with one person's credential.

    `location` is for a tunnel that ends at another port; without it the scheduler is asked.
    """

    def __init__(self, address: str, security: PkiSecurity, location: Location | None = None) -> None:
        self.address = address
        self._security = security
        self._given = location
        self._asked: Location | None = None

    async def location(self) -> Location:
        """Find where the dashboard listens; DaskpkiError if the scheduler does not tell."""
        if self._given is not None:
            return self._given
        if self._asked is None:
            self._asked = await self._ask()
        return self._asked

    async def _ask(self) -> Location:
        try:
            services = await scheduler_services(self.address, self._security)
        except OSError as error:
            raise DaskpkiError(
                f"the scheduler at {self.address} does not answer: {error}", hint="run daskpki doctor"
            ) from error
        port = services.get("dashboard") if isinstance(services, dict) else None
        if not isinstance(port, int) or not 0 < port < LIMIT_OF_PORTS:
            raise DaskpkiError(
                f"the scheduler at {self.address} has no dashboard (it names port {shown(port)})",
                hint="--dashboard-address HOST:PORT, if there is one",
            )
        host = urlsplit(self.address).hostname
        assert host is not None
        return Location(host, port)

    async def connect(self) -> IOStream:
        """Connect to the dashboard; DaskpkiError names the causes, NotTrustedError if another role answers."""
        place = await self.location()
        try:
            return await open_stream(self._security, place.host, place.port)
        except (OSError, StreamClosedError, TornadoTimeoutError) as error:
            self._asked = None  # it may listen elsewhere after a restart
            raise await _explained(self.address, place, error) from error


async def _explained(address: str, place: Location, error: Exception) -> DaskpkiError:
    real = getattr(error, "real_error", None) or error
    if isinstance(real, ssl.SSLError) and real.reason != "WRONG_VERSION_NUMBER":
        return DaskpkiError(f"no TLS with the dashboard at {place.netloc}: {real}", hint="run daskpki doctor")
    if await _speaks_plain_http(place):
        return DaskpkiError(
            f"{place.netloc} answers without TLS: this dashboard runs with --dashboard loopback",
            hint=f"open http://{place.netloc}/status itself, or start the scheduler with --dashboard mtls",
        )
    return _unreachable(address, place, real)


async def _speaks_plain_http(place: Location) -> bool:
    """True if an HTTP server without TLS answers; it would wait after a TLS greeting."""
    try:
        stream = await TCPClient().connect(place.host, place.port, timeout=_PROBE)
    except (OSError, StreamClosedError, TornadoTimeoutError):
        return False
    try:
        await stream.write(f"HEAD /health HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        return bytes(await with_timeout(timedelta(seconds=_PROBE), stream.read_bytes(5))) == b"HTTP/"
    except (StreamClosedError, TornadoTimeoutError):
        return False
    finally:
        stream.close()


def _unreachable(address: str, place: Location, error: Exception) -> DaskpkiError:
    host, port = urlsplit(address).hostname, place.port
    return DaskpkiError(
        f"the dashboard of {address} does not answer at {place.netloc}: {str(error) or 'no answer in time'}",
        hint="one of three: (1) the scheduler runs with --dashboard loopback, the default: "
        f"ssh -N -L {port}:127.0.0.1:{port} {host}, and open http://127.0.0.1:{port}/status, or start it with "
        f"--dashboard mtls; (2) a firewall does not let you reach port {port}; (3) your tunnel lacks the port: add "
        f"-L {port}:127.0.0.1:{port} to it, or say by --dashboard-address where it ends",
    )
