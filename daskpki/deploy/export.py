"""A deployment as files: a shell script, Terraform, or user-data alone. Pure.

In the script, files go through quoted here-documents and arguments through `shlex`, so nothing in them is expanded.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from daskpki.deploy.apply import plan_from
from daskpki.deploy.blueprint import container, parts
from daskpki.deploy.cloud_init import render_user_data
from daskpki.deploy.iam import Command
from daskpki.deploy.plan import Step
from daskpki.deploy.settings import Deployment
from daskpki.errors import UsageError

_HEAD: Final = """\
#!/usr/bin/env bash
# {title}
# Made by daskpki; no secret is in here.
set -euo pipefail
cd "$(mktemp -d)"
"""
_SETTLED: Final = """
# A new resource may take a minute to be known everywhere.
settled() {
  for wait in 5 10 20 40 60; do
    if "$@"; then return; fi
    sleep "$wait"
  done
  "$@"
}
"""
_DELIMITER: Final = "END_OF_FILE_OF_DASKPKI"


def user_data(wanted: Deployment, part: str | None = None) -> str:
    """The user-data of a part, by default the scheduler's; UsageError lists the parts."""
    known = {one.name: one for one in parts(wanted)}
    chosen = known.get(part or next(iter(known)))
    if chosen is None:
        raise UsageError(f"the deployment has no part {part!r}", hint=f"it has {', '.join(known)}")
    return render_user_data(container(wanted, chosen))


def script(wanted: Deployment) -> str:
    """The plan from an empty project as a shell script that needs only `gcloud` and `daskpki`."""
    steps = plan_from(wanted)
    head = _HEAD.format(title=f"Dask cluster {wanted.cluster} in {wanted.project}, {wanted.zone}")
    settled = _SETTLED if any(step.settles for step in steps) else ""
    return head + settled + "".join(map(_step, steps))


def _step(step: Step) -> str:
    files = "".join(
        f"cat >{shlex.quote(name)} <<'{_DELIMITER}'\n{content}{_DELIMITER}\n" for name, content in step.files.items()
    )
    settled = ("settled",) if step.settles else ()
    commands = "".join(" \\\n  ".join(_lines((*settled, *command))) + "\n" for command in step.commands)
    # A title contains no line break, so all of it stays a comment.
    return f"\n# {' '.join(step.line.split())}\n{files}{commands}"


def _lines(words: Command) -> Iterator[str]:
    """The words before the first option on one line, then one option a line."""
    first = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    yield shlex.join(words[:first])
    yield from map(shlex.quote, words[first:])
