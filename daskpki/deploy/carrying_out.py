"""Carrying a plan out, step by step; what fails leaves the steps before it in place, and the same command goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from daskpki.deploy.gcloud import NotSettledError, Run, ServiceDisabledError
from daskpki.deploy.plan import Step
from daskpki.deploy.resource import NO_FILES, Command
from daskpki.errors import DaskpkiError

WAITS: Final = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds between attempts while a service account or an API that was just made is not known everywhere."""


def carry_out(
    steps: Sequence[Step], run: Run, *, progress: Callable[[int, Step], None], sleep: Callable[[float], None]
) -> None:
    """Carry out the steps in order; raises the first error, which names the step."""
    for number, step in enumerate(steps, start=1):
        progress(number, step)
        for command in step.commands:
            try:
                _run_settled(command, step, run, sleep)
            except DaskpkiError as error:
                raise type(error)(
                    f"step {number} of {len(steps)} ({step.action} {step.title}): {error}",
                    hint=error.hint or "mend the cause and run the same command again: it goes on where it stopped",
                ) from error


def _run_settled(command: Command, step: Step, run: Run, sleep: Callable[[float], None]) -> None:
    for wait in WAITS if step.settles else ():
        try:
            run(command, step.files)
        except (NotSettledError, ServiceDisabledError):
            sleep(wait)
        else:
            return
    run(command, step.files or NO_FILES)
