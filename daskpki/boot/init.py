"""A minimal init, for PID 1 and for `node`: forwards signals, reaps processes, and exits with the first failing status.

It is a separate program, `python -m daskpki.boot.init NAME=PID...`, which the boot execs once its children run, so no
key stays in its memory. Signals are blocked before the children start and across the exec, so none is lost; the init
waits for them one by one, without handlers.

After one program has ended by itself, the others get 5 s to end too. Workers without a scheduler end within 3 s, with
status 0 (distributed#7971), so the scheduler's status counts; a signal during that time makes them hang for 8 s. After
5 s, or on a signal to end, the init stops the programs one after the other, the last one started first, since workers
end faster while their scheduler lives. Programs that are still running later are killed.

Each program leads its own process group, so a terminal's Ctrl-C and Ctrl-Z reach only the init. When Ctrl-C reached
scheduler and workers at once, each of them logged a traceback because the other was gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from daskpki.boot.log import TEXT, BootLog

LEAVE: Final = 5.0
"""Seconds between one program's end and asking the others to end."""

GRACE: Final = 8.0
"""Seconds between asking and killing, plus `--retire`. With its default of 20 s that is less than the 30 s after which
Kubernetes and spot machines kill us, so the end of each program can be logged.
"""

FORWARDED: Final = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)
WAITED_FOR: Final = FORWARDED | {signal.SIGCHLD, signal.SIGTSTP}
_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_SIGNALLED: Final = 128
_FOR_PYTHON: Final = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "HOME")
"""Variables by which Python finds its library and this module; the init keeps no others."""

_FORMAT: Final = "DASKPKI_LOG_FORMAT"
_RETIRE: Final = "DASKPKI_RETIRE"


class Init:
    """Waits for programs, by process id. `leave` and `grace` in seconds."""

    def __init__(
        self, names: Mapping[int, str], note: Callable[[str], object], *, leave: float = LEAVE, grace: float = GRACE
    ) -> None:
        self._running = dict(names)
        self._note = note
        self._leave = leave
        self._grace = grace
        self._failure: int | None = None
        self._asked: int | None = None  # the signal by which programs were asked to end
        self._limit: float | None = None  # when to ask, or to kill, on the monotonic clock

    def run(self) -> int:
        """Wait for all programs to end; return the first failing status, or 0."""
        self._reap()  # programs that ended before this began to wait
        while self._running:
            received = self._next_signal()
            if received is None and self._asked is None:  # the time limit: ask, then kill
                self._ask(signal.SIGTERM)
            elif received is None:
                self._signal_all(signal.SIGKILL)
                self._limit = None
            elif received == signal.SIGCHLD:
                self._reap()
            elif received in _ENDING:
                self._ask(received)
            elif received == signal.SIGTSTP:
                self._pause()
            else:
                self._signal_all(received)
        return self._failure or 0

    def _next_signal(self) -> int | None:
        """Wait for the next signal; None once the time limit is reached."""
        if self._limit is None:
            return signal.sigwaitinfo(WAITED_FOR).si_signo
        found = signal.sigtimedwait(WAITED_FOR, max(0.0, self._limit - time.monotonic()))
        return None if found is None else found.si_signo

    def _reap(self) -> None:
        """Reap every process that has ended, also the programs' orphans."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._running.clear()
                return
            if process == 0:
                return
            if process in self._running:
                self._ended(self._running.pop(process), os.waitstatus_to_exitcode(status))

    def _ended(self, name: str, code: int) -> None:
        how = f"with status {code}" if code >= 0 else f"by {_signal_name(-code)}"
        with contextlib.suppress(OSError):  # the reader of the log may be gone; go on
            self._note(f"{name} ended {how}")
        if code and self._failure is None and -code != self._asked:
            self._failure = code if code > 0 else _SIGNALLED - code
        if self._asked is not None:
            self._ask_last(self._asked)
        elif self._limit is None:
            self._limit = time.monotonic() + self._leave

    def _ask(self, number: int) -> None:
        """Ask the last started program to end; after its end, the one before it is asked."""
        if self._asked is None:
            self._limit = time.monotonic() + self._grace
        self._asked = number
        self._ask_last(number)

    def _ask_last(self, number: int) -> None:
        if self._running:
            _send(list(self._running)[-1], number)

    def _pause(self) -> None:
        """Stop all processes on Ctrl-Z, this one too; continue them when this one continues."""
        _send_groups(self._running, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        _send_groups(self._running, signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        for process in self._running:
            _send(process, number)


def _signal_name(number: int) -> str:
    """Name a signal; Python has names only for the first and the last real-time signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _send_groups(leaders: Iterable[int], number: int) -> None:
    for leader in leaders:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def exec_init(
    children: Mapping[int, str],
    log_format: str,
    execve: Callable[[str, list[str], dict[str, str]], object],
    *,
    retire: int = 0,
) -> None:
    """Become the init of these children, by process id; the signals of WAITED_FOR are blocked already.

    `retire` is the time in seconds in which a worker may move its data to others.
    """
    arguments = [f"{name}={process}" for process, name in children.items()]
    environ = {name: os.environ[name] for name in _FOR_PYTHON if name in os.environ}
    environ |= {_FORMAT: log_format, _RETIRE: str(retire)}
    execve(sys.executable, [sys.executable, "-P", "-m", "daskpki.boot.init", *arguments], environ)


def main(arguments: Sequence[str]) -> int:
    """Wait for the children named on the command line; return their first failing status, or 0."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    pairs = [word.rpartition("=") for word in arguments]
    init = Init(
        {int(process): name for name, _, process in pairs},
        note=BootLog(os.environ.get(_FORMAT, TEXT)).note,
        grace=GRACE + int(os.environ.get(_RETIRE, "0")),
    )
    return init.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
