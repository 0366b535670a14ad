"""Settings that all parts share, read from an environment that is passed in.

None of them is secret, so all may be in instance metadata. Store URLs are parsed here, and opened in
`daskpki.store.opening`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.errors import UsageError
from daskpki.identity import parse_label
from daskpki.quoting import shown

DEFAULT_CLUSTER: Final = "default"
DEFAULT_STORE: Final = "local:"
STORES: Final = "daskpki.stores"
"""The entry point group in which other packages name the function for a URL scheme (`daskpki.store.opening`)."""
KMS_SCHEME: Final = "gcpkms://"
"""Scheme of keys in Cloud KMS; defined here, since importing `daskpki.kms` loads Google's client."""
SCHEME: Final = "tls://"
"""Scheme of scheduler addresses."""
ENDPOINT: Final = "DASKPKI_SECRET_MANAGER_ENDPOINT"
"""The variable that names another Secret Manager than Google's."""
GRPC: Final = "grpc"
REST: Final = "rest"
# Google Cloud: project ids are 6 to 30 of a-z, 0-9 and '-' (older ones carry a domain and ':'); numbers work as well.
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]\Z|[0-9]{6,}\Z")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,30}\Z")  # RFC 3986, 3.1, in lower case
LOCATION = re.compile(r"[a-z][a-z0-9-]{2,30}\Z")


class LocalUrl(NamedTuple):
    """`local:` (path is None: the user's data directory) or `local:/path/dir`."""

    path: Path | None

    def __str__(self) -> str:
        return f"local:{self.path or ''}"


class GsmUrl(NamedTuple):
    """`gsm://PROJECT` (global secrets) or `gsm://PROJECT/LOCATION` (regional ones)."""

    project: str
    location: str | None = None

    def __str__(self) -> str:
        return f"gsm://{self.project}" + (f"/{self.location}" if self.location else "")

    @property
    def parent(self) -> str:
        """The resource name of the parent of secrets."""
        return f"projects/{self.project}" + (f"/locations/{self.location}" if self.location else "")


class PluginUrl(NamedTuple):
    """`SCHEME://...` of a store that another package brings (entry point group `daskpki.stores`)."""

    scheme: str
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"


StoreUrl = LocalUrl | GsmUrl | PluginUrl


