"""`Store` on Secret Manager: the secrets and logs of one project, or of one location in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.parse import quote

from daskpki import secret_names
from daskpki.errors import UsageError
from daskpki.settings import GsmUrl, endpoint_for
from daskpki.store.gsm.api import GsmApi, RetryPolicy
from daskpki.store.gsm.client import GoogleConnection, secret_manager
from daskpki.store.gsm.iam import GsmPolicies
from daskpki.store.gsm.log import GsmRecordLog
from daskpki.store.gsm.secrets import DEFAULT, GsmOptions, GsmSecrets, check_options
from daskpki.store.port import Judge
from daskpki.store.rollback_guard import RollbackGuard


class GsmStore:
    """A `daskpki.store.port.Store` in Secret Manager. It connects at its first request. UsageError for a bad endpoint.

    `options` are for the secrets of a new cluster; the log of an existing one has its own. `seen` is the directory of
    the rollback guards (None: no guard). `place` is the project, and the location in it if there is one.
    """

    def __init__(
        self,
        url: GsmUrl,
        *,
        environ: Mapping[str, str],
        options: GsmOptions | None = None,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - a tuple, so it cannot change
        seen: Path | None = None,
    ) -> None:
        self.place = url
        self.memory = RollbackGuard(seen / f"{quote(str(url), safe='')}.json" if seen else None)
        self._connection = GoogleConnection(secret_manager, endpoint_for(url, environ), environ)
        self._policy = policy
        self._options = None if options is None else check_options(options, url)
        self._api = GsmApi(self._connection, url, policy)
        self.secrets = GsmSecrets(self._api, self._placement)
        self.policies = GsmPolicies(self._api, policy)
        """The IAM policies of the secrets, which no other store has."""
        self._logs: dict[str, GsmRecordLog] = {}

    @property
    def url(self) -> str:
        """The store's URL."""
        return str(self.place)

    def log(self, cluster: str, judge: Judge | None = None) -> GsmRecordLog:
        """A cluster's log; it keeps its judge until another one is given."""
        if cluster in self._logs and judge not in (None, self._logs[cluster].judge):
            del self._logs[cluster]
        return self._log(cluster, judge)

    def events(self, cluster: str) -> GsmRecordLog:
        """The log of a cluster's user secrets."""
        labels = secret_names.labels(cluster, secret_names.EVENTS)
        return self._log(f"{cluster}/events", None, (secret_names.events_id(cluster), labels))

    def _log(self, name: str, judge: Judge | None, secret: tuple[str, Mapping[str, str]] | None = None) -> GsmRecordLog:
        if name not in self._logs:
            self._logs[name] = GsmRecordLog(
                self.secrets,
                name,
                options=self._options,
                policy=self._policy,
                seen=self.memory,
                judge=judge,
                secret=secret,
            )
        return self._logs[name]

    def batch(self) -> AbstractContextManager[None]:
        """Do nothing: each request is durable by itself here, and a log commit is one step whatever its size."""
        return nullcontext()

    def clusters(self) -> Sequence[str]:
        """The names of the clusters in the store."""
        logs = self.secrets.select({"daskpki-kind": secret_names.RECORDS})
        names = {info.id: info.labels.get("daskpki-cluster", "") for info in logs}
        return sorted(name for secret, name in names.items() if secret == secret_names.records_id(name))

    def close(self) -> None:
        """Save what this user has seen, and close the connection."""
        self.memory.save()
        self._connection.close()

    def _placement(self, cluster: str | None) -> GsmOptions:
        if cluster is None:
            return self._options or DEFAULT
        settled = self.log(cluster).options()
        if self._options is not None and settled != self._options:
            raise UsageError(
                f"the secrets of cluster {cluster!r} were created with other replication or another key",
                hint="neither can change later: leave the options out, or use another cluster",
            )
        return settled
