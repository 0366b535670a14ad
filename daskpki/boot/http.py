"""GET requests for the boot: retries until a deadline, TLS, proxies, keep-alive, and a time limit for a whole exchange.

`urllib.request` and `http.client` (which loads `email`) cost 25 to 35 ms to import, as much as the rest of a boot, and
limit the time of each read but not of an exchange. So this module writes and reads HTTP/1.1 itself.

A boot retries with full jitter from 50 ms, doubling up to 5 s, until the deadline; then it exits with 75. A request
raises TryAgain where another attempt may succeed; daskpki's other errors end the boot at once. The Date header of a
reply shows how wrong this machine's clock is.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Final, NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

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
    """A failure that another attempt may not have; `hint` is what a person can do about it."""

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
                if last is None or self.now() < self.end:  # an attempt that the deadline cut short has no answer
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
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


Receive = Callable[[], bytes]
"""Returns the next bytes, empty at the end; raises OSError, TimeoutError among them."""

_MAX_LINE: Final = 8 * 1024
_MAX_HEAD: Final = 64 * 1024
_MAX_BODY: Final = 1 << 20
"""Bytes of a reply's body: a payload has at most 64 KiB, 88 KiB in its JSON document."""
_END: Final = b"\r\n"


class Reply(NamedTuple):
    """A response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def encode_head(first: str, headers: Mapping[str, str]) -> bytes:
    """A request's first line and headers, up to the empty line."""
    lines = [first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def read_reply(receive: Receive) -> tuple[Reply, bool]:
    """Read a reply to GET; return it, and True if the connection stays open. TryAgain if it is cut off or not HTTP."""
    reader = Reader(receive)
    status, headers = read_head(reader)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _read_chunks(reader)
    elif "content-length" in headers:
        body = reader.exactly(_number(headers["content-length"], 10))
    else:
        return Reply(status, headers, reader.rest()), False
    return Reply(status, headers, body), headers.get("connection", "").lower() != "close"


def read_head(reader: Reader) -> tuple[int, dict[str, str]]:
    """Read status and headers of a reply; TryAgain if it is cut off or not HTTP."""
    head = reader.until(_END + _END, _MAX_HEAD)
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise _not_http()
    pairs = (line.partition(":") for line in lines)
    return _number(rest[:3], 10), {name.strip().lower(): value.strip() for name, _, value in pairs}


class Reader:
    """A buffer over `receive` that returns the parts of an HTTP message, each with a limit."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._buffer = b""

    def until(self, mark: bytes, limit: int = _MAX_LINE) -> bytes:
        """Read up to `mark`, at most `limit` bytes."""
        while mark not in self._buffer:
            if len(self._buffer) > limit:
                raise _endless()
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def exactly(self, length: int) -> bytes:
        """Read `length` bytes."""
        if length > _MAX_BODY:
            raise _endless()
        while len(self._buffer) < length:
            self._more()
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return found

    def rest(self) -> bytes:
        """Read until the other side closes."""
        while part := self._receive():
            self._buffer += part
            if len(self._buffer) > _MAX_BODY:
                raise _endless()
        return self._buffer

    def _more(self) -> None:
        part = self._receive()
        if not part:
            raise TryAgain("the reply was cut off")
        self._buffer += part


def _read_chunks(reader: Reader) -> bytes:
    """Read a body in chunks (RFC 9112, 7.1)."""
    body = b""
    while size := _number(reader.until(_END).partition(b";")[0].decode("latin-1").strip(), 16):
        body += reader.exactly(size)
        if reader.exactly(len(_END)) != _END:
            raise _not_http()
        if len(body) > _MAX_BODY:
            raise _endless()
    while reader.until(_END):  # trailers
        pass
    return body


def _number(text: str, base: int) -> int:
    try:
        return int(text if text.isalnum() else "", base)  # int() would also take signs, blanks and underscores
    except ValueError:
        raise _not_http() from None


def _not_http() -> TryAgain:
    return TryAgain("the server there does not speak HTTP/1.1")


def _endless() -> TryAgain:
    return TryAgain("the reply is longer than any that is expected")


_HTTPS: Final = 443
_HTTP: Final = 80
_ADDRESSES: Final = 4  # of a name are tried; more would leave too little time for each
_OK: Final = 200
_LOGIN_WANTED: Final = 407
PROXY_SETTINGS: Final = "https_proxy=http://USER:PASSWORD@HOST:PORT and no_proxy say who goes through it, and as whom"
_PROXY_FORM: Final = (
    "https_proxy=http://HOST:PORT, with %2F for a / in a password, or no_proxy=googleapis.com to go there directly"
)
_PROXY_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_CLOCK_CODES: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class Target(NamedTuple):
    """Where connections go: `proxy` is the URL of an HTTP proxy, or None."""

    host: str
    port: int
    encrypted: bool
    proxy: str | None = None

    @property
    def authority(self) -> str:
        """HOST:PORT, without the default port (RFC 9110, 4.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (_HTTPS if self.encrypted else _HTTP) else f"{host}:{self.port}"


def parse_target(authority: str, *, encrypted: bool, proxy: str | None = None) -> Target:
    """Parse HOST or HOST:PORT; UsageError."""
    try:
        parts = urlsplit(f"//{authority}")
        port = parts.port
    except ValueError:
        raise UsageError(f"{shown(authority)} is not HOST or HOST:PORT") from None
    if not parts.hostname or port == 0 or parts.netloc != authority or "@" in authority:
        raise UsageError(f"{shown(authority)} is not HOST or HOST:PORT")
    return Target(parts.hostname, port or (_HTTPS if encrypted else _HTTP), encrypted, proxy)


class Connection:
    """One connection at a time to one target, kept open between requests for as long as the other side allows."""

    def __init__(self, target: Target, trust: Callable[[], ssl.SSLContext]) -> None:
        self.target = target
        self._trust = trust
        self._socket: socket.socket | None = None
        self._context: ssl.SSLContext | None = None

    def get(self, path: str, headers: Mapping[str, str], timeout: float) -> Reply:
        """Send one GET, and return the reply within `timeout` seconds in all.

        Raises TryAgain if another attempt may succeed, NotTrustedError for a certificate that is not trusted.
        """
        end = monotonic() + timeout
        fields = {"Host": self.target.authority, "Accept-Encoding": "identity", **headers}
        try:
            if self._socket is None:
                self._socket = self._connect(end)
            _send(self._socket, encode_head(f"GET {path} HTTP/1.1", fields), end)
            reply, stays = read_reply(_receiver(self._socket, end))
        except ssl.SSLCertVerificationError as error:
            self.close()
            what = f"{self.target.host}: its certificate is not trusted here ({error.verify_message})"
            if error.verify_code in _CLOCK_CODES:  # this machine's clock may be wrong, and may yet be corrected
                raise TryAgain(what, hint="check this machine's clock") from error
            way_out = "install ca-certificates; for a proxy that decrypts TLS, set SSL_CERT_FILE to its CA"
            raise NotTrustedError(what, hint=way_out) from error
        except (OSError, TryAgain) as error:
            self.close()
            raise TryAgain(f"{self.target.host}: {_words(error)}", hint=getattr(error, "hint", None)) from error
        if not stays:
            self.close()
        return reply

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self, end: float) -> socket.socket:
        target = self.target
        plain = _dial(target.host, target.port, end) if target.proxy is None else _dial_through(target, end)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not target.encrypted:
                return plain
            self._context = self._context or self._trust()
            plain.settimeout(_left(end))
            return self._context.wrap_socket(plain, server_hostname=target.host)
        except BaseException:
            plain.close()
            raise


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


def _dial(host: str, port: int, end: float) -> socket.socket:
    """Connect to the first address of the host that accepts; each address gets its share of the remaining time.

    A name may have an unreachable IPv6 address before an IPv4 address.
    """
    if host.replace(".", "").isdigit() or ":" in host:
        addresses = [(host, port)]
    else:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)  # it has no time limit
        try:
            found = within(_left(end), look_up, f"the name {host} was not resolved in time")
        except UnicodeError:  # an empty label, or one of more than 63 octets
            raise UsageError(f"{shown(host)} cannot be the name of a host") from None
        addresses = [(str(address[0]), port) for *_, address in found[:_ADDRESSES]]
    refusal: OSError = OSError(f"the name {host} has no address")
    for number, address in enumerate(addresses):
        try:
            return socket.create_connection(address, _left(end) / (len(addresses) - number))
        except OSError as error:
            refusal = error
    raise refusal


