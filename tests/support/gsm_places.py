"""A project on a Secret Manager test server, as the suites' `Backing`, and stores that wait little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from daskpki.settings import ENDPOINT, GsmUrl
from daskpki.store.gsm.api import RetryPolicy
from daskpki.store.gsm.secrets import GsmOptions
from daskpki.store.gsm.store import GsmStore
from tests.emulator import Fault, SecretManagerServer
from tests.support.nightly import sample

IMPATIENT = RetryPolicy(deadline=20.0, attempt_timeout=10.0, first_wait=0.02, longest_wait=0.5)
"""For tests: as in earnest, but with short waits."""

WRITES = ("CreateSecret", "UpdateSecret", "DeleteSecret", "AddSecretVersion", "*ableSecretVersion", "Destroy*")
PLACES = {"grpc-global": ("grpc", None), "rest-regional": ("rest", "europe-west1")}
ONE_PLACE = pytest.mark.parametrize("place", sample(list(PLACES), one_of=2), indirect=True)
"""For long tests of what does not depend on the transport."""
_SERVERS: dict[str, SecretManagerServer] = {}


class GsmPlace(NamedTuple):
    """One project or location on a server; in another process, only `factory` works."""

    endpoint: str
    url: GsmUrl
    policy: RetryPolicy = IMPATIENT

    @property
    def server(self) -> SecretManagerServer:
        return _SERVERS[self.endpoint]

    def factory(self, options: GsmOptions | None = None, policy: RetryPolicy | None = None) -> GsmStore:
        return GsmStore(self.url, environ={ENDPOINT: self.endpoint}, options=options, policy=policy or self.policy)

    def name(self, secret: str) -> str:
        return f"{self.url.parent}/secrets/{secret}"

    def foreign(self, secret: str) -> None:
        self.server.seed(self.name(secret), b"foreign")

    def corrupt(self, secret: str, number: int) -> None:
        version = self.server._stored(self.name(secret)).versions[number - 1]
        assert version.data is not None
        version.data = bytes([version.data[0] ^ 1]) + version.data[1:]

    def make_stale(self, secret: str) -> None:
        self.server.latest_lag(self.name(secret))

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        faults = [self.server.fail(method, status="UNAVAILABLE", times=None) for method in WRITES]
        yield
        self.end(*faults)

    @contextmanager
    def denied(self) -> Iterator[None]:
        self.server.iam.enforced = True
        yield
        self.server.iam.enforced = False

    def end(self, *faults: Fault) -> None:
        for fault in faults:
            self.server.faults.remove(fault)


@contextmanager
def open_place(transport: str, location: str | None, policy: RetryPolicy = IMPATIENT) -> Iterator[GsmPlace]:
    """A place on a server of its own."""
    with SecretManagerServer() as server:
        endpoint = f"grpc://{server.grpc_target}" if transport == "grpc" else server.rest_url
        _SERVERS[endpoint] = server
        yield GsmPlace(endpoint, GsmUrl("test-project", location), policy)
        del _SERVERS[endpoint]
