"""Run a command as the shell would, within this process (its own start-up has tests and benchmarks of its own)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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


VARIABLES = {"--store": "DASKPKI_STORE", "--cluster": "DASKPKI_CLUSTER", "--key-file": "DASKPKI_KEY_FILE"}


@contextmanager
def variables(common: tuple[str, ...]) -> Iterator[list[str]]:
    """The options as variables, which hints do not repeat as they do options; yields those that have none."""
    pairs = dict(zip(common[::2], common[1::2], strict=True))
    with pytest.MonkeyPatch.context() as patch:
        for option in VARIABLES.keys() & pairs:
            patch.setenv(VARIABLES[option], pairs.pop(option))
        yield [word for pair in pairs.items() for word in pair]


def runner(capsys: pytest.CaptureFixture[str], *common: str, as_options: bool = False) -> Run:
    """Commands with these options, which stand in variables unless hints and remedies are to repeat them."""

    def run(*arguments: str, code: int | None = 0) -> Result:
        capsys.readouterr()
        with nullcontext(list(common)) if as_options else variables(common) as rest:
            exit_code = main([*rest, *arguments])
        result = Result(exit_code, *capsys.readouterr())
        assert code in (None, result.code), result
        return result

    return run


Make = Callable[..., Run]
