"""Logs a person in and out: from the store, or from a login file, to the OS keyring.

A login writes the keyring entry (private key, digest of the file, newest trust epoch seen) and the login's public file.
It sets Dask's `security-loader` only on request, since the wheel brings it (docs/adr/0014). Everything is checked
before anything is written, and undone when a later step fails. `logout` removes all of it, and the waiting key of a
`daskpki request`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials import csr, dask_config
from daskpki.credentials.contexts import LOGIN_FILE, Context, Saved, parse_scheduler
from daskpki.credentials.dask_config import LoaderConfig
from daskpki.credentials.saved_logins import USERNAME, Entry, encode_entry, read_entry
from daskpki.credentials.sources import Environment, fetch_credential
from daskpki.credentials.verified import Pins, VerifiedCredential, verify_credential
from daskpki.errors import AccessDeniedError, CorruptError, NotTrustedError, UsageError
from daskpki.identity import Role
from daskpki.store.port import Store


class LoggedIn(NamedTuple):
    """Result of `login`: the saved login, the verified credential, and the loader in Dask's configuration."""

    saved: Saved
    verified: VerifiedCredential
    dask: LoaderConfig


class _Before(NamedTuple):
    """An earlier login of the same name: it limits what is accepted now, and is restored on failure."""

    entry: Entry | None
    saved: Saved | None

    def bound(self, pins: Pins) -> Pins:
        """The pins, with the requirement that the trust document follows the one seen before and is not older."""
        if self.entry is None:
            return pins
        pins = pins._replace(min_epoch=max(pins.min_epoch, self.entry.epoch))
        if self.saved is None or self.saved.digest != self.entry.digest:
            return pins
        return pins._replace(previous=self.saved.context.document)


def login(
    store: Store, cluster: str, name: str, schedulers: Sequence[str], here: Environment, *, user_config: bool = False
) -> LoggedIn:
    """Copy the credential client/NAME into the keyring; `schedulers` are tls:// addresses, added to those known.

    A key that `request` made is already in the keyring. With `user_config`, Dask's loader is set in the user's
    directory unless Dask reads the wheel's file.

    NotFoundError if it was never issued, NotTrustedError if its verification fails or the store's trust document does
    not follow from an earlier login's, AccessDeniedError without a usable keyring. None of them changes anything.
    """

    def fetch(pins: Pins) -> VerifiedCredential:
        return fetch_credential(store, cluster, Role.CLIENT, name, pins=pins, now=here.now)

    login_id = here.contexts.id_of(store.url, cluster, name)
    return _log_in(login_id, store.url, schedulers, here, fetch, user_config=user_config)


def login_by_file(
    file: Context,
    schedulers: Sequence[str],
    here: Environment,
    *,
    ca_sha256: str | None = None,
    user_config: bool = False,
) -> LoggedIn:
    """Complete a key of `request` by a login file; `ca_sha256` is the CA's fingerprint from the operator.

    UsageError without that fingerprint unless an earlier login knows the CA; NotFoundError unless the certificate
    belongs to a key in the keyring; other errors as `login`.
    """
    if ca_sha256 is None and not knows_ca(file, here):
        raise UsageError(
            f"the file names the CA {file.ca_sha256}, but nothing here confirms it",
            hint="--ca-sha256 FINGERPRINT, as the operator told you by another way than this file came",
        )

    def verify(pins: Pins) -> VerifiedCredential:
        pinned = pins._replace(sha256=ca_sha256 or pins.sha256)
        return verify_credential(file.credential(None), Confidential(file.trust), pins=pinned, now=here.now)

    known = [*schedulers, *file.schedulers]
    return _log_in(_id_of(file, here), LOGIN_FILE, known, here, verify, user_config=user_config)


def knows_ca(file: Context, here: Environment) -> bool:
    """True if the file's trust document has to follow one verified here, so that no fingerprint is needed."""
    return here.pins.sha256 is not None or _before(_id_of(file, here), here).bound(here.pins).previous is not None


def _id_of(file: Context, here: Environment) -> str:
    return here.contexts.id_of(LOGIN_FILE, file.cluster, file.name)


def _log_in(
    login_id: str,
    store: str,
    schedulers: Sequence[str],
    here: Environment,
    fetch: Callable[[Pins], VerifiedCredential],
    *,
    user_config: bool,
) -> LoggedIn:
    given = [parse_scheduler(address) for address in schedulers]
    dask = dask_config.read_own_config(here.environ)
    if user_config and not dask.shipped:
        dask_config.check_config(here.environ)
    with here.contexts.locked():
        before = _before(login_id, here)
        verified = _fetch(before, here, fetch)
        completed = None
        if verified.credential.key is None:  # it never left this keyring
            completed, key = csr.find_waiting_key(verified.credential.leaf, here.contexts, here.keyring)
            keys = [key, before.entry.key if before.entry else None]
            verified = verified._replace(credential=csr.with_own_key(verified.credential, keys))
        known = before.saved.context.schedulers if before.saved else ()
        credential, recorded = verified.credential, map(parse_scheduler, verified.trust.schedulers)
        context = Context(
            store=store,
            cluster=credential.cluster,
            name=credential.identity.name,
            schedulers=tuple(dict.fromkeys([*given, *known, *recorded])),
            leaf=credential.leaf,
            chain=credential.chain,
            trust=verified.signed.reveal(),
        )
        saved = here.contexts.saved(context)
        _write(saved, verified, before, here, set_loader=user_config and not dask.shipped)
        if completed:
            csr.forget_waiting(completed.id, here.contexts, here.keyring)
    return LoggedIn(saved, verified, dask_config.read_own_config(here.environ))


def _before(login_id: str, here: Environment) -> _Before:
    """The earlier login; a damaged one counts as none, since this login replaces it."""
    entry = saved = None
    with suppress(CorruptError):
        entry = read_entry(login_id, here.keyring)
    with suppress(CorruptError):
        saved = here.contexts.load(login_id)
    return _Before(entry, saved)


def _fetch(before: _Before, here: Environment, fetch: Callable[[Pins], VerifiedCredential]) -> VerifiedCredential:
    pins = before.bound(here.pins)
    try:
        return fetch(pins)
    except NotTrustedError as error:
        if pins == here.pins:
            raise
        ways = [error.hint, "to forget what was seen before, and accept what is there now: daskpki logout, then login"]
        raise type(error)(str(error), hint="; ".join(filter(None, ways))) from error


def _write(saved: Saved, verified: VerifiedCredential, before: _Before, here: Environment, *, set_loader: bool) -> None:
    key = verified.credential.key
    assert key is not None, "login has looked for it"
    entry = encode_entry(Entry(verified.trust.epoch, saved.digest, key))
    try:
        here.keyring.set(saved.service, USERNAME, entry)
        here.contexts.write(saved)
        if set_loader:
            dask_config.set_loader(here.environ)
    except BaseException:  # Ctrl-C as well
        _restore(saved, before, here)
        raise


def _restore(saved: Saved, before: _Before, here: Environment) -> None:
    """Undo what was written; if the keyring fails here too, the first error is still the one reported."""
    with suppress(AccessDeniedError):
        if before.entry is None:
            here.keyring.delete(saved.service, USERNAME)
        else:
            here.keyring.set(saved.service, USERNAME, encode_entry(before.entry))
    if before.saved is None:
        here.contexts.remove(saved)
    else:
        here.contexts.write(before.saved)


def logout_targets(here: Environment, which: str | None) -> tuple[list[Saved], list[csr.Waiting]]:
    """Find what `logout` removes: a login (CLUSTER, CLUSTER/NAME or id) and the keys that wait for its renewal.

    Without such a login, it is a waiting key alone; for None, all logins and waiting keys. NotFoundError if there is
    neither, UsageError that names all that fit.
    """
    known = csr.all_waiting(here.contexts)
    if which is None:
        return here.contexts.all(), known
    if not here.contexts.fitting(which):
        return [], [csr.find_waiting(here.contexts, which)]
    saved = here.contexts.find(which)
    by_file = saved.context.store == LOGIN_FILE  # its request names the unreadable store, so the ids differ
    renewals = [key for key in known if key.id == saved.id or (by_file and key.title == saved.context.title)]
    return [saved], renewals


def logout(here: Environment, logins: Sequence[Saved], waiting: Sequence[csr.Waiting] = ()) -> None:
    """Remove these logins and waiting keys for good, key first; with the last login, Dask's `security-loader`.

    AccessDeniedError if the keyring cannot be reached; the login then stays as it is.
    """
    if not logins and not waiting:
        return
    with here.contexts.locked():
        for key in waiting:
            csr.forget_waiting(key.id, here.contexts, here.keyring)
        for saved in logins:
            here.keyring.delete(saved.service, USERNAME)
            here.contexts.remove(saved)
            here.newest_trust(saved.id).forget()
        if not here.contexts.names():
            dask_config.unset_loader(here.environ)
