"""Dask's `security-loader`, set in a file of our own among the user's Dask configuration files.

Dask merges all YAML files of its directory, so no file of the user's is ever edited; ours says who wrote it, and one
of the same name that does not say so is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from daskpki.errors import AlreadyExistsError
from daskpki.files import is_there, os_error, write_private
from daskpki.settings import user_home

LOADER: Final = "daskpki.loader.security_loader"
_FILE: Final = "daskpki.yaml"
_MARK: Final = "# Written by `daskpki login`; the last `daskpki logout` removes it."
_TEXT: Final = f"{_MARK}\ndistributed:\n  client:\n    security-loader: {LOADER}\n"
_VARIABLE: Final = "DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER"
_PUBLIC: Final = 0o644


def config_file(environ: Mapping[str, str]) -> Path:
    """Where our file lies: ~/.config/dask, which Dask reads whatever DASK_CONFIG says, so login and logout agree."""
    return user_home(environ) / ".config" / "dask" / _FILE


def check_config(environ: Mapping[str, str]) -> Path:
    """Our file's path; AlreadyExistsError when there is a file of that name which is not ours."""
    path = config_file(environ)
    if not _is_ours(path):
        raise AlreadyExistsError(f"{path} exists and was not written by daskpki", hint="rename it, and log in again")
    return path


def set_loader(environ: Mapping[str, str]) -> Path:
    """Let plain `Client("tls://...")` ask daskpki; AlreadyExistsError as `check_config`."""
    path = check_config(environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, path.parent) from error
    write_private(path, _TEXT.encode(), force=True, mode=_PUBLIC)
    return path


def unset_loader(environ: Mapping[str, str]) -> None:
    """Remove our file, and Dask's directory if nothing else is in it."""
    path = config_file(environ)
    if not is_there(path) or not _is_ours(path):
        return
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def overruled_by(environ: Mapping[str, str]) -> str | None:
    """The variable or file by which the user sets another `security-loader`, which wins over ours; None without one."""
    if environ.get(_VARIABLE, LOADER) != LOADER:
        return _VARIABLE
    from dask import config

    directories = [str(config_file(environ).parent), *filter(None, [environ.get("DASK_CONFIG")])]
    winner = None
    for path, found in config.collect_yaml(directories, return_paths=True):
        loader = config.get("distributed.client.security-loader", None, config=found)
        if loader:
            winner = None if loader == LOADER else str(path)
    return winner


def _is_ours(path: Path) -> bool:
    try:
        return not is_there(path) or path.read_text("utf-8", "replace").startswith(_MARK)
    except OSError as error:
        raise os_error(error, path) from error
