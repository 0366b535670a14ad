"""`daskpki` and `python -m daskpki`: starts the command line, which is an extra (a node does not need it)."""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec


def main() -> int:
    """Run the command line; the exit code is one of the documented ones."""
    if find_spec("typer") is None:
        print("error: the command line is not installed here", file=sys.stderr)
        print("hint: pip install 'daskpki[cli]'", file=sys.stderr)
        return 1
    gc.set_threshold(100_000)  # start-up makes much and drops little: collecting it would cost a command a twentieth
    from daskpki.cli.app import main as run

    try:
        return run(sys.argv[1:])
    finally:
        gc.freeze()  # nor would the interpreter find anything worth collecting at its end: that took a fifth of `issue`


if __name__ == "__main__":
    sys.exit(main())
