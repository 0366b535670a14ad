"""Addresses of Dask's servers: the one form in which a scheduler's is taken, and when two of them are the same.

Every option, variable and document that names a scheduler is read here, so that what one command takes no other one
refuses, and what was compared is what is dialled.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING, Final

from daskpki.errors import CorruptError, UsageError
from daskpki.quoting import shown

if TYPE_CHECKING:
    from pathlib import Path

SCHEME: Final = "tls://"
DEFAULT_PORT: Final = 8786
LIMIT_OF_PORTS: Final = 65_536
_ADDRESS: Final = re.compile(r"tls://(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?\Z")
_NUMERIC: Final = re.compile(r"(?:.*\.)?[0-9]+\Z")
_IPV6: Final = 6
_PORT_DIGITS: Final = 6
_MAX_FILE: Final = 1 << 20


def parse_scheduler(text: str) -> str:
    """The address as daskpki compares and dials it: lower case, IPv6 in its one spelling (RFC 5952), with its port.

    UsageError for anything but tls://HOST[:PORT].
    """
    match = _ADDRESS.match(text.lower())
    host = _host(match[1], match[2]) if match else None
    port = int(match[3] or DEFAULT_PORT) if match else 0
    if host is None or not 0 < port < LIMIT_OF_PORTS:
        raise UsageError(
            f"{shown(text)} is not a scheduler's address, which is tls://HOST or tls://HOST:PORT",
            hint="for example tls://10.0.0.5:8786 or tls://[fd00::5]:8786",
        )
    return f"{SCHEME}{host}:{port}"


def _host(bracketed: str | None, plain: str) -> str | None:
    """The host as it is compared; None for what is none.

    No name ends with a number (RFC 1123, 2.1), so `10.0.0` or `010.0.0.5` is a mistyped address.
    """
    if bracketed is None and not _NUMERIC.match(plain):
        return plain if plain.strip(".-_") else None
    try:
        return str(ipaddress.IPv4Address(plain)) if bracketed is None else f"[{ipaddress.IPv6Address(bracketed)}]"
    except ValueError:
        return None


def read_scheduler_file(path: Path) -> str:
    """The address in a file that Dask's scheduler wrote (--scheduler-file); NotFoundError, CorruptError, UsageError."""
    from daskpki.files import os_error  # which a boot has no need of

    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_FILE))
    except OSError as error:
        raise os_error(error, path) from error
    except ValueError:
        document = None
    address = document.get("address") if isinstance(document, dict) else None
    if not isinstance(address, str):
        raise CorruptError(f"{path} is no scheduler file", hint="a scheduler writes it by --scheduler-file")
    return parse_scheduler(address)


def matches(address: str, schedulers: tuple[str, ...]) -> bool:
    """Whether `address`, which may be malformed, is one of these parsed ones."""
    try:
        return parse_scheduler(address) in schedulers
    except UsageError:
        return False


def is_canonical(address: str) -> bool:
    """Whether `address` is `tls://IP:PORT` as the scheduler itself writes it, so that it is no alias of another's."""
    scheme, _, location = address.partition("://")
    host, _, port = location.rpartition(":")
    try:
        number = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    written = f"[{number}]" if number.version == _IPV6 else str(number)
    return scheme == "tls" and host == written and "%" not in host and _is_port(port)  # a zone is one machine's own


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) < _PORT_DIGITS and str(int(text)) == text and 0 < int(text) < LIMIT_OF_PORTS
