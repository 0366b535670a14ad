"""A connection for GET requests: TLS, proxies, keep-alive, and a time limit for the exchange as a whole."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from daskpki.boot.http import Reader, Reply, encode_head, read_head, read_reply
from daskpki.boot.retry import TryAgain, within
from daskpki.errors import AccessDeniedError, NotTrustedError, UsageError
from daskpki.quoting import shown

_HTTPS: Final = 443
_HTTP: Final = 80
_ADDRESSES: Final = 4
_OK: Final = 200
_LOGIN_WANTED: Final = 407
TRANSIENT: Final = (408, 429)
"""Of the statuses below 500, those that another attempt may mend."""

PROXY_SETTINGS: Final = "https_proxy=http://USER:PASSWORD@HOST:PORT and no_proxy say who goes through it, and as whom"
_PROXY_FORM: Final = (
    "https_proxy=http://HOST:PORT, with %2F for a / in a password, or no_proxy=googleapis.com to go there directly"
)
_PROXY_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_CLOCK_CODES: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class Target(NamedTuple):
    """Where connections go: `proxy` is the URL of an HTTP proxy, or None to go straight there."""

    host: str
    port: int
    encrypted: bool
    proxy: str | None = None

    @property
    def authority(self) -> str:
        """HOST:PORT, without the port where it is the usual one (RFC 9110, 4.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (_HTTPS if self.encrypted else _HTTP) else f"{host}:{self.port}"


def parse_target(authority: str, *, encrypted: bool, proxy: str | None = None) -> Target:
    """The target of HOST or HOST:PORT; UsageError."""
    try:
        parts = urlsplit(f"//{authority}")
        port = parts.port
    except ValueError:
        raise UsageError(f"{shown(authority)} is not HOST or HOST:PORT") from None
    if not parts.hostname or parts.netloc != authority or "@" in authority:
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
        """The reply to one GET within `timeout` seconds in all.

        Raises TryAgain for whatever may go better next time, NotTrustedError when the other side's certificate is not
        to be trusted.
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
            raise self._untrusted(error) from error
        except (OSError, TryAgain) as error:
            self.close()
            raise TryAgain(f"{self.target.host}: {_words(error)}", hint=getattr(error, "hint", None)) from error
        if not stays:
            self.close()
        return reply

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
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

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> Exception:
        what = f"{self.target.host}: its certificate is not trusted here ({error.verify_message})"
        if error.verify_code in _CLOCK_CODES:  # this machine's clock may be wrong, and may yet be put right
            return TryAgain(what, hint="check this machine's clock")
        return NotTrustedError(
            what, hint="install ca-certificates; for a proxy that reads along, SSL_CERT_FILE names its CA"
        )


def system_trust() -> ssl.SSLContext:
    """A context that trusts the system's CAs (or SSL_CERT_FILE's), or certifi's where the system has none."""
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
    """The proxy that https_proxy or all_proxy names for `host`, unless no_proxy lists it (as curl reads them)."""
    proxy = next((environ[name] for name in _PROXY_VARIABLES if environ.get(name)), None)
    for entry in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(","):
        suffix = entry.strip().lstrip(".").lower()
        if suffix == "*" or (suffix and (host == suffix or host.endswith(f".{suffix}"))):
            return None
    return proxy


def _dial(host: str, port: int, end: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one; each has its share of the time that is left.

    A name may have an address of IPv6 before one of IPv4 where only the other one leads anywhere.
    """
    addresses = _resolve(host, port, end)
    refusal: OSError = OSError(f"the name {host} has no address")
    for number, (family, address) in enumerate(addresses):
        try:
            return _connect(family, address, _left(end) / (len(addresses) - number))
        except OSError as error:
            refusal = error
    raise refusal


def _connect(family: int, address: Any, timeout: float) -> socket.socket:
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.settimeout(timeout)
        plain.connect(address)
    except BaseException:
        plain.close()
        raise
    return plain


def _resolve(host: str, port: int, end: float) -> list[tuple[int, Any]]:
    """Families and addresses; a name is looked up in a thread, since the C library's look-up knows no time limit."""
    if host.replace(".", "").isdigit() or ":" in host:
        return [(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))]
    found = within(
        _left(end),
        partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM),
        f"the name {host} was not resolved in time",
    )
    return [(family, address) for family, *_, address in found[:_ADDRESSES]]


def _dial_through(target: Target, end: float) -> socket.socket:
    """A tunnel through the proxy (RFC 9110, 9.3.6), with its user and password if the URL has them."""
    proxy = _parse_proxy(target.proxy or "")
    plain = _dial(proxy.host, proxy.port, end)
    try:
        authority = f"{target.host}:{target.port}"
        headers = {"Host": authority, **_proxy_login(proxy.user, proxy.password)}
        _send(plain, encode_head(f"CONNECT {authority} HTTP/1.1", headers), end)
        _check_tunnel(proxy.host, *read_head(Reader(_receiver(plain, end))))
    except BaseException:
        plain.close()
        raise
    return plain


class _Proxy(NamedTuple):
    host: str
    port: int
    user: str | None
    password: str | None


def _parse_proxy(url: str) -> _Proxy:
    """UsageError for another form, which repeats no more than what cannot be a password.

    Without a scheme it is one of http, as curl, pip and git take it.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port or _HTTP
    except ValueError:  # an unescaped "/" in a password ends the host before the "@", and the rest is taken for a port
        raise UsageError("the proxy's URL has no valid host and port", hint=_PROXY_FORM) from None
    if parts.scheme != "http" or not host:
        named = shown(f"{parts.scheme}://{host}")
        raise UsageError(f"the proxy {named} is not of the form http://HOST:PORT", hint=_PROXY_FORM)
    return _Proxy(host, port, parts.username, parts.password)


def _check_tunnel(proxy: str, status: int, _headers: Mapping[str, str]) -> None:
    """TryAgain for what the proxy may yet do; AccessDeniedError for what it will not, such as 407 without a login."""
    if status == _OK:
        return
    said = f"the proxy {proxy} answers {status}"
    if status in TRANSIENT or status >= 500:  # noqa: PLR2004 - server errors
        raise TryAgain(said, hint=PROXY_SETTINGS)
    raise AccessDeniedError(f"{said} (it wants a login)" if status == _LOGIN_WANTED else said, hint=PROXY_SETTINGS)


def _proxy_login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    from base64 import b64encode

    pair = f"{unquote(user)}:{unquote(password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


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
