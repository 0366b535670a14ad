"""Several operators at once, by real commands on either store: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import NamedTuple

import pytest

from daskpki.authority.audit import verify_log
from daskpki.authority.ca import CertificateAuthority
from daskpki.identity import Role
from daskpki.inventory import CertificateRecord
from daskpki.records import ISSUED, REVOKED
from tests.robustness.crash.calls import KILL, Point, injecting
from tests.robustness.crash.disk import Disk, Outcome
from tests.robustness.crash.judge import Place, judge
from tests.robustness.crash.planted import heedless
from tests.support.crash_cases import CASES, issue
from tests.support.fragile import FragileStore, Meanwhile
from tests.support.gsm_places import GsmPlace, open_place
from tests.support.nightly import sample

DAY = timedelta(days=1)
LATER = ("faketime", "-f", "+25d")
"""Leaves live for 30 days, and are due after 20."""
LEAVES = 12


class Shared(NamedTuple):
    """A store for several, and how a process names and reaches it."""

    place: Place
    options: Sequence[str]
    environ: Mapping[str, str]

    def begin(self, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = [*prefix, sys.executable, "-m", "daskpki", *self.options, "--json", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(self.environ), text=True
        )

    def at_once(self, *commands: Sequence[str], prefix: Sequence[str] = ()) -> list[Outcome]:
        running = [self.begin(*command, prefix=prefix) for command in commands]
        outputs = [process.communicate() for process in running]
        return [Outcome(process.returncode, *output) for process, output in zip(running, outputs, strict=True)]

    def entries(self) -> list[CertificateRecord]:
        """The inventory, once the log has been checked."""
        with closing(self.place.factory()) as store:
            authority = CertificateAuthority(store, self.place.cluster, clock=lambda: datetime.now(UTC) + 27 * DAY)
            verify_log(authority.session)
            return list(authority.inventory().certificates())


@pytest.fixture(params=["local", "gsm"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    if request.param == "local":
        yield on_disk(tmp_path)
        return
    with open_place("grpc", None) as place:
        yield on_cloud(place)


def on_cloud(place: GsmPlace) -> Shared:
    environ = {**os.environ, "DASKPKI_SECRET_MANAGER_ENDPOINT": place.endpoint}
    return Shared(Place(place.factory, "default"), ("--store", str(place.url)), environ)


def on_disk(root: Path) -> Shared:
    (root / "tmp").mkdir()
    disk = Disk(root)
    options = ("--store", f"local:{root / 'store'}", "--key-file", str(root / "store.key"))
    return Shared(disk.place, options, disk.environ)


def founded(shared: Shared) -> None:
    with closing(shared.place.factory()) as store:
        authority = CertificateAuthority(store, shared.place.cluster)
        authority.init()
        names = ["worker", *(f"w-{number}" for number in range(LEAVES))]
        assert len([*authority.issue(authority.requests(Role.WORKER, names))]) == len(names)


def test_what_is_due_is_renewed_once_by_two_who_renew_it_at_once(shared: Shared) -> None:
    founded(shared)
    both = shared.at_once(("renew", "--due"), ("renew", "--due"), prefix=LATER)
    assert [done.status for done in both] == [0, 0], both
    issued = Counter(entry.name for entry in shared.entries())
    assert set(issued.values()) == {2}
    assert len(issued) == LEAVES + 1


def test_different_commands_at_once_all_take_place(shared: Shared) -> None:
    founded(shared)
    done = shared.at_once(
        ("issue", "worker", "--name", "a", "--count", "8"),
        ("revoke", "worker/w-0"),
        ("revoke", "worker/w-1", "--reason", "certificateHold"),
        ("rotate-ca", "start"),
        ("issue", "client", "--name", "alice"),
    )
    assert [outcome.status for outcome in done] == [0] * len(done), done
    status = Counter((entry.name.split("-")[0], entry.status) for entry in shared.entries())
    expected = {("a", ISSUED): 8, ("w", REVOKED): 2, ("w", ISSUED): LEAVES - 2, ("alice", ISSUED): 1}
    assert status == expected | {("worker", ISSUED): 1}
    (listed,) = shared.at_once(("crl",))
    assert sorted(len(entry["revoked"]) for entry in listed.document) == [0, 2]


def test_a_next_ca_stays_shown_though_another_command_publishes_before_the_log_says_so() -> None:
    with open_place("grpc", None) as place:
        shared = on_cloud(place)
        founded(shared)
        revoked: list[int] = []

        def revoke(_: object) -> None:
            revoked.extend(done.status for done in shared.at_once(("revoke", "worker/w-0")))

        # The third version of the log tells that the document with the new CA was published.
        place.server.fail("AddSecretVersion", secret="daskpki_default_records", nth=3, before=revoke)
        (started,) = shared.at_once(("rotate-ca", "start"))
        (listed,) = shared.at_once(("crl",))
    assert (started.status, revoked) == (0, [0])
    assert sorted(len(entry["revoked"]) for entry in listed.document) == [0, 1]


def test_a_commit_that_lost_a_race_is_no_memory_of_who_read_it(tmp_path: Path) -> None:
    """Its head is signed and has more records than the winner's; a memory of it would call the store rolled back."""
    with open_place("grpc", None) as place:
        shared = on_cloud(place)
        founded(shared)
        won: list[int] = []
        dying = shared.begin("issue", "worker", "--name", "b", "--count", "20")

        def win(_: object) -> None:
            won.extend(done.status for done in shared.at_once(("issue", "worker", "--name", "a")))

        place.server.fail("AddSecretVersion", secret="daskpki_default_records", before=win)
        # Once its head has lost, it reads the versions between.
        place.server.fail("AccessSecretVersion", secret="daskpki_default_records", nth=3, before=lambda _: dying.kill())
        dying.communicate()
        newcomer = shared._replace(environ={**shared.environ, "HOME": str(tmp_path), "DASKPKI_HOME": str(tmp_path)})
        for command in (("list",), ("list",), ("issue", "worker", "--name", "c"), ("list",)):
            (done,) = newcomer.at_once(command)
            assert done.status == 0, done
    assert won == [0]
    assert dying.returncode == -SIGKILL


def test_a_renewal_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    shared = on_disk(tmp_path)
    founded(shared)
    point = Point("renew", KILL, "fdatasync", 2)
    (killed,) = shared.at_once(("renew", "--due"), prefix=(*injecting(point, tmp_path), *LATER))
    assert killed.status != 0
    (next_day,) = shared.at_once(("renew", "--due"), prefix=("faketime", "-f", "+26d"))
    assert next_day.status == 0, next_day
    assert Counter(entry.name for entry in shared.entries() if entry.status == ISSUED) == Counter(
        dict.fromkeys(["worker", *(f"w-{n}" for n in range(LEAVES))], 2)
    )


@pytest.mark.parametrize("method", sample(["AddSecretVersion", "GetSecret"], one_of=2))
def test_a_renewal_that_was_killed_between_its_requests_is_finished_by_the_next(method: str) -> None:
    """By SIGKILL, as the fifth leaf is stored: what it sent last still acts."""
    with open_place("grpc", None) as place:
        shared = on_cloud(place)
        founded(shared)
        dying = shared.begin("renew", "--due", prefix=LATER)
        place.server.fail(method, secret="daskpki_default_worker_w-*", nth=5, before=lambda _: dying.kill())
        dying.communicate()
        assert dying.returncode == -SIGKILL
        (at_once,) = shared.at_once(("renew", "--due", "--detailed-exit-code"), prefix=LATER)
        assert at_once.status == 6, "what was reserved is somebody's for ten minutes"
        (next_day,) = shared.at_once(("renew", "--due"), prefix=("faketime", "-f", "+26d"))
        assert next_day.status == 0, next_day
        issued = Counter(entry.name for entry in shared.entries() if entry.status == ISSUED)
        assert issued == dict.fromkeys(["worker", *(f"w-{n}" for n in range(LEAVES))], 2)
        active = [place.server.active_versions(name) for name in place.server.secrets() if "_worker_" in name]
        assert len(active) == LEAVES + 1
        assert max(map(len, active)) == 2


def _exhaust(acts: Iterator[CertificateRecord]) -> None:
    for _ in acts:
        pass


def test_a_writer_that_does_not_compare_is_found() -> None:
    """Nothing on Secret Manager refuses a stale write but the number that it gets: without a look at it, it is lost."""
    with open_place("grpc", None) as gsm:
        for cluster, control in (("good", True), ("bad", False)):
            place = Place(gsm.factory, cluster)
            with closing(gsm.factory()) as one, closing(gsm.factory()) as other:
                CertificateAuthority(one, cluster).init()
                rival = CertificateAuthority(other, cluster)
                meanwhile = Meanwhile(1, partial(_exhaust, issue(rival, "rival")))
                writer = CertificateAuthority(FragileStore(one, meanwhile), cluster)
                if control:
                    judge(place, CASES["issue"], list(issue(writer, "worker")), None)
                    continue
                with heedless(), pytest.raises(AssertionError, match="acknowledged and lost"):
                    judge(place, CASES["issue"], list(issue(writer, "worker")), None)
