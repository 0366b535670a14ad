"""Break a command off on Secret Manager: each of its requests fails once, or is the last that gets through.

A process that is killed is, to the store, one whose requests end: before the Nth acted, or after it.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from daskpki.authority.ca import CertificateAuthority
from daskpki.errors import UnavailableError
from daskpki.inventory import CertificateRecord
from daskpki.settings import ENDPOINT, GsmUrl
from daskpki.store.gsm.api import RetryPolicy
from daskpki.store.gsm.store import GsmStore
from daskpki.store.port import Store
from tests.emulator import Fault, SecretManagerServer
from tests.robustness.crash.judge import Place, judge, trusted
from tests.support.crash_cases import Case

FAULTS: Final[dict[str, Callable[[int], list[dict[str, Any]]]]] = {
    "UNAVAILABLE": lambda n: [{"nth": n, "status": "UNAVAILABLE"}],
    "ABORTED": lambda n: [{"nth": n, "status": "ABORTED"}],
    "times out after it acted": lambda n: [{"nth": n, "status": "DEADLINE_EXCEEDED", "acts_first": True}],
    "killed before it acts": lambda n: [{"nth": n, "times": None, "reset": True}],
    "killed after it acted": lambda n: [
        {"nth": n, "reset": True, "acts_first": True},
        {"nth": n + 1, "times": None, "reset": True},
    ],
}
_PATIENT: Final = RetryPolicy(deadline=30.0, first_wait=0.001, longest_wait=0.05)
_DYING: Final = RetryPolicy(deadline=0.02, first_wait=0.001, longest_wait=0.01)


class Point(NamedTuple):
    """Which request of a command is hit, and how."""

    case: str
    fault: str
    number: int


class Cloud:
    """One server, on which each point has a cluster of its own."""

    def __init__(self, server: SecretManagerServer, transport: str) -> None:
        self._server = server
        self._endpoint = f"grpc://{server.grpc_target}" if transport == "grpc" else server.rest_url
        self._clusters = (f"c{secrets.token_hex(6)}" for _ in itertools.count())

    def prepare(self, case: Case) -> Place:
        """A new cluster as it is before the command."""
        place = Place(self._open, next(self._clusters))
        for act in case.before:
            list(act(CertificateAuthority(self._open(), place.cluster)))
        return place

    def points(self, case: Case) -> list[Point]:
        """All there are, counted while the command runs through."""
        place = self.prepare(case)
        self._server.reset_journal()
        list(case.act(CertificateAuthority(self._open(), place.cluster)))
        requests = range(1, self._server.count() + 1)
        return [Point(case.name, fault, number) for fault in FAULTS for number in requests]

    def sweep(self, case: Case, point: Point) -> None:
        """Play one point and judge what is left."""
        place = self.prepare(case)
        before = trusted(place)
        acknowledged: list[CertificateRecord] = []
        dying = point.fault.startswith("killed")
        with self._faults(point, place):
            try:
                store = self._open(_DYING if dying else _PATIENT)
                acknowledged.extend(case.act(CertificateAuthority(store, place.cluster)))
            except UnavailableError:  # exit code 75: temporary, try again, which `judge` does
                assert dying or point.fault != "ABORTED", "nothing was done, so it can be repeated at once"
        judge(place, case, acknowledged, before)

    def _open(self, policy: RetryPolicy = _PATIENT) -> Store:
        return GsmStore(GsmUrl("my-project", None), environ={ENDPOINT: self._endpoint}, policy=policy)

    @contextmanager
    def _faults(self, point: Point, place: Place) -> Iterator[None]:
        secret = f"daskpki_{place.cluster}_*"
        faults = [
            self._server.faults.add(Fault(secret=secret, **settings)) for settings in FAULTS[point.fault](point.number)
        ]
        yield
        for fault in faults:
            self._server.faults.remove(fault)
