"""GET requests for the boot: retries until a deadline, TLS, proxies, keep-alive, and a time limit for a whole exchange.

`http.client` speaks HTTP/1.1. It limits the time of each read but not of an exchange, so an exchange runs in a thread
that is abandoned at its end. `urllib.request` would follow redirects, and costs another 15 ms to import.

A boot retries with full jitter from 50 ms, doubling up to 5 s, until the deadline; then it exits with 75. A request
raises TryAgain where another attempt may succeed; daskpki's other errors end the boot at once. The Date header of a
reply shows how wrong this machine's clock is.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus, client
from time import monotonic
from typing import Final, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from daskpki.errors import AccessDeniedError, NotTrustedError, UnavailableError, UsageError
from daskpki.quoting import shown
from daskpki.store.gsm.errors import is_temporary

T = TypeVar("T")

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 5.0
_LONGEST_ATTEMPT: Final = 10.0
"""Seconds for one attempt, so that a server that accepts and stays silent leaves time for others."""
_LATER: Final = "it may pass: start again, or wait longer with --deadline SECONDS"


class TryAgain(Exception):  # noqa: N818 - not an error yet: it becomes one at the deadline
    """A failure that may not recur at another attempt; `hint` says what a person can do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def within(seconds: float, call: Callable[[], T], otherwise: str) -> T:
    """Return the result of `call`, which has no reliable time limit; raises TimeoutError with the text `otherwise`.

    `call` runs in a thread, which is abandoned after a time-out: exec and exit do not wait for it.
    """
    from threading import Thread

    results: list[T] = []
    faults: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised where it was called from
            faults.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    raise faults[0] if faults else TimeoutError(otherwise)


class RetryPolicy(NamedTuple):
    """Retries until `end` on the monotonic clock; `note` is called with the cause of each retry."""

    end: float
    note: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = lambda: int.from_bytes(os.urandom(4)) / (1 << 32)

    def persist(self, attempt: Callable[[float], T]) -> T:
        """Call `attempt(timeout)` until it returns; UnavailableError with the last cause at the deadline."""
        wait = _FIRST_WAIT
        told = ""
        last: TryAgain | None = None
        while True:
            left = self.end - self.now()
            try:
                if left <= 0:
                    raise TryAgain("no time was left for this request")  # noqa: TRY301 - ends as any other failure
                return attempt(min(_LONGEST_ATTEMPT, left))
            except TryAgain as cause:
                if last is None or self.now() < self.end:  # one that the deadline cut off says less than the one before
                    last = cause
            pause = wait * self.jitter()
            if self.now() + pause >= self.end:
                raise UnavailableError(f"gave up at the deadline: {last}", hint=last.hint or _LATER) from last
            if str(last) != told:
                told = str(last)
                self.note(f"{told}; trying again")
            self.sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT)


class Reading(NamedTuple):
    """A reading of a server's clock: `time` (seconds since the epoch) when our monotonic clock showed `at`."""

    time: float
    at: float

    def now(self, monotonic: float) -> float:
        """Time of that clock when our monotonic clock shows `monotonic`."""
        return self.time + monotonic - self.at


def parse_date(text: str) -> float | None:
    """Parse a Date header (RFC 9110, 5.6.7) to seconds since the epoch; None for anything else."""
    from email.utils import parsedate_to_datetime  # cryptography.x509 has loaded it

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment.timestamp() if moment.tzinfo else None


_MAX_BODY: Final = 1 << 20
"""Bytes of a reply's body: a payload has at most 64 KiB, 88 KiB in its JSON document."""
PROXY_SETTINGS: Final = "https_proxy=http://USER:PASSWORD@HOST:PORT sets proxy and login; hosts in no_proxy bypass it"
_PROXY_FORM: Final = (
    "https_proxy=http://HOST:PORT, with %2F for a / in a password, or no_proxy=googleapis.com to go there directly"
)
_PROXY_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_CLOCK_CODES: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_STEPS: Final = 4
"""Divides an exchange's time: each step of connecting (an address, the proxy's answer, TLS) gets one such part."""
_LATE: Final = "no answer in time"
_CUT_OFF: Final = "the reply was cut off"
_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")
_TUNNEL_REFUSED: Final = re.compile(r"Tunnel connection failed: (\d{3})\b")  # http.client shows the status only here


