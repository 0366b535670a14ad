"""`Store` on Secret Manager: the secrets and logs of one project, or of one location in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.parse import quote

from daskpki import secret_names
from daskpki.errors import UsageError
from daskpki.settings import GsmUrl
from daskpki.store.gsm.api import GsmApi, RetryPolicy, Timing
from daskpki.store.gsm.client import GoogleConnection, secret_manager
from daskpki.store.gsm.endpoint import endpoint_for
from daskpki.store.gsm.iam import GsmPolicies
from daskpki.store.gsm.log import GsmRecordLog
from daskpki.store.gsm.placement import DEFAULT, GsmOptions, check_options
from daskpki.store.gsm.secrets import GsmSecrets
from daskpki.store.port import Judge
from daskpki.store.rollback_guard import RollbackGuard


class GsmStore:
    """See `daskpki.store.port.Store`.

    `options` are for the secrets of a new cluster; those of an existing one are in its log. `seen`
    remembers log heads outside the store.
    """

    def __init__(
        self,
        url: GsmUrl,
        connection: GoogleConnection,
        patience: RetryPolicy,
        options: GsmOptions | None = None,
        seen: RollbackGuard | None = None,
    ) -> None:
        self._url = url
        self._connection = connection
        self._patience = patience
        self._options = None if options is None else check_options(options, url)
        self._secrets = GsmSecrets(GsmApi(connection, url, patience), self._placement)
        self._seen = seen or RollbackGuard(None)
        self._logs: dict[str, GsmRecordLog] = {}

    @property
    def url(self) -> str:
        """The store's URL."""
        return str(self._url)

    @property
    def place(self) -> GsmUrl:
        """The project, and the location in it if there is one."""
        return self._url

    @property
    def secrets(self) -> GsmSecrets:
        """The payloads."""
        return self._secrets

    @property
    def policies(self) -> GsmPolicies:
        """The IAM policies of the secrets, which no other store has."""
        return GsmPolicies(GsmApi(self._connection, self._url, self._patience), self._patience)

    def log(self, cluster: str, judge: Judge | None = None) -> GsmRecordLog:
        """A cluster's log; one that was judged stays so until there is another judge."""
        if cluster in self._logs and judge not in (None, self._logs[cluster].judge):
            del self._logs[cluster]
        return self._log(cluster, judge)

    def events(self, cluster: str) -> GsmRecordLog:
        """The log of a cluster's other secrets."""
        labels = secret_names.labels(cluster, secret_names.EVENTS)
        return self._log(f"{cluster}/events", None, (secret_names.events_id(cluster), labels))

    def _log(self, name: str, judge: Judge | None, secret: tuple[str, Mapping[str, str]] | None = None) -> GsmRecordLog:
        if name not in self._logs:
            self._logs[name] = GsmRecordLog(
                self._secrets,
                name,
                options=self._options,
                patience=self._patience,
                seen=self._seen,
                judge=judge,
                secret=secret,
            )
        return self._logs[name]

    @property
    def memory(self) -> RollbackGuard:
        """The log heads and trust documents of the store that this user has seen."""
        return self._seen

    def batch(self) -> AbstractContextManager[None]:
        """Group writes; each request stands alone here, and a log commit is one step whatever its size."""
        return nullcontext()

    def clusters(self) -> Sequence[str]:
        """The names of the clusters in the store."""
        logs = self._secrets.select({"daskpki-kind": secret_names.RECORDS})
        return sorted(info.labels["daskpki-cluster"] for info in logs)

    def close(self) -> None:
        """Release what the store has open."""
        self._seen.save()
        self._connection.close()

    def _placement(self, cluster: str | None) -> GsmOptions:
        if cluster is None:
            return self._options or DEFAULT
        settled = self.log(cluster).options()
        if self._options is not None and settled != self._options:
            raise UsageError(
                f"the secrets of cluster {cluster!r} were created with other replication or another key",
                hint="these cannot change later: leave the options out, or use another cluster",
            )
        return settled


def open_gsm(
    url: GsmUrl,
    *,
    environ: Mapping[str, str],
    options: GsmOptions | None = None,
    timing: Timing | None = None,
    seen: Path | None = None,
) -> GsmStore:
    """The store at a project or location; it connects at its first request. UsageError for a bad endpoint.

    `seen` is the directory that remembers log heads outside the store (None: nowhere).
    """
    connection = GoogleConnection(secret_manager, endpoint_for(url, environ), environ)
    memory = RollbackGuard(seen / f"{quote(str(url), safe='')}.json" if seen else None)
    return GsmStore(url, connection, RetryPolicy(timing or Timing()), options, memory)
