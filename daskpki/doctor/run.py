"""Runs all checks in order; a check that cannot run is reported as a finding.

Later checks still run: an account that may not read the log may still read the trust document. A failure whose reason
was reported already is not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Final

from daskpki.authority.ca import CertificateAuthority
from daskpki.boot.http import Connection, TryAgain, parse_date
from daskpki.credentials.contexts import LOGIN_FILE, Context
from daskpki.credentials.saved_logins import load_login
from daskpki.credentials.source_selection import CredentialSource, Wanted, choose
from daskpki.credentials.sources import Environment, obtain, renewal_of_login
from daskpki.doctor import checks, store
from daskpki.doctor.checks import Finding, note, of_error, ok
from daskpki.doctor.scheduler import examine_scheduler
from daskpki.doctor.store import Cluster
from daskpki.errors import DaskpkiError, NotFoundError, UnavailableError
from daskpki.pki.trust_document import TrustDocument
from daskpki.settings import GRPC, GsmUrl, endpoint_for

Checks = dict[str, Callable[[Cluster], Iterable[Finding]]]
CHECKS: Final[Checks] = {
    "CA": store.examine_authorities,
    "certificates": store.examine_leaves,
    "trust document": store.examine_trust,
    "log": store.examine_log,
    "unfinished operations": lambda cluster: checks.check_unfinished(cluster.inventory, cluster.now),
    "versions": store.examine_versions,
    "credentials": store.examine_missing,
    "secrets": store.examine_reminders,
    "grants": store.examine_grants,
}
WITHOUT_LOG: Final[Checks] = {"log": store.report_closed_log, "trust document": store.examine_trust}
"""For nodes and people, who may read the trust document but not the log."""

_INSTALLED: Final = ("daskpki", "dask", "distributed", "cryptography")
_PROBE: Final = ("daskpki-doctor", "probe")


class Examination:
    """One run, and the state that later checks need from earlier ones.

    `opened` opens the CA; `here` is this process's environment; `scheduler` is an address to check from outside. A
    store that was given has to be there; the default one may be missing for a person who logged in by a file.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[CertificateAuthority]],
        here: Environment,
        scheduler: str | None = None,
        *,
        is_store_given: bool = False,
    ) -> None:
        self._opened = opened
        self._here = here
        self._scheduler = scheduler
        self._is_store_given = is_store_given
        self._findings: list[Finding] = []
        self._trust: TrustDocument | None = None
        self._store_url = ""

    def run(self) -> list[Finding]:
        """Run all checks, and return the findings in order."""
        self._run("installation", self._installation)
        try:
            with self._opened() as authority:
                self._store_url = authority.session.store.url
                self._examine(Cluster(authority))
        except DaskpkiError as failure:  # the store could not be opened
            if isinstance(failure, NotFoundError) and not self._is_store_given and self._logged_in_by_file():
                reason = f"{failure}; you logged in by a file, so you need none"
                self._findings.append(note("store", reason, "if you are the operator, name it with --store"))
            else:
                self._fail("store", failure)
        self._run("logins", self._logins)
        if address := self._scheduler:
            self._run(address, lambda: examine_scheduler(address, self._trust, self._here))
        return self._findings

    def _logged_in_by_file(self) -> bool:
        """True if the login in use came by a file, so that its owner cannot read the cluster's store."""
        contexts = self._here.contexts
        with suppress(DaskpkiError):  # reported with the logins
            active = contexts.active()
            return {each.context.store for each in ([active] if active else contexts.all())} == {LOGIN_FILE}
        return False

    def _run(self, subject: str, check: Callable[[], Iterable[Finding]]) -> DaskpkiError | None:
        """Add the findings of one check, and its failure unless that was reported already."""
        try:
            self._findings.extend(check())
        except DaskpkiError as failure:
            self._fail(subject, failure)
            return failure
        return None

    def _fail(self, subject: str, failure: DaskpkiError) -> None:
        finding = of_error(subject, failure)
        said = {(earlier.reason, earlier.remedy) for earlier in self._findings}
        remedies = {earlier.remedy for earlier in self._findings if earlier.severity is finding.severity}
        if (finding.reason, finding.remedy) not in said and (finding.remedy is None or finding.remedy not in remedies):
            self._findings.append(finding)

    def _installation(self) -> Iterator[Finding]:
        from importlib.metadata import PackageNotFoundError, version

        from dask import config

        installed: dict[str, str | None] = dict.fromkeys(_INSTALLED)
        for name in _INSTALLED:
            with suppress(PackageNotFoundError):
                installed[name] = version(name)
        yield from checks.check_versions(installed)
        yield from checks.check_config(config.collect(env=dict(self._here.environ)))

    def _examine(self, cluster: Cluster) -> None:
        if url := cluster.gsm:
            self._run("clock", lambda: [checks.check_clock(clock_ahead(url, self._here.environ))])
        for name, check in self._checks(cluster).items():
            self._run(name, partial(check, cluster))
        with suppress(DaskpkiError):  # reported above
            self._trust = cluster.trust

    def _checks(self, cluster: Cluster) -> Checks:
        """The checks of the store that can run after the first one."""
        if cluster.is_log_closed:
            return WITHOUT_LOG
        failure = self._run("store", partial(store.examine_store, cluster))
        if not isinstance(failure, NotFoundError | UnavailableError):
            return CHECKS
        self._findings.append(note("store", f"therefore not checked: {', '.join(CHECKS)}"))
        return {}

    def _logins(self) -> Iterator[Finding]:
        """Check the keyring, every login in it, and the source that overrides logins, if one is set."""
        saved = self._here.contexts.all()
        locked = _failure(lambda: self._here.keyring.get(*_PROBE))
        yield from checks.check_keyring(locked, needed=bool(saved))
        active = self._here.contexts.active()
        for each in saved:
            failure = None if locked else _failure(partial(load_login, each, self._here.keyring, self._here.now))
            renewal = renewal_of_login(each.context, is_active=each == active)
            now = self._here.now.timestamp()
            yield checks.check_login(each, self._newest_epoch(each.context), failure, renewal, now)
        choice = choose(Wanted(), self._here.environ)
        if choice.source is not CredentialSource.KEYRING:
            credential = obtain(Wanted(), self._here).verified.credential
            yield ok("credential in use", f"{credential.identity.uri}, by {choice.why}")
        elif not saved:
            yield note("credential in use", "none: nobody is logged in here", "daskpki login NAME")

    def _newest_epoch(self, login: Context) -> int | None:
        """The trust epoch of the store that was read, if that is the login's."""
        trust = self._trust
        is_its = trust is not None and (login.store, login.cluster) == (self._store_url, trust.cluster)
        return trust.epoch if trust and is_its else None


def _failure(attempt: Callable[[], object]) -> DaskpkiError | None:
    try:
        attempt()
    except DaskpkiError as failure:
        return failure
    return None


_TIMEOUT = 5.0


def clock_ahead(url: GsmUrl, environ: Mapping[str, str]) -> float | None:
    """Measure by how many seconds this machine's clock is ahead of Secret Manager's; None without an answer.

    It is read from the Date header of a request without credentials. NotTrustedError if the server's certificate is
    not trusted.
    """
    endpoint = endpoint_for(url, environ)
    if endpoint.transport == GRPC and not endpoint.encrypted:
        return None  # gRPC sends no Date header, and nothing else listens there
    connection = Connection(endpoint.address, encrypted=endpoint.encrypted, environ=environ)
    try:
        reply = connection.get("/", {}, _TIMEOUT)
    except TryAgain:
        return None
    finally:
        connection.close()
    there = parse_date(reply.headers.get("date", ""))
    return None if there is None else time.time() - there