class Reply(NamedTuple):
    """A response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_reply(response: client.HTTPResponse, end: float) -> Reply:
    """Read the body of a response until `end`; TryAgain if it is cut off or too long."""
    if response.status < HTTPStatus.OK:  # http.client skips only 100; the real reply would be read as the next one
        raise TryAgain(f"the reply has status {response.status}, which is not a final status")
    body = b""
    while part := response.read1(_MAX_BODY):  # read() would return all that follows a chunk of size -1
        body += part
        if len(body) > _MAX_BODY:
            raise TryAgain("the reply is longer than any that is expected")
        _left(end)
    has_end = response.chunked or response.length is not None
    if response.length or not (body or has_end):  # http.client accepts a head that was cut off
        raise TryAgain(_CUT_OFF)
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


class Connection:
    """One connection at a time to one server, kept open between requests for as long as the other side allows.

    `authority` is HOST or HOST:PORT. An encrypted connection goes through the proxy that `environ` names. UsageError if
    one of them is malformed.
    """

    def __init__(self, authority: str, *, encrypted: bool, environ: Mapping[str, str] = {}) -> None:
        self.host, port = _parse_authority(authority)
        usual = client.HTTPS_PORT if encrypted else client.HTTP_PORT
        self.port = port or usual
        self._name = f"[{self.host}]" if ":" in self.host else self.host
        self._authority = self._name if self.port == usual else f"{self._name}:{self.port}"
        self._encrypted = encrypted
        proxy = proxy_for(self.host, environ) if encrypted else None
        self._proxy = None if proxy is None else _parse_proxy(proxy)
        self._http: client.HTTPConnection | None = None
        self._trust: ssl.SSLContext | None = None

    def get(self, path: str, headers: Mapping[str, str], timeout: float) -> Reply:
        """Send one GET, and return the reply within `timeout` seconds in all.

        Raises TryAgain if another attempt may succeed, NotTrustedError for a certificate that is not trusted,
        AccessDeniedError if the proxy refuses for good.
        """
        fields = {"Host": self._authority, **headers}
        try:
            if self._encrypted:
                self._trust = self._trust or system_trust()
            http = self._http = self._http or self._unopened()
            return within(timeout, partial(self._exchange, http, path, fields, monotonic() + timeout), _LATE)
        except (OSError, client.HTTPException, ValueError, TryAgain) as error:
            self._abandon()
            raise self._meaning(error) from None  # http.client quotes a header that it rejects, such as a token's

    def close(self) -> None:
        """Close the connection between two requests; the next one opens a new one."""
        http, self._http = self._http, None
        if http is not None:
            http.close()

    def _abandon(self) -> None:
        """Shut down the socket. The thread closes it: a descriptor closed here might soon be another connection's."""
        http, self._http = self._http, None
        if http is not None and (opened := http.sock):
            with suppress(OSError):  # it was never connected, or is not any more
                socket.socket.shutdown(opened, socket.SHUT_RDWR)  # SSLSocket's lets the thread go on in plain text

    def _unopened(self) -> client.HTTPConnection:
        if self._proxy is None:
            http = client.HTTPConnection(self.host, self.port)
        else:
            proxy, port, login = self._proxy
            http = client.HTTPConnection(proxy, port)
            http.set_tunnel(self._name, self.port, {"Host": f"{self._name}:{self.port}", **login})
        http.auto_open = 0  # or an abandoned thread would open it again
        return http

    def _exchange(self, http: client.HTTPConnection, path: str, headers: Mapping[str, str], end: float) -> Reply:
        """Send one GET. Runs in a thread; an abandoned thread ends by itself."""
        try:
            if http.sock is None:
                self._connect(http, end)
            http.sock.settimeout(_left(end))
            http.request("GET", path, headers=headers)
            with http.getresponse() as response:
                return read_reply(response, end)
        except BaseException:
            http.close()
            raise

    def _connect(self, http: client.HTTPConnection, end: float) -> None:
        """Connect to the first address that accepts; TryAgain or AccessDeniedError if the proxy opens no tunnel.

        A name may have an unreachable IPv6 address before an IPv4 address, so each gets only a share of the time.
        HTTPSConnection is not used, since it compares a tunnel's IPv6 address with its brackets.
        """
        http.timeout = _left(end) / _STEPS
        try:
            http.connect()
        except OSError as error:
            if refused := _TUNNEL_REFUSED.match(str(error)):
                raise _refusal_of_proxy(http.host, int(refused[1])) from error
            raise
        if self._trust is not None:
            http.sock = self._trust.wrap_socket(http.sock, server_hostname=self.host)

    def _meaning(self, error: Exception) -> Exception:
        if isinstance(error, ssl.SSLCertVerificationError):
            what = f"{self.host}: its certificate is not trusted here ({error.verify_message})"
            if error.verify_code in _CLOCK_CODES:  # this machine's clock may be wrong, and may yet be corrected
                return TryAgain(what, hint="check this machine's clock")
            way_out = "install ca-certificates; for a proxy that decrypts TLS, set SSL_CERT_FILE to its CA"
            return NotTrustedError(what, hint=way_out)
        return TryAgain(f"{self.host}: {_words(error)}", hint=getattr(error, "hint", None))


