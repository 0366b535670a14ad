"""Run a command as the shell would, within this process (its own start-up has tests and benchmarks of its own)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import pytest

from daskpki.cli.app import main


class Result(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Run(Protocol):
    def __call__(self, *arguments: str, code: int | None = 0) -> Result: ...


def runner(capsys: pytest.CaptureFixture[str], *common: str) -> Run:
    def run(*arguments: str, code: int | None = 0) -> Result:
        capsys.readouterr()
        exit_code = main([*common, *arguments])
        result = Result(exit_code, *capsys.readouterr())
        assert code in (None, result.code), result
        return result

    return run


Make = Callable[..., Run]
