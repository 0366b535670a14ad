"""Finds which of Dask's configuration files sets `security-loader`, and writes ours for `login --user-config`.

The wheel brings a file that Dask reads in most environments (docs/adr/0014). Only `dask.config.paths` decides whether
it does; how daskpki was installed only explains why it does not. Dask merges all YAML files of a directory, so no file
of the user is ever edited. Our files name daskpki as their author; a file of the same name that does not is left alone.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from daskpki.errors import AlreadyExistsError, DaskpkiError
from daskpki.files import PUBLIC_FILE, is_there, make_directory, os_error, remove_if_empty, write_private
from daskpki.settings import user_home

LOADER: Final = "daskpki.loader.security_loader"
_KEY: Final = "distributed.client.security-loader"
_FILE: Final = "daskpki.yaml"
_MARK: Final = "# Written by `daskpki login --user-config`; the last `daskpki logout` removes it."
_TEXT: Final = f"{_MARK}\ndistributed:\n  client:\n    security-loader: {LOADER}\n"
_VARIABLE: Final = "DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER"
_INHERITED: Final = "DASK_INTERNAL_INHERIT_CONFIG"
_ABSENT: Final = object()


class LoaderConfig(NamedTuple):
    """The loader in this environment's Dask configuration.

    `shipped` is the wheel's file, or an administrator's like it, if Dask reads it; `decided_by` is the file or
    variable that takes precedence, None if nothing sets a loader; `asks_daskpki` is true if that loader is ours.
    """

    shipped: Path | None
    decided_by: str | None
    asks_daskpki: bool

    @property
    def overruled_by(self) -> str | None:
        """The variable or file that takes precedence and sets another loader, or switches ours off."""
        return None if self.asks_daskpki else self.decided_by


def read_config(paths: Sequence[str], environ: Mapping[str, str]) -> LoaderConfig:
    """Read the files of `dask.config.paths`, then the environment; later settings override earlier ones."""
    from dask import config

    own = config_file(environ)
    shipped = decided_by = None
    loader: object = None
    for path, found in config.collect_yaml(paths, return_paths=True):
        value = _loader_of(found)
        if value is _ABSENT:
            continue
        if path.name == _FILE and path != own and value == LOADER:
            shipped = path
        loader, decided_by = value, str(path)
    value = _loader_of(config.collect_env(environ))
    if value is not _ABSENT:
        loader, decided_by = value, _VARIABLE if environ.get(_VARIABLE) else _INHERITED
    return LoaderConfig(shipped, decided_by, loader == LOADER)


def read_own_config(environ: Mapping[str, str]) -> LoaderConfig:
    """Read the configuration of this process's own environment; DaskpkiError if one of the files cannot be parsed."""
    try:
        from dask import config  # this import reads all the files

        return read_config(config.paths, environ)
    except ValueError as error:
        raise DaskpkiError(" ".join(str(error).split())) from None


def _loader_of(found: Mapping[str, Any]) -> object:
    from dask import config

    return config.get(_KEY, _ABSENT, config=dict(found))  # knows `security_loader` as well


def config_file(environ: Mapping[str, str]) -> Path:
    """The path of our file in ~/.config/dask, which Dask reads whatever DASK_CONFIG is, so login and logout agree."""
    return user_home(environ) / ".config" / "dask" / _FILE


def check_config(environ: Mapping[str, str]) -> Path:
    """Our file's path; AlreadyExistsError if a file of that name is not ours."""
    path = config_file(environ)
    if is_there(path) and not _is_ours(path):
        raise AlreadyExistsError(f"{path} exists and was not written by daskpki", hint="rename it, and log in again")
    return path


def set_loader(environ: Mapping[str, str]) -> Path:
    """Set daskpki's loader for every environment that reads the user's directory; AlreadyExistsError."""
    path = check_config(environ)
    make_directory(path.parent)
    write_private(path, _TEXT.encode(), force=True, mode=PUBLIC_FILE)
    return path


def unset_loader(environ: Mapping[str, str]) -> None:
    """Remove our file, and Dask's directory if nothing else is in it."""
    path = config_file(environ)
    if is_there(path) and _is_ours(path):
        path.unlink()
        remove_if_empty(path.parent)


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text("utf-8", "replace").startswith(_MARK)
    except OSError as error:
        raise os_error(error, path) from error


def explain_unread(prefix: str = sys.prefix, base_prefix: str = sys.base_prefix, package: Path | None = None) -> str:
    """Say why Dask does not read the wheel's file, by where daskpki and Python are."""
    place = package or Path(__file__).parents[2]
    if site.USER_SITE and place == Path(site.USER_SITE):
        how = "it was installed with --user"
    elif prefix != base_prefix and place.is_relative_to(base_prefix):
        how = "it was installed outside of this virtual environment, which has --system-site-packages"
    elif prefix == "/usr" and place.is_relative_to("/usr/local"):
        how = "pip puts packages for Debian's own Python into /usr/local"
    else:
        how = "it came by --target, PYTHONPATH or a copy of site-packages"
    return f"Dask reads {Path(prefix) / 'etc' / 'dask'}, and daskpki lies in {place}: {how}"


def tool_environment(prefix: str = sys.prefix) -> str | None:
    """Find the tool that made an environment for daskpki's commands alone, by the receipt that it leaves there."""
    receipts = {"pipx": "pipx_metadata.json", "uv": "uv-receipt.toml"}
    return next((tool for tool, receipt in receipts.items() if os.path.exists(os.path.join(prefix, receipt))), None)  # noqa: PTH110, PTH118
