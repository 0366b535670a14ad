"""`daskpki` and `python -m daskpki`: starts the command line, which is an extra (a node does not need it)."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; the exit code is one of the documented ones."""
    try:
        return _run()
    except KeyboardInterrupt:  # while modules were loaded; later ones are reported by the command line
        print("error: interrupted", file=sys.stderr)
        return 130


def _run() -> int:
    import gc
    import signal
    from importlib.util import find_spec

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the parent had it ignored, as nohup does
        signal.signal(signal.SIGINT, _interrupt)
    if find_spec("typer") is None:
        print("error: the command line is not installed here", file=sys.stderr)
        print("hint: pip install 'daskpki[cli]'", file=sys.stderr)
        return 1
    gc.set_threshold(100_000)  # start-up allocates much and frees little: collections would take 5 % of a command
    from daskpki.cli.app import main as run

    try:
        return run(sys.argv[1:])
    finally:
        gc.freeze()  # the collection at exit would free little, and took a fifth of `issue`


def _interrupt(number: int, _frame: object) -> None:
    """Raise KeyboardInterrupt once: a second Ctrl-C would cut off the clean-up after the first."""
    import signal

    signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
