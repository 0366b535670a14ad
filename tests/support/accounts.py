"""Commands by a service account of Google's: one process for all, since google-auth looks for the account at import."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING

from daskpki.cli.app import main
from tests.support.running import Result, Run

if TYPE_CHECKING:  # the process would import google-auth with it, before it has the variables
    from tests.emulator import MetadataServer


@contextmanager
def account(metadata: MetadataServer, *common: str, environ: Mapping[str, str]) -> Iterator[Run]:
    """Commands with these options and variables, on a VM that has this metadata server."""
    spawn = multiprocessing.get_context("spawn")
    with (
        metadata,
        ProcessPoolExecutor(1, spawn, initializer=_set, initargs=({**metadata.environment, **environ},)) as process,
    ):

        def run(*arguments: str, code: int | None = 0) -> Result:
            result = process.submit(_run, [*common, *arguments]).result(60)
            assert code in (None, result.code), (arguments, result)
            return result

        yield run


def _set(variables: Mapping[str, str]) -> None:
    os.environ.update(variables)


def _run(words: Sequence[str]) -> Result:
    out, err = (TextIOWrapper(BytesIO(), encoding="utf-8") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    for stream in (out, err):
        stream.seek(0)
    return Result(code, out.read(), err.read())
