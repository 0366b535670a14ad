"""A plan for people and programs: what would change, line by line, and the same as a JSON document. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

from daskpki.deploy.plan import Step
from daskpki.deploy.resource import CREATED, DELETED, UPDATED

_SIGNS: Final = {CREATED: "+", UPDATED: "~", DELETED: "-"}


def plan_lines(steps: Sequence[Step], *, commands: bool = False) -> Iterator[str]:
    """One line a step, `+` made, `~` changed, `-` removed; with `commands` what does it and what undoes it."""
    if not steps:
        yield "nothing to change"
    for step in steps:
        yield f"{_SIGNS[step.action]} {step.title}"
        for name, (former, wanted) in step.changes.items():
            yield f"    {name}: {former or 'none'} -> {wanted or 'none'}"
        if commands:
            yield from (f"    $ {shlex.join(command)}" for command in step.commands)
            yield from (f"    undo: {shlex.join(command)}" for command in step.undo)


def summary(steps: Sequence[Step]) -> str:
    """How many of each."""
    counts = {action: sum(step.action == action for step in steps) for action in _SIGNS}
    return f"{counts[CREATED]} to make, {counts[UPDATED]} to change, {counts[DELETED]} to remove"


def plan_document(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The steps as `--json` prints them."""
    return [
        {
            "action": step.action,
            "what": step.title,
            "changes": {name: {"from": former, "to": wanted} for name, (former, wanted) in step.changes.items()},
            "commands": [list(command) for command in step.commands],
            "undo": [list(command) for command in step.undo],
            "files": dict(step.files),
        }
        for step in steps
    ]
