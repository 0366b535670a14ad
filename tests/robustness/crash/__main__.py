"""`scripts/crash-sweep [--jobs N] [--case NAME]... [--store local|gsm]`: each command broken off at every point."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.emulator import SecretManagerServer
from tests.robustness.crash import cloud, disk
from tests.robustness.crash.calls import Point
from tests.support.crash_cases import CASES, Case

Verdict = tuple[str, Point | cloud.Point, BaseException | None]


def main() -> int:
    """Run all points, print a table of them, and return 1 when one was not judged well."""
    parser = argparse.ArgumentParser(prog="scripts/crash-sweep", description=__doc__)
    parser.add_argument("--jobs", type=int, default=3, help="how many commands run at once (default: 3)")
    parser.add_argument("--case", action="append", choices=CASES, help="only this command; may be repeated")
    parser.add_argument("--store", choices=("local", "gsm"), help="only on this store")
    chosen = parser.parse_args()
    cases = [CASES[name] for name in chosen.case or CASES]
    counts: Counter[tuple[str, str, str]] = Counter()
    failed, began = 0, time.monotonic()
    for store, point, error in verdicts(cases, chosen.store, chosen.jobs):
        counts[store, point.case, point.fault] += 1
        if error is not None:
            failed += 1
            _say(f"{store}: {point}: {type(error).__name__}: {error}")
    for (store, case, fault), count in counts.items():
        _say(f"{store:16} {case:10} {fault:26} {count:5} points")
    minutes = (time.monotonic() - began) / 60
    _say(f"{sum(counts.values())} points in {minutes:.0f} minutes, {failed} of them not well")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def verdicts(cases: Sequence[Case], store: str | None, jobs: int) -> Iterator[Verdict]:
    """What became of each point."""
    if store != "gsm":
        with tempfile.TemporaryDirectory(prefix="daskpki-crash-") as scratch:
            yield from _on_disk(cases, Path(scratch), jobs)
    if store != "local":
        for transport in ("grpc", "rest"):
            yield from _in_the_cloud(cases, transport)


def _on_disk(cases: Sequence[Case], scratch: Path, jobs: int) -> Iterator[Verdict]:
    for case in cases:
        place = disk.prepare(scratch / case.name, case)

        def play(point: Point, place: disk.Disk = place) -> Verdict:
            root = scratch / "-".join(map(str, point))
            return "local", point, _error(lambda: disk.sweep(place, CASES[point.case], point, root))

        with ThreadPoolExecutor(jobs) as executor:
            yield from executor.map(play, disk.points(place, case))


def _in_the_cloud(cases: Sequence[Case], transport: str) -> Iterator[Verdict]:
    with SecretManagerServer() as server:
        place = cloud.Cloud(server, transport)
        for case in cases:
            for point in place.points(case):
                error = _error(lambda case=case, point=point: place.sweep(case, point))  # type: ignore[misc]  # bound now
                yield f"gsm over {transport}", point, error


def _error(play: Callable[[], object]) -> BaseException | None:
    try:
        play()
    except Exception as error:  # noqa: BLE001 - whatever it is, the sweep goes on and tells
        return error
    return None


if __name__ == "__main__":
    sys.exit(main())
