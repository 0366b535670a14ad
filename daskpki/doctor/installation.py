"""What is installed here, and what Dask's configuration says. Pure.

The floors are security fixes: docs/adr/0002-dependencies.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from daskpki.doctor.finding import Finding, error, note, ok, warning

FLOORS: Final = {"distributed": (2026, 1, 0), "cryptography": (46, 0, 6)}
LOADER: Final = "daskpki.loader.security_loader"
_PEM: Final = "-----BEGIN"


def check_versions(installed: Mapping[str, str | None]) -> Iterator[Finding]:
    """`installed` has the version of each distribution, None where it is absent."""
    low = list(_too_old(installed))
    yield from low
    dask, distributed = installed.get("dask"), installed.get("distributed")
    if dask and distributed and _numbers(dask)[:3] != _numbers(distributed)[:3]:
        reason = f"dask {dask} and distributed {distributed} are of different releases"
        yield warning("dask", reason, f"pip install 'dask=={distributed}'")
    elif not low:
        yield ok("versions", ", ".join(f"{name} {version}" for name, version in installed.items() if version))


def _too_old(installed: Mapping[str, str | None]) -> Iterator[Finding]:
    for name, floor in FLOORS.items():
        version, least = installed.get(name), ".".join(map(str, floor))
        if version is None:
            yield error(name, "is not installed", f"pip install '{name}>={least}'")
        elif _numbers(version) < floor:
            yield error(name, f"{version} has known security faults; {least} has not", f"pip install '{name}>={least}'")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def check_config(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Dask's configuration as files and environment set it, keys by dots and with `-`; defaults are not in it."""
    yield from _check_keys(config)
    if config.get("distributed.comm.require-encryption") is False:
        reason = "distributed.comm.require-encryption is false: connections without TLS are accepted"
        yield error("Dask's configuration", reason, "remove it, or set it to true")
    loader = config.get("distributed.client.security-loader")
    if loader not in (None, LOADER):
        yield warning(
            "Dask's configuration",
            f"distributed.client.security-loader is {loader}, so Client('tls://...') does not ask daskpki",
            "remove it, or use daskpki.connect()",
        )
    elif loader is None:
        yield note(
            "Dask's configuration",
            "no security-loader is set: Client('tls://...') does not find a credential by itself",
            "daskpki login --user-config sets it; daskpki.connect() works without",
        )
    else:
        yield ok("Dask's configuration", "Client('tls://...') asks daskpki")


def _check_keys(config: Mapping[str, Any]) -> Iterator[Finding]:
    """A key as text in the configuration goes wherever the configuration goes."""
    for name, value in sorted(config.items()):
        if name.startswith("distributed.comm.tls.") and isinstance(value, str) and _PEM in value:
            yield error(
                "Dask's configuration",
                f"{name} holds PEM text: it is passed to subprocesses by their environment, and written to files",
                "remove it; daskpki login, or daskpki-entrypoint",
            )


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration by dotted names; `_` and `-` are the same to Dask."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{str(key).replace('_', '-')}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat
