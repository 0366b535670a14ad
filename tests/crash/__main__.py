"""`scripts/crash-sweep [--jobs N]`: every command broken off at every point, on both stores."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.crash import cloud, disk
from tests.crash.cases import CASES
from tests.servers import SecretManagerServer

Verdict = tuple[str, disk.Point | cloud.Point, BaseException | None]


def main() -> int:
    """Run all points, print a table of them, and return 1 when one was not judged well."""
    parser = argparse.ArgumentParser(prog="scripts/crash-sweep", description=__doc__)
    parser.add_argument("--jobs", type=int, default=3, help="how many commands run at once (default: 3)")
    jobs = parser.parse_args().jobs
    counts: Counter[tuple[str, str, str]] = Counter()
    failed = 0
    for store, point, error in verdicts(jobs):
        counts[store, point.case, point.fault] += 1
        if error is not None:
            failed += 1
            _say(f"{store}: {point}: {type(error).__name__}: {error}")
    for (store, case, fault), count in counts.items():
        _say(f"{store:16} {case:10} {fault:26} {count:5} points")
    _say(f"{sum(counts.values())} points, {failed} of them not well")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def verdicts(jobs: int) -> Iterator[Verdict]:
    """What became of each point."""
    with tempfile.TemporaryDirectory(prefix="daskpki-crash-") as scratch:
        yield from _on_disk(Path(scratch), jobs)
    for transport in ("grpc", "rest"):
        yield from _in_the_cloud(transport)


def _on_disk(scratch: Path, jobs: int) -> Iterator[Verdict]:
    for case in CASES.values():
        place = disk.prepare(scratch / case.name, case)

        def play(point: disk.Point, place: disk.Disk = place) -> Verdict:
            root = scratch / "-".join(map(str, point))
            return "local", point, _error(lambda: disk.sweep(place, CASES[point.case], point, root))

        with ThreadPoolExecutor(jobs) as executor:
            yield from executor.map(play, disk.points(place, case))


def _in_the_cloud(transport: str) -> Iterator[Verdict]:
    with SecretManagerServer() as server:
        place = cloud.Cloud(server, transport)
        for case in CASES.values():
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
