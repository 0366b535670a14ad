"""Writing Terraform's language in the shape that `terraform fmt` gives it. Pure.

Two spaces a level; the `=` of neighbouring one-line attributes stand in one column; a blank line sets blocks apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

_INDENT: Final = "  "


@dataclass(frozen=True)
class Expression:
    """Text that stands as it is: a reference, a function call."""

    text: str


Value: TypeAlias = "str | int | bool | Sequence[str] | Mapping[str, Value] | Expression"


@dataclass(frozen=True)
class Block:
    """A block with its labels, attributes and blocks inside."""

    kind: str
    labels: Sequence[str] = ()
    attributes: Mapping[str, Value] = field(default_factory=dict)
    blocks: Sequence[Block] = ()


def render(blocks: Sequence[Block]) -> str:
    """The text of a file."""
    return "\n".join("\n".join(_block(block, "")) + "\n" for block in blocks)


def heredoc(text: str) -> Expression:
    """A multi-line string; what Terraform would expand in it is escaped."""
    escaped = text.replace("${", "$${").replace("%{", "%%{")
    return Expression(f"<<-EOT\n{escaped.rstrip()}\nEOT")


def _block(block: Block, indent: str) -> Iterator[str]:
    inside = indent + _INDENT
    head = indent + " ".join((block.kind, *map(quoted, block.labels), "{"))
    if not block.attributes and not block.blocks:
        yield head + "}"
        return
    yield head
    yield from _attributes(block.attributes, inside)
    for number, inner in enumerate(block.blocks):
        if number or block.attributes:
            yield ""
        yield from _block(inner, inside)
    yield indent + "}"


def _attributes(attributes: Mapping[str, Value], indent: str) -> Iterator[str]:
    """Runs of one-line attributes are aligned; one of several lines stands alone."""
    run: dict[str, str] = {}
    for name, value in attributes.items():
        text = _value(value, indent)
        if "\n" in text:
            yield from _aligned(run, indent)
            run = {}
            yield f"{indent}{name} = {text}"
        else:
            run[name] = text
    yield from _aligned(run, indent)


def _aligned(run: Mapping[str, str], indent: str) -> Iterator[str]:
    width = max(map(len, run), default=0)
    for name, text in run.items():
        yield f"{indent}{name.ljust(width)} = {text}"


def _value(value: Value, indent: str) -> str:
    if isinstance(value, Expression):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        inner = "\n".join(_attributes(value, indent + _INDENT))
        return f"{{\n{inner}\n{indent}}}" if value else "{}"
    return f"[{', '.join(map(quoted, value))}]"


def quoted(text: str) -> str:
    """A string literal, in which nothing is expanded."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")
