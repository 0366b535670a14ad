"""The cluster's other secrets as a program reads them: from where `daskpki-entrypoint --secret` put them."""

from __future__ import annotations

from collections.abc import Mapping

from daskpki.errors import NotFoundError
from daskpki.handover import VARIABLE, load_handover
from daskpki.identity import parse_label


def read_mounted(name: str, environ: Mapping[str, str]) -> bytes:
    """The bytes of a mounted secret; NotFoundError with the option that mounts it, UsageError for no name at all."""
    parse_label(name, "secret name")
    mounted = load_handover(environ[VARIABLE]).secrets if environ.get(VARIABLE) else {}
    if name not in mounted:
        known = f"; mounted are: {', '.join(sorted(mounted))}" if mounted else ""
        raise NotFoundError(
            f"the secret {name!r} is not mounted in this process{known}",
            hint=f"start it by daskpki-entrypoint with --secret {name}=fd; by hand: daskpki secret get {name}",
        )
    return _read(name, mounted[name])


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is not loaded otherwise
            return file.read()
    except OSError as error:
        raise NotFoundError(
            f"the secret {name!r} cannot be read at {path}: {error.strerror}",
            hint="it lives as long as the process that daskpki-entrypoint became; start again through it",
        ) from None
