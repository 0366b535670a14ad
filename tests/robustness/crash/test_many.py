"""Many processes issue at once, by the command itself: no serial twice, none missing, log and inventory complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daskpki.authority.audit import verify_log
from daskpki.authority.ca import CertificateAuthority
from daskpki.records import ISSUED
from daskpki.store.port import Store
from tests.robustness.crash.disk import Disk
from tests.support.gsm_places import open_place
from tests.support.nightly import by_day

ON_DISK, EACH_ON_DISK = by_day((8, 25), night=(16, 200))
IN_THE_CLOUD, EACH_IN_THE_CLOUD = by_day((4, 5), night=(8, 200))


def issue_at_once(common: Sequence[str], environ: Mapping[str, str], writers: int, each: int) -> list[dict[str, Any]]:
    """What all of them acknowledged."""
    command = [sys.executable, "-m", "daskpki", *common, "--json", "--quiet", "issue", "worker", "--count", str(each)]
    running = [
        subprocess.Popen([*command, "--name", f"p{n}"], stdout=subprocess.PIPE, env=environ, text=True)
        for n in range(writers)
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * writers
    return [leaf for output in outputs for leaf in json.loads(output)]


def check(store: Store, told: Sequence[Mapping[str, Any]], writers: int, each: int) -> None:
    """The log holds, and says what was told."""
    with closing(store):
        authority = CertificateAuthority(store)
        verify_log(authority.session)
        entries = list(authority.inventory().certificates())
    assert {entry.status for entry in entries} == {ISSUED}
    assert len({entry.serial for entry in entries}) == len(entries) == writers * each
    assert {f"{entry.serial:x}": entry.fingerprint for entry in entries} == {
        leaf["serial"]: leaf["fingerprint"] for leaf in told
    }
    assert {entry.name for entry in entries} == {f"p{n}-{m}" for n in range(writers) for m in range(each)}


@pytest.mark.timeout(by_day(180, night=1800))
def test_many_processes_on_a_local_store(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    disk = Disk(tmp_path)
    assert disk.run("init-ca").status == 0
    common = ("--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "store.key"))
    told = issue_at_once(common, disk.environ, ON_DISK, EACH_ON_DISK)
    check(disk.open(), told, ON_DISK, EACH_ON_DISK)


@pytest.mark.timeout(by_day(180, night=1800))
def test_many_processes_on_secret_manager() -> None:
    with open_place("grpc", None) as place:
        place.server.latest_lag(behind=3)
        with closing(place.factory()) as store:
            CertificateAuthority(store).init()
        environ = {**os.environ, "DASKPKI_SECRET_MANAGER_ENDPOINT": place.endpoint}
        common = ("--store", str(place.url))
        told = issue_at_once(common, environ, IN_THE_CLOUD, EACH_IN_THE_CLOUD)
        place.server.latest_catch_up()
        check(place.factory(), told, IN_THE_CLOUD, EACH_IN_THE_CLOUD)
