"""`daskpki-entrypoint` and `python -m daskpki.boot`: the first process of a VM or container, which becomes Dask."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_SIGNALLED = 128


def end_on_signals() -> None:
    """Let the signals that ask a program to end do so, also as PID 1, for which the kernel knows no default action.

    Until exec replaces this program; the init that PID 1 becomes waits for them in its own way.
    """
    if os.getpid() == 1:
        for number in _ENDING:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_SIGNALLED + number)  # no Exception, so nothing on the way takes it for a fault


def main() -> int:
    """Boot as the command line says; returns only when Dask was not started, with the documented exit code."""
    end_on_signals()
    gc.disable()  # a boot lives for a tenth of a second, and exec ends this setting with everything else
    from daskpki.boot.entrypoint import boot
    from daskpki.boot.log import BootLog
    from daskpki.boot.options import help_text, log_format
    from daskpki.files import drop_unwritable

    argv = sys.argv[1:]
    own = argv[: argv.index("--")] if "--" in argv else argv
    if not own or {"-h", "--help"} & set(own):
        (sys.stdout if own else sys.stderr).write(help_text())
        return 0 if own else 2
    try:
        boot(argv, os.environ)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - what is no error of ours is a fault of ours, and said in the same form
        code = BootLog(log_format(argv, os.environ)).report(error)
        drop_unwritable(sys.stderr)
        return code
    return 1


if __name__ == "__main__":
    sys.exit(main())