def _dial_through(target: Target, end: float) -> socket.socket:
    """Open a tunnel through the proxy (RFC 9110, 9.3.6), with user and password if its URL has them.

    Raises TryAgain for a temporary refusal, AccessDeniedError for another, such as 407 without a login.
    """
    proxy, port = _parse_proxy(target.proxy or "")
    plain = _dial(str(proxy.hostname), port, end)
    try:
        authority = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
        headers = {"Host": authority, **_proxy_login(proxy.username, proxy.password)}
        _send(plain, encode_head(f"CONNECT {authority} HTTP/1.1", headers), end)
        status, _ = read_head(Reader(_receiver(plain, end)))
        _check_tunnel(f"the proxy {proxy.hostname} answers {status}", status)
    except BaseException:
        plain.close()
        raise
    return plain


def _parse_proxy(url: str) -> tuple[SplitResult, int]:
    """Parse a proxy's URL, and return it with its port; UsageError for another form repeats no part of a password.

    The default scheme is http, as for curl, pip and git.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = _HTTP if parts.port is None else parts.port
    except ValueError:  # an unescaped "/" in a password ends the host before the "@", and the rest is taken for a port
        raise UsageError("the proxy's URL has no valid host and port", hint=_PROXY_FORM) from None
    if parts.scheme != "http" or not parts.hostname or not port:
        named = shown(f"{parts.scheme}://{parts.hostname or ''}")
        raise UsageError(f"the proxy {named} is not of the form http://HOST:PORT", hint=_PROXY_FORM)
    return parts, port


def _check_tunnel(answer: str, status: int) -> None:
    if is_temporary(status):
        raise TryAgain(answer, hint=PROXY_SETTINGS)
    if status != _OK:
        login = " (it wants a login)" if status == _LOGIN_WANTED else ""
        raise AccessDeniedError(f"{answer}{login}", hint=PROXY_SETTINGS)


def _proxy_login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    from base64 import b64encode

    pair = b":".join(unquote_to_bytes(os.fsencode(part)) for part in (user, password or ""))  # in any encoding
    return {"Proxy-Authorization": f"Basic {b64encode(pair).decode()}"}


def _receiver(source: socket.socket, end: float) -> Callable[[], bytes]:
    def receive() -> bytes:
        source.settimeout(_left(end))
        return source.recv(65_536)

    return receive


def _send(sink: socket.socket, data: bytes, end: float) -> None:
    sink.settimeout(_left(end))
    sink.sendall(data)


def _left(end: float) -> float:
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time" if str(error) == "timed out" else str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
