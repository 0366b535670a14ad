"""A plan as a shell script that needs only `gcloud` and `daskpki`. Pure.

User-data goes through quoted here-documents, arguments through `shlex`, so that nothing in them is expanded.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from daskpki.deploy.plan import Step
from daskpki.deploy.resource import Command

_HEAD: Final = """\
#!/usr/bin/env bash
# {title}
# Made by daskpki; no secret is in here.
set -euo pipefail
cd "$(mktemp -d)"
"""
_SETTLED: Final = """
# What was made just before may take a minute to be known everywhere.
settled() {
  for wait in 5 10 20 40 60; do
    if "$@"; then return; fi
    sleep "$wait"
  done
  "$@"
}
"""
_DELIMITER: Final = "END_OF_USER_DATA"


def render_script(title: str, steps: Sequence[Step]) -> str:
    """The script."""
    settled = _SETTLED if any(step.settles for step in steps) else ""
    return _HEAD.format(title=title) + settled + "".join(map(_step, steps))


def _step(step: Step) -> str:
    files = "".join(_file(name, content) for name, content in step.files.items())
    commands = "".join(_command(command, settles=step.settles) for command in step.commands)
    return f"\n# {step.action} {step.title}\n{files}{commands}"


def _file(name: str, content: str) -> str:
    return f"cat >{shlex.quote(name)} <<'{_DELIMITER}'\n{content}{_DELIMITER}\n"


def _command(command: Command, *, settles: bool) -> str:
    words = ["settled", *command] if settles else list(command)
    return " \\\n  ".join(_lines(words)) + "\n"


def _lines(words: Sequence[str]) -> Iterator[str]:
    """The words before the first option on one line, then one option a line."""
    first = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    yield shlex.join(words[:first])
    yield from map(shlex.quote, words[first:])
