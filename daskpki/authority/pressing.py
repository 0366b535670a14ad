"""Sign many leaves on all cores: forked processes make keys and sign, while this one alone records and stores.

A forked process has the CA's key already, so it is sent none; what comes back, new keys among it, passes through a pipe
that only the two of them hold. What a worker did not do, since it failed or was killed, is done here, so that an error
is raised here and in its own words.

Only a process of one thread forks safely. So whoever has a gRPC client (Secret Manager, Cloud KMS) signs by itself, and
so does everybody where Linux does not say how many threads there are.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Final, Generic, NoReturn, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_THREADS: Final = "/proc/self/task"
_MOST: Final = 4
"""Workers; what more of them signed could not be stored as fast."""


def can_fork() -> bool:
    """Whether this process may have workers, and the machine cores for them."""
    try:
        return len(os.listdir(_THREADS)) == 1 and _cores() > 1  # noqa: PTH208 - numbers, not paths
    except OSError:
        return False


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class Presses(Generic[Job, Result]):
    """Workers that apply `work` to lists of jobs, one list at a time; jobs and results are pickled."""

    def __init__(self, work: Callable[[Job], Result]) -> None:
        self._work = work
        self._shares: list[Sequence[Job]] = []
        self._workers = [_Worker(work) for _ in range(min(_cores(), _MOST))]

    def __enter__(self) -> Presses[Job, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()

    def begin(self, jobs: Sequence[Job]) -> None:
        """Hand out the jobs and come back at once; the results of earlier ones have been collected."""
        size = max(1, -(-len(jobs) // len(self._workers)))
        self._shares = [jobs[at : at + size] for at in range(0, len(jobs), size)]
        for worker, share in zip(self._workers, self._shares, strict=False):
            worker.send(share)

    def collect(self) -> list[Result]:
        """The results of the jobs that were begun, in their order; raises what `work` raises."""
        results: list[Result] = []
        for worker, share in zip(self._workers, self._shares, strict=False):
            done = worker.receive()
            results += [self._work(job) for job in share] if done is None else done
        return results


class _Worker(Generic[Job, Result]):
    """One forked process and the two pipes to it."""

    def __init__(self, work: Callable[[Job], Result]) -> None:
        theirs, ours = os.pipe(), os.pipe()
        self._process = os.fork()
        if self._process == 0:
            os.close(theirs[1])
            os.close(ours[0])
            _live(work, theirs[0], ours[1])
        os.close(theirs[0])
        os.close(ours[1])
        self._jobs = os.fdopen(theirs[1], "wb")
        self._results = os.fdopen(ours[0], "rb")

    def send(self, jobs: Sequence[Job]) -> None:
        with suppress(BrokenPipeError):  # it was killed, which `receive` will find out
            pickle.dump(jobs, self._jobs)
            self._jobs.flush()

    def receive(self) -> list[Result] | None:
        """The results, None when the jobs failed or the process is gone."""
        try:
            done: list[Result] | None = pickle.load(self._results)  # noqa: S301 - written by our own fork
        except (EOFError, pickle.UnpicklingError):
            return None
        return done

    def end(self) -> None:
        """It has nothing to finish: all that counts is in the log and in the store."""
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._results.close()
        with suppress(BrokenPipeError):
            self._jobs.close()


def _live(work: Callable[[Job], Result], jobs: int, results: int) -> NoReturn:
    """The life of a worker, which ends with its parent's; nothing of the parent's is ever cleaned up here."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent ends us
        with os.fdopen(jobs, "rb") as inbox, os.fdopen(results, "wb") as outbox:
            serve(work, inbox, outbox)
    finally:
        os._exit(0)


def serve(work: Callable[[Job], Result], inbox: BinaryIO, outbox: BinaryIO) -> None:
    """Answer lists of jobs until there are no more; a list that failed is answered by None."""
    with suppress(EOFError, BrokenPipeError):
        while True:
            jobs: Sequence[Job] = pickle.load(inbox)  # noqa: S301 - written by our own parent
            pickle.dump(_attempt(work, jobs), outbox)
            outbox.flush()


def _attempt(work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result] | None:
    try:
        return [work(job) for job in jobs]
    except Exception:  # noqa: BLE001 - the parent does it again, and there it is raised
        return None
