"""The Secret Manager server that tests start: both edges over one service, in threads of this process."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TextIO

import grpc

from tests.emulator.clock import Clock
from tests.emulator.faults import Fault, Hook
from tests.emulator.grpc_edge import GrpcEdge
from tests.emulator.http_listener import HttpListener
from tests.emulator.iam import Iam
from tests.emulator.journal import Entry, Journal
from tests.emulator.messages import DESTROYED
from tests.emulator.model import Behind, Catalogue, Lag, StoredSecret
from tests.emulator.names import parse_secret, project_number
from tests.emulator.quotas import Quotas
from tests.emulator.rest_edge import RestEdge
from tests.emulator.seeding import seed_secret
from tests.emulator.service import Service
from tests.emulator.tokens import TokenBook


class SecretManagerServer:
    """A Secret Manager on loopback, over REST and gRPC; use it as a context manager.

    Until a grant is made (`server.iam.grant`) or `enforce_iam` is set, every caller is owner of every project.

    Attributes:
        clock: The servers' clock; `clock.advance(seconds)` moves it.
        tokens: Bearer tokens; `tokens.issue(principal)`, `tokens.revoke(text)`.
        iam: Grants on projects; those on secrets go through SetIamPolicy as in reality.
        quotas: Counts always, refuses when `quotas.enforced`.
        faults: What is scripted to go wrong; see `fail`, `before`, `after`.
        journal: Every request.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        rest_port: int = 0,
        grpc_port: int = 0,
        enforce_iam: bool = False,
        tls: ssl.SSLContext | None = None,
        grpc_credentials: grpc.ServerCredentials | None = None,
        journal_sink: TextIO | None = None,
    ) -> None:
        self.clock = Clock()
        self.tokens = TokenBook(self.clock.now)
        self.iam = Iam(enforced=enforce_iam)
        self.quotas = Quotas(self.clock.now)
        self.journal = Journal(journal_sink)
        self.catalogue = Catalogue(self.clock.now)
        self.service = Service(
            self.catalogue, tokens=self.tokens, iam=self.iam, quotas=self.quotas, journal=self.journal
        )
        self.faults = self.service.faults
        self._rest = RestEdge(self.service, self.clock.now)
        self._tls = tls
        self.listener = HttpListener(self._rest.answer, host=host, port=rest_port, tls=tls)
        self._grpc = GrpcEdge(self.service, host=host, port=grpc_port, credentials=grpc_credentials)
        self._host = host

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve on both ports, after a stop on the same ones as before."""
        self.service.open()
        self.listener.start()
        self._grpc.start()

    def stop(self) -> None:
        """Close both ports and all connections; what is stored stays."""
        self.service.close()
        self.listener.stop()
        self._grpc.stop()

    @property
    def rest_url(self) -> str:
        """Such as `http://127.0.0.1:PORT`, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.listener.port}"

    @property
    def grpc_target(self) -> str:
        """Such as `127.0.0.1:PORT`."""
        return f"{self._host}:{self._grpc.port}"

    @property
    def gcloud_environment(self) -> Mapping[str, str]:
        """What points the gcloud CLI here; the project is the caller's to name."""
        return {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"{self.rest_url}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        }

    # What a test sets up.

    def seed(self, secret: str, *payloads: bytes, labels: Mapping[str, str] | None = None) -> str:
        """Create a secret (unless it is there) with these versions, past all edges and records; its name."""
        with self.service.lock:
            return seed_secret(self.catalogue, secret, payloads, labels or {})

    def fail(self, method: str = "*", **settings: Any) -> Fault:
        """Put a fault in force; the settings are those of `Fault`, once unless `times` says otherwise."""
        return self.faults.add(Fault(method, **settings))

    def before(self, method: str, hook: Hook, **settings: Any) -> Fault:
        """Run a hook before a request acts, in its thread and outside all locks; once unless `times`."""
        return self.faults.add(Fault(method, before=hook, **settings))

    def after(self, method: str, hook: Hook, **settings: Any) -> Fault:
        """Run a hook after a request acted, before its reply; once unless `times`."""
        return self.faults.add(Fault(method, after=hook, **settings))

    def latest_lag(self, secret: str | None = None, *, at: int | None = None, behind: Behind = 0) -> None:
        """Hold the eventually consistent reads back: `latest`, aliases and the list of versions.

        Args:
            secret: A secret's name; None for all secrets, also those to come.
            at: Stay at this number; without `at` and `behind`, at the present one.
            behind: Stay so many versions behind, or as many as a function says at each read.
        """
        freeze = at is None and behind == 0
        with self.service.lock:
            if secret is None:
                self.catalogue.default_lag = Lag(0 if freeze else at, behind)
            for stored in self._chosen(secret):
                stored.stale_aliases = stored.aliases
                stored.lag = Lag(stored.newest if freeze else at, behind)

    def latest_catch_up(self, secret: str | None = None) -> None:
        """Let those reads be up to date again."""
        with self.service.lock:
            if secret is None:
                self.catalogue.default_lag = Lag()
            for stored in self._chosen(secret):
                stored.lag, stored.stale_aliases = Lag(), None

    def disable_api(self, project: str) -> None:
        """Switch Secret Manager off in a project: 403 SERVICE_DISABLED."""
        self.service.disabled.add(project_number(project))

    def enable_api(self, project: str) -> None:
        """Switch it on again."""
        self.service.disabled.discard(project_number(project))

    def skew_date(self, seconds: float) -> None:
        """Let the HTTP Date header be so far ahead of this machine's clock."""
        self._rest.date_skew = timedelta(seconds=seconds)

    # What a test looks at.

    def count(self, method: str | None = None) -> int:
        """How many requests arrived, of one method or of all."""
        return self.journal.count(method)

    def requests(self, method: str | None = None) -> list[Entry]:
        """The requests that arrived, of one method or all."""
        return self.journal.entries(method)

    def reset_journal(self) -> None:
        """Forget the requests so far."""
        self.journal.clear()

    def secrets(self) -> list[str]:
        """The canonical names of all secrets, in order of creation."""
        with self.service.lock:
            return [str(stored.name) for stored in self.catalogue.everything()]

    def active_versions(self, secret: str) -> list[int]:
        """The numbers of a secret's versions that are billed: enabled and disabled."""
        with self.service.lock:
            versions = self._stored(secret).versions
            return [n for n, version in enumerate(versions, start=1) if version.message.state != DESTROYED]

    def payloads(self, secret: str) -> list[bytes | None]:
        """A secret's payloads from version 1 on, None where destroyed."""
        with self.service.lock:
            return [version.data for version in self._stored(secret).versions]

    def _stored(self, secret: str) -> StoredSecret:
        return self.catalogue.secret(parse_secret(secret))

    def _chosen(self, secret: str | None) -> list[StoredSecret]:
        return self.catalogue.everything() if secret is None else [self._stored(secret)]
