"""A sample of the crash sweep; `scripts/crash-sweep` runs every point. And bugs were planted that it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from daskpki.errors import NotTrustedError
from tests.emulator import SecretManagerServer
from tests.robustness.crash import cloud, disk
from tests.robustness.crash.judge import judge, plain_keys, trusted
from tests.robustness.crash.planted import forgetful
from tests.support.crash_cases import CASES
from tests.support.nightly import by_day, sample

P = TypeVar("P")

ON_DISK, IN_THE_CLOUD = by_day(4, night=5), by_day(3, night=5)
"""Points of each command in the sample."""
OVER_REST = ("issue", "promote")
"""The transports differ below what commands do, so two stand for all."""
IN_SECRET_MANAGER = [*(("grpc", name) for name in CASES), *(("rest", name) for name in OVER_REST)]


@pytest.fixture(scope="module")
def server() -> Iterator[SecretManagerServer]:
    with SecretManagerServer() as server:
        yield server


@pytest.mark.parametrize("name", sample(list(CASES), one_of=2))
def test_a_local_store_survives(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    prepared = disk.prepare(tmp_path / "prepared", case)
    points = disk.points(prepared, case)
    assert len(points) > 150
    chosen = points[:: len(points) // ON_DISK]
    with ThreadPoolExecutor(3) as executor:
        statuses = list(
            executor.map(lambda n: disk.sweep(prepared, case, chosen[n], tmp_path / str(n)), range(len(chosen)))
        )
    by_fault = Counter(point.fault for point, status in zip(chosen, statuses, strict=True) if status != 0)
    assert by_fault["signal=KILL"], "no process was killed"
    assert by_fault["error=EIO"] + by_fault["error=ENOSPC"], "no process met a failing disk"


@pytest.mark.parametrize(("transport", "name"), sample(IN_SECRET_MANAGER, one_of=2))
def test_secret_manager_survives(server: SecretManagerServer, transport: str, name: str) -> None:
    place = cloud.Cloud(server, transport)
    points = place.points(CASES[name])
    assert {point.fault for point in points} == set(cloud.FAULTS)
    for point in points[:: len(points) // IN_THE_CLOUD]:
        place.sweep(CASES[name], point)


def test_a_store_that_does_not_sync_is_found(tmp_path: Path) -> None:
    case = CASES["issue"]
    prepared = disk.prepare(tmp_path / "prepared", case)
    with pytest.raises(AssertionError, match="acknowledged before it was synced"):
        disk.points(prepared, case, planted="no-sync")


def test_a_payload_that_is_written_behind_is_found(tmp_path: Path) -> None:
    case = CASES["issue"]
    prepared = disk.prepare(tmp_path / "prepared", case)
    points = [
        point
        for point in disk.points(prepared, case, planted="write-behind")
        if (point.fault, point.call) == ("signal=KILL", "fdatasync")
    ]
    error, _ = found(
        lambda point: disk.sweep(prepared, case, point, tmp_path / str(point.number), planted="write-behind"), points
    )
    assert "issued, and not stored" in error


def test_a_commit_that_is_believed_blindly_is_found(server: SecretManagerServer) -> None:
    case = CASES["issue"]
    place = cloud.Cloud(server, "grpc")
    points = [point for point in place.points(case) if point.fault == "killed before it acts"]
    with forgetful():
        _, telling = found(lambda point: place.sweep(case, point), points)
    place.sweep(case, telling)  # the control: all is well there otherwise


def found(play: Callable[[P], object], points: Iterable[P]) -> tuple[str, P]:
    """What was found at the first of these points at which anything was, and that point."""
    for point in points:
        try:
            play(point)
        except AssertionError as error:
            return repr(error), point
    raise AssertionError("nothing was found")


def test_a_key_in_the_clear_is_found(tmp_path: Path) -> None:
    case = CASES["issue"]
    prepared = disk.prepare(tmp_path / "prepared", case)
    judge(prepared.place, case, (), None)
    done = prepared.run("export", "worker/worker", "--out", str(tmp_path / "prepared" / "tmp" / "left"))
    assert done.status == 0
    with pytest.raises(AssertionError):
        judge(prepared.place, case, (), None)
    assert plain_keys([tmp_path]) == [tmp_path / "prepared" / "tmp" / "left" / "key.pem"]


def test_numbers_that_go_back_are_found(tmp_path: Path) -> None:
    case = CASES["issue"]
    prepared = disk.prepare(tmp_path / "prepared", case)
    before = trusted(prepared.place)
    assert before is not None
    judge(prepared.place, case, (), before)
    with pytest.raises(NotTrustedError, match="went back from epoch 9"):
        judge(prepared.place, case, (), before._replace(epoch=9))
    (crl,) = before.crls
    with pytest.raises(NotTrustedError, match="went back from number 9"):
        judge(prepared.place, case, (), before._replace(epoch=0, crls=(crl._replace(number=9),)))
