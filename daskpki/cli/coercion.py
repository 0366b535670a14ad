"""Plain option values without pydantic, which typer 0.29 loads for every option that is not a flag.

Loading it and building its adapters takes as long as all the rest of `daskpki issue` (docs/benchmarks.md). So values
that need no conversion are taken as they are, and only what remains is left to typer, with its own messages. It rests
on one name of typer's, `_runtime_param`; where that is missing, nothing changes but the time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandFunctionType

_ABSENT = object()
_LONG = 10  # digits that no number of ours has


class PlainCommand(TyperCommand):
    """A command whose parameters take plain values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See typer's own; the help option is among them."""
        return _plain_first(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """The same for a group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See typer's own."""
        return _plain_first(super().get_params(ctx))


class Commands(typer.Typer):
    """A group whose commands and whose own options take plain values, without each of them having to say so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=PlainGroup, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """See typer's own."""
        return super().command(name, cls=PlainCommand, **options)


def _plain_first(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""  # typer's help says <bool> behind a flag, as if it took a value
        if getattr(parameter, "_runtime_param", _ABSENT) is None:
            parameter._runtime_param = _PlainFirst()  # noqa: SLF001 - see the top of this file
    return parameters


class _PlainFirst:
    """Stands in for typer's lazily built coercion of one parameter."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value itself where that is what typer would answer, else typer's own answer."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        plain = _plain(param.type_descriptor.annotation, value)
        if isinstance(plain, int) and not _in_range(plain, param):
            plain = _ABSENT
        if not several and plain is not _ABSENT:
            return plain
        param._runtime_param = None  # noqa: SLF001 - typer builds its own
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _in_range(number: int, param: Any) -> bool:
    return (param.min is None or number >= param.min) and (param.max is None or number <= param.max)


def _plain(annotation: Any, value: Any) -> Any:
    if annotation is int and isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < _LONG:
        return int(value)
    if annotation is str and isinstance(value, str):
        return value
    if annotation is Path and isinstance(value, str):
        return Path(value)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum) and value in set(annotation):
        return annotation(value)
    return _ABSENT
