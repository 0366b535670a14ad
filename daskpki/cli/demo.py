"""`daskpki demo`: the main job, shown on this machine."""

from __future__ import annotations

from importlib.util import find_spec

from daskpki.cli.invocation import Invocation
from daskpki.errors import DaskpkiError


def demo(invocation: Invocation) -> None:
    """Show daskpki on this machine in under a minute: a CA, a secured cluster, a computation, three refused strangers.

    Example:  [bold]daskpki demo[/bold]

    It needs no input and no account, and leaves nothing behind. Exits 0 only if every step succeeded.
    """
    from daskpki.demo import tell_story

    if find_spec("numpy") is None:
        raise DaskpkiError("the demo computes with dask.array, which needs numpy", hint="pip install 'daskpki[all]'")
    told: list[str] = []
    tell_story(told.append if invocation.output.as_json else lambda line: print(line, flush=True))
    if invocation.output.as_json:
        invocation.output.result({"held": True, "story": "\n".join(told).splitlines()}, ())
