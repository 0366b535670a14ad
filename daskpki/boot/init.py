"""A minimal init, for PID 1 and for `node`: forwards signals, reaps, and ends with the first failing status.

It is a program of its own, `python -m daskpki.boot.init NAME=PID...`, which the boot execs once its children run: so
what stays has nothing of the keys in its memory. The signals are blocked before the children are made, and stay so
across the exec, so none is lost on the way; here they are waited for, one after the other, without handlers.

When a program ends by itself, the others are asked to end (a worker whose scheduler died ends with 0 by itself,
distributed#7971: what counts is then the scheduler's status). They are asked one after the other, the last one started
first, since workers that lose their scheduler while they end take seconds longer. What has not ended after 20 s is
killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from daskpki.boot.report import note

GRACE: Final = 20.0
"""Seconds between asking and killing."""

FORWARDED: Final = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)
WAITED_FOR: Final = FORWARDED | {signal.SIGCHLD}
_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_SIGNALLED: Final = 128


class Init:
    """The programs that run, by process id, and how those that ended did."""

    def __init__(self, names: Mapping[int, str], note: Callable[[str], object], *, grace: float = GRACE) -> None:
        self._running = dict(names)
        self._note = note
        self._grace = grace
        self._failure: int | None = None
        self._kill_at: float | None = None
        self._asking: int = signal.SIGTERM

    def run(self) -> int:
        """Wait for all programs to end; the first failing status, or 0."""
        self._reap()  # those that ended before anybody waited
        while self._running:
            received = self._next_signal()
            if received is None:
                self._signal_all(signal.SIGKILL)
            elif received == signal.SIGCHLD:
                self._reap()
            elif received in _ENDING:
                self._begin_to_end(received)
            else:
                self._signal_all(received)
        return self._failure or 0

    def _next_signal(self) -> int | None:
        """The next signal, or None when it is time to kill."""
        if self._kill_at is None:
            return signal.sigwaitinfo(WAITED_FOR).si_signo
        found = signal.sigtimedwait(WAITED_FOR, max(0.0, self._kill_at - time.monotonic()))
        if found is None:
            self._kill_at = time.monotonic() + self._grace
            return None
        return found.si_signo

    def _reap(self) -> None:
        """Take note of every process that ended, orphans of the programs among them."""
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
        status = code if code >= 0 else _SIGNALLED - code
        how = f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        self._note(f"{name} ended {how}")
        as_asked = self._kill_at is not None and code == -self._asking
        if status and self._failure is None and not as_asked:
            self._failure = status
        self._begin_to_end(self._asking)

    def _begin_to_end(self, number: int) -> None:
        """Ask the one that was started last to end; when it has, this comes to the one before it."""
        self._asking = number
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace
        if self._running:
            _send(list(self._running)[-1], number)

    def _signal_all(self, number: int) -> None:
        for process in self._running:
            _send(process, number)


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def exec_init(children: Mapping[int, str], execve: Callable[[str, list[str], dict[str, str]], object]) -> None:
    """Become the init of these children, by process id; the signals of WAITED_FOR are blocked already."""
    arguments = [f"{name}={process}" for process, name in children.items()]
    environ = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    execve(sys.executable, [sys.executable, "-P", "-m", "daskpki.boot.init", *arguments], environ)


def main(arguments: Sequence[str]) -> int:
    """Wait for the children named on the command line; their first failing status, or 0."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    pairs = [word.rpartition("=") for word in arguments]
    init = Init(
        {int(process): name for name, _, process in pairs},
        note=note,
    )
    return init.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
