"""The minimal init: statuses, signals, reaping, and killing what does not end. Real processes throughout."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from daskpki.boot.init import exec_init
from tests.support.sandbox import OWN_PIDS

UNTIL_ASKED = "trap 'exit {0}' TERM; echo up; while :; do sleep 0.05; done"
"""A program that ends with status {0} when asked, and says when it is ready for that."""


@contextmanager
def brood(
    *commands: str, leave: float = 5, grace: float = 20, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    command = [*prefix, sys.executable, "-m", "tests.support.brood", str(leave), str(grace), *commands]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # after a failed test, the children too


def lines_until(process: subprocess.Popen[str], *expected: str) -> None:
    """Read lines until each of these was seen, in any order."""
    assert process.stdout
    missing = list(expected)
    while missing:
        line = process.stdout.readline()
        assert line, f"all ended before it was said: {missing}"
        if line.rstrip() in missing:
            missing.remove(line.rstrip())


def rest(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout
    return process.stdout.read().splitlines()


def test_all_well_is_zero() -> None:
    with brood("exit 0", "exit 0") as process:
        assert process.wait(20) == 0


def test_the_first_failing_status_counts() -> None:
    with brood(UNTIL_ASKED.format(4), "exit 3", leave=0.5) as process:
        lines_until(process, "child2 ended with status 3", "child1 ended with status 4")
        assert process.wait(20) == 3


def test_a_program_that_dies_by_a_signal_counts_as_shells_count_it() -> None:
    with brood("kill -KILL $$") as process:
        assert process.wait(20) == 128 + signal.SIGKILL


def test_when_one_ends_the_others_are_asked_to_end() -> None:
    with brood(UNTIL_ASKED.format(0), "exit 5", leave=0.2) as process:
        assert "child2 ended with status 5" in rest(process)
        assert process.wait(20) == 5


def test_a_worker_that_ends_well_because_its_scheduler_died_does_not_hide_that() -> None:
    scheduler = "echo up; kill -KILL $$"
    with brood(scheduler, "sleep 0.2; exit 0") as process:
        assert process.wait(20) == 128 + signal.SIGKILL


def test_who_ends_by_itself_in_time_is_not_asked() -> None:
    not_asked = "trap 'exit 9' TERM; sleep 0.5; exit 0"
    with brood(not_asked, "exit 0") as process:
        assert process.wait(20) == 0


def test_a_signal_to_end_comes_to_the_last_one_first() -> None:
    with brood(UNTIL_ASKED.format(0), UNTIL_ASKED.format(0)) as process:
        lines_until(process, "up", "up")
        process.terminate()
        assert rest(process) == ["child2 ended with status 0", "child1 ended with status 0"]
        assert process.wait(20) == 0


def test_programs_that_die_of_what_they_were_asked_with_have_not_failed() -> None:
    with brood("echo up; exec sleep 60", "echo up; exec sleep 60") as process:
        lines_until(process, "up", "up")
        process.terminate()
        assert process.wait(20) == 0


def test_a_signal_that_has_no_name_counts_as_well() -> None:
    with brood("kill -37 $$") as process:
        assert process.wait(20) == 128 + 37
        assert rest(process) == ["child1 ended by signal 37"]


def test_the_programs_are_watched_when_nobody_reads_the_log_any_more() -> None:
    with brood(UNTIL_ASKED.format(4)) as process:
        lines_until(process, "up")
        assert process.stdout
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 4


def test_what_stays_has_what_python_needs_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONUSERBASE", "PGPASSWORD"):
        monkeypatch.setenv(name, "/x")
    environs: list[dict[str, str]] = []
    exec_init({7: "worker"}, "text", lambda _file, _argv, environ: environs.append(environ))
    assert {"LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONUSERBASE", "PATH", "HOME"} <= environs[0].keys()
    assert "PGPASSWORD" not in environs[0]


def test_other_signals_come_to_all() -> None:
    told = "trap 'echo told' USR1; trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"
    with brood(told, told) as process:
        lines_until(process, "up", "up")
        process.send_signal(signal.SIGUSR1)
        lines_until(process, "told", "told")
        process.terminate()
        assert process.wait(20) == 0


def test_who_does_not_end_is_killed() -> None:
    with brood("trap '' TERM; echo up; while :; do sleep 0.05; done", grace=0.3) as process:
        lines_until(process, "up")
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGKILL


def test_as_pid_1_it_reaps_what_others_left_behind(tmp_path: Path) -> None:
    note = tmp_path / "orphan"
    orphan = f"(sleep 0.1 & echo $! ) > {note}; up=$(cat {note}); while [ -d /proc/$up ]; do sleep 0.02; done"
    script = f"exec {sys.executable} -m tests.support.brood 5 5 '{orphan}; echo reaped; exit 0'"
    with subprocess.Popen(
        [*OWN_PIDS, "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),  # noqa: PTH109
    ) as process:
        lines_until(process, "reaped")
        assert process.wait(20) == 0