def _refusal_of_proxy(proxy: str, status: int) -> Exception:
    answer = f"the proxy {proxy} answers {status}"
    if is_temporary(status):
        return TryAgain(answer, hint=PROXY_SETTINGS)
    login = " (it wants a login)" if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else ""
    return AccessDeniedError(f"{answer}{login}", hint=PROXY_SETTINGS)


def _left(end: float) -> float:
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError(_LATE)
    return left


def _words(error: Exception) -> str:
    match error:
        case TimeoutError():
            return _LATE
        case client.IncompleteRead():
            return _CUT_OFF
        case OSError():
            return error.strerror or str(error)
        case TryAgain():
            return str(error)
    return "the server there does not speak HTTP/1.1"  # http.client's text repeats what was received


def _parse_authority(text: str) -> tuple[str, int | None]:
    """Parse HOST or HOST:PORT; UsageError."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise UsageError(f"{shown(text)} is not HOST or HOST:PORT") from None
    if not parts.hostname or port == 0 or parts.netloc != text or "@" in text:
        raise UsageError(f"{shown(text)} is not HOST or HOST:PORT")
    return _encoded_name(parts.hostname), port


def _encoded_name(host: str) -> str:
    """Encode a host's name in ASCII (RFC 3490); UsageError."""
    try:
        name = host.encode("idna").decode()
    except UnicodeError:  # an empty label, or one of more than 63 octets
        name = ""
    if not name or _BLANK.search(name):
        raise UsageError(f"{shown(host)} cannot be the name of a host")
    return name


def system_trust() -> ssl.SSLContext:
    """Make a context that trusts the system's CAs (or SSL_CERT_FILE's), or certifi's if the system has none."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):
        try:
            import certifi
        except ImportError:
            raise NotTrustedError("this machine has no CA certificates", hint="install ca-certificates") from None
        context.load_verify_locations(certifi.where())
    return context


def proxy_for(host: str, environ: Mapping[str, str]) -> str | None:
    """Find the proxy for `host` in https_proxy or all_proxy, unless no_proxy lists the host (as curl reads them)."""
    proxy = next((environ[name] for name in _PROXY_VARIABLES if environ.get(name)), None)
    for entry in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(","):
        suffix = entry.strip().lstrip(".").lower()
        if suffix == "*" or (suffix and (host == suffix or host.endswith(f".{suffix}"))):
            return None
    return proxy


def _parse_proxy(url: str) -> tuple[str, int, dict[str, str]]:
    """Parse a proxy's URL to host, port and the header of its login; UsageError repeats no part of a password.

    The default scheme is http, as for curl, pip and git.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = client.HTTP_PORT if parts.port is None else parts.port
    except ValueError:  # an unescaped "/" in a password ends the host before the "@", and the rest is taken for a port
        raise UsageError("the proxy's URL has no valid host and port", hint=_PROXY_FORM) from None
    if parts.scheme != "http" or not parts.hostname or not port:
        named = shown(f"{parts.scheme}://{parts.hostname or ''}")
        raise UsageError(f"the proxy {named} is not of the form http://HOST:PORT", hint=_PROXY_FORM)
    return _encoded_name(parts.hostname), port, _proxy_login(parts.username, parts.password)


def _proxy_login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    from base64 import b64encode

    pair = b":".join(unquote_to_bytes(os.fsencode(part)) for part in (user, password or ""))  # in any encoding
    return {"Proxy-Authorization": f"Basic {b64encode(pair).decode()}"}