def parse_store_url(text: str) -> StoreUrl:
    """Parse the URL of a store; UsageError lists the forms, which include the schemes of installed packages."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "local":
        if rest and not rest.startswith("/"):
            raise UsageError(f"store {shown(text)}: the path is not absolute", hint="for example local:/srv/daskpki")
        return LocalUrl(Path(rest) if rest else None)
    if colon and scheme == "gsm" and rest.startswith("//"):
        project, _, location = rest[2:].rstrip("/").partition("/")
        if not _PROJECT.match(project):
            raise UsageError(
                f"store {shown(text)}: {shown(project)} is not a Google Cloud project id",
                hint="6 to 30 of a-z, 0-9 and '-', beginning with a letter and not ending with '-': gsm://my-project",
            )
        if location and not LOCATION.match(location):
            raise UsageError(
                f"store {shown(text)}: {shown(location)} is not a location", hint="for example europe-west1"
            )
        return GsmUrl(project, location or None)
    if rest.startswith("//") and _SCHEME.match(scheme):
        from importlib.metadata import entry_points  # a slow import: it loads parts of `email`

        if entry_points(group=STORES, name=scheme):
            return PluginUrl(scheme, rest)
    raise UsageError(
        f"{shown(text)} is not a store",
        hint="stores are local:, local:/path, gsm://PROJECT, gsm://PROJECT/LOCATION, and what packages add to the "
        f"entry point group {STORES}",
    )


def require_gsm(url: StoreUrl) -> GsmUrl:
    """Return the URL of a store on Secret Manager; UsageError for any other, which no VM could read."""
    if not isinstance(url, GsmUrl):
        raise UsageError(f"VMs cannot read the store {str(url)!r}", hint="gsm://PROJECT")
    return url


class Endpoint(NamedTuple):
    """Endpoint of a Google service: `address` is HOST or HOST:PORT, `transport` is "grpc" or "rest"."""

    address: str
    transport: str
    encrypted: bool


def endpoint_for(url: GsmUrl, environ: Mapping[str, str]) -> Endpoint:
    """Find the endpoint of Secret Manager for a store, or the environment's override; UsageError.

    Google's own endpoint, global or regional, is called over gRPC, since exceptions over REST have only the HTTP code.
    """
    if override := environ.get(ENDPOINT):
        return parse_endpoint(override)
    host = f"secretmanager.{url.location}.rep.googleapis.com" if url.location else "secretmanager.googleapis.com"
    return Endpoint(host, GRPC, encrypted=True)


def parse_endpoint(text: str, variable: str = ENDPOINT) -> Endpoint:
    """Parse an override by `variable`: `https://HOST` and `http://HOST:PORT` are REST, `grpc://HOST:PORT` is gRPC.

    UsageError for other forms, and for the last two, which are unencrypted, unless HOST is loopback.
    """
    from urllib.parse import urlsplit  # this and `ipaddress` for an override alone

    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for a malformed one
    except ValueError:
        parts = urlsplit("")
    scheme, host, address = parts.scheme, parts.hostname or "", parts.netloc
    more = parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc
    if scheme not in ("https", "http", "grpc") or not host or more:
        raise UsageError(
            f"{variable}={shown(text)} is not an endpoint", hint="https://HOST, http://HOST:PORT or grpc://HOST:PORT"
        )
    if scheme != "https" and host != "localhost" and not is_loopback(host):
        raise UsageError(f"{variable}={shown(text)} is unencrypted and not on this machine", hint="use https://HOST")
    return Endpoint(address, GRPC if scheme == "grpc" else REST, encrypted=scheme == "https")


def is_loopback(address: str) -> bool:
    """True if an IP address, with or without a zone, is a loopback address."""
    from ipaddress import IPv6Address, ip_address

    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback


def home(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The directory of daskpki's own files: DASKPKI_HOME, or the platform's directory for a user's data."""
    if chosen := environ.get("DASKPKI_HOME"):
        return Path(chosen)
    user = user_home(environ)
    if platform == "darwin":
        return user / "Library" / "Application Support" / "daskpki"
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or user / "AppData" / "Local") / "daskpki"
    return Path(environ.get("XDG_DATA_HOME") or user / ".local" / "share") / "daskpki"


def user_home(environ: Mapping[str, str]) -> Path:
    """The user's home directory; UsageError if there is none, as in a container without a passwd entry."""
    if chosen := environ.get("HOME") or environ.get("USERPROFILE"):
        return Path(chosen)
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError(
            "this user has no home directory: HOME is not set, and there is no entry in /etc/passwd",
            hint="set HOME, or DASKPKI_HOME to a directory of this user's for daskpki's own files",
        ) from None


def cluster_name(environ: Mapping[str, str], chosen: str | None = None) -> str:
    """The cluster in use: the one chosen, else DASKPKI_CLUSTER, else `default`."""
    return parse_label(chosen or environ.get("DASKPKI_CLUSTER") or DEFAULT_CLUSTER, "cluster")


def program(cluster: str) -> str:
    """`daskpki` for a command in a hint, with the option that names the cluster unless that is the default one."""
    return "daskpki" if cluster == DEFAULT_CLUSTER else f"daskpki --cluster {cluster}"


def store_url(environ: Mapping[str, str], chosen: str | None = None) -> StoreUrl:
    """The store in use: the one chosen, else DASKPKI_STORE, else the local one."""
    return parse_store_url(chosen or environ.get("DASKPKI_STORE") or DEFAULT_STORE)
