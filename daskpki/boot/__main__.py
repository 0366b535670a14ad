"""`daskpki-entrypoint` and `python -m daskpki.boot`: the first process of a VM or container, which becomes Dask."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_SIGNALLED = 128


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_SIGNALLED + number)  # not an Exception, so no caller takes it for an error


def main() -> int:
    """Boot as the command line says; return the documented exit code if Dask was not started."""
    if os.getpid() == 1:  # the kernel has no default action for PID 1; exec ends these handlers
        for number in _ENDING:
            signal.signal(number, _end)
    gc.disable()  # a boot takes a tenth of a second, and exec ends this setting
    from daskpki.boot.launch import boot
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
    except Exception as error:  # noqa: BLE001 - any other error is a bug of ours, and is reported in the same form
        code = BootLog(log_format(argv, os.environ)).report(error)
        drop_unwritable(sys.stderr)
        return code
    return 1


if __name__ == "__main__":
    sys.exit(main())
