"""Log in and out: a person's credential from the store to the OS keyring, and back to nothing.

`login` writes three things: the keyring entry (the private key, the digest of the file, the newest trust epoch seen),
the login's public file, and Dask's `security-loader`. All of it is checked before anything is written, and what was
written is taken back when a later step fails. `logout` removes all three, and a key of
`daskpki request` that still waits for its certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials import dask_config
from daskpki.credentials.contexts import Context, Saved, parse_scheduler
from daskpki.credentials.csr import Waiting, all_waiting, find_waiting, forget_waiting, waiting_key, with_own_key
from daskpki.credentials.fetch import fetch_credential, hold_certificate
from daskpki.credentials.saved_logins import USERNAME, Entry, encode_entry, read_entry
from daskpki.credentials.sources import Environment
from daskpki.credentials.verified import Pins, VerifiedCredential
from daskpki.errors import AccessDeniedError, CorruptError, DaskpkiError, NotTrustedError
from daskpki.identity import Role
from daskpki.pki.trust import parse_trust
from daskpki.store.port import Store


class LoggedIn(NamedTuple):
    """What `login` made of it: the saved login and the verified credential.

    `overruled_by` names the variable or file of the user's whose own `security-loader` wins over daskpki's, if any.
    """

    saved: Saved
    held: VerifiedCredential
    overruled_by: str | None


class _Before(NamedTuple):
    """What an earlier login of the same name left: it bounds what the store may say now, and is put back on failure."""

    entry: Entry | None
    saved: Saved | None

    def bound(self, pins: Pins) -> Pins:
        """The pins, and that the trust document follows the one seen before and is not older."""
        if self.entry is None:
            return pins
        pins = pins._replace(min_epoch=max(pins.min_epoch, self.entry.epoch))
        if self.saved is None or self.saved.digest != self.entry.digest:
            return pins
        return pins._replace(previous=parse_trust(Confidential(self.saved.context.trust)).document)


def login(
    store: Store,
    cluster: str,
    name: str,
    schedulers: Sequence[str],
    here: Environment,
    *,
    certificate: Sequence[bytes] = (),
) -> LoggedIn:
    """Copy the credential client/NAME into the keyring; `schedulers` are tls:// addresses, added to those known.

    A key that never travelled is in the keyring already, made by `request`. `certificate` (DER, leaf first) takes the
    place of the store's credential.

    NotFoundError when it was never issued, NotTrustedError when anything about it does not hold or when the store's
    trust document does not follow from the one of an earlier login, AccessDeniedError without a usable keyring. None
    of them changes anything.
    """
    given = [parse_scheduler(address) for address in schedulers]
    dask_config.check_config(here.environ)
    with here.contexts.locked():
        login_id = here.contexts.id_of(store.url, cluster, name)
        before = _before(login_id, here)
        fetched = _fetch(store, cluster, name, before, here, certificate=certificate)
        held = _with_key(fetched, login_id, before, here)
        known = before.saved.context.schedulers if before.saved else ()
        saved = here.contexts.saved(_context(store.url, held, [*given, *known]))
        _write(saved, held, before, here)
        if fetched.credential.key is None and waiting_key(login_id, here.keyring) == held.credential.key:
            forget_waiting(login_id, here.contexts, here.keyring)  # and not the key of a later request
    return LoggedIn(saved, held, dask_config.overruled_by(here.environ))


def _before(login_id: str, here: Environment) -> _Before:
    """What is there already; what is damaged counts as nothing, since it is about to be replaced."""
    entry = saved = None
    with suppress(CorruptError):
        entry = read_entry(login_id, here.keyring)
    with suppress(CorruptError):
        saved = here.contexts.load(login_id)
    return _Before(entry, saved)


def _with_key(held: VerifiedCredential, login_id: str, before: _Before, here: Environment) -> VerifiedCredential:
    """The same with the key that never left this keyring, where the store has none."""
    if held.credential.key is not None:
        return held
    own = before.entry.key if before.entry else None
    credential = with_own_key(held.credential, own, waiting_key(login_id, here.keyring))
    return held._replace(credential=credential)


def _fetch(
    store: Store, cluster: str, name: str, before: _Before, here: Environment, *, certificate: Sequence[bytes]
) -> VerifiedCredential:
    pins = before.bound(here.pins)
    try:
        if certificate:
            return hold_certificate(store.secrets, cluster, name, certificate, pins=pins, now=here.now)
        return fetch_credential(store.secrets, cluster, Role.CLIENT, name, pins=pins, now=here.now)
    except NotTrustedError as error:
        if pins == here.pins:
            raise
        ways = [error.hint, "to forget what was seen before, and accept what the store has: daskpki logout, then login"]
        raise type(error)(str(error), hint="; ".join(filter(None, ways))) from error


def _context(store: str, held: VerifiedCredential, schedulers: Sequence[str]) -> Context:
    credential = held.credential
    recorded = [parse_scheduler(address) for address in held.trust.schedulers]
    return Context(
        store=store,
        cluster=credential.cluster,
        name=credential.identity.name,
        schedulers=tuple(dict.fromkeys([*schedulers, *recorded])),
        generation=credential.generation,
        leaf=credential.leaf,
        chain=credential.chain,
        trust=held.signed.reveal(),
    )


def _write(saved: Saved, held: VerifiedCredential, before: _Before, here: Environment) -> None:
    key = held.credential.key
    assert key is not None, "login has looked for it"
    entry = encode_entry(Entry(held.trust.epoch, saved.digest, key))
    try:
        here.keyring.set(saved.service, USERNAME, entry)
        here.contexts.write(saved)
        dask_config.set_loader(here.environ)
    except DaskpkiError:
        _put_back(saved, before, here)
        raise


def _put_back(saved: Saved, before: _Before, here: Environment) -> None:
    """Undo what was written; a keyring that fails here too changes nothing about the error that is reported."""
    with suppress(AccessDeniedError):
        if before.entry is None:
            here.keyring.delete(saved.service, USERNAME)
        else:
            here.keyring.set(saved.service, USERNAME, encode_entry(before.entry))
    if before.saved is None:
        here.contexts.remove(saved)
    else:
        here.contexts.write(before.saved)


class Leaving(NamedTuple):
    """What a logout removes: logins, and keys that wait for a certificate."""

    logins: Sequence[Saved]
    waiting: Sequence[Waiting]


def leaving(here: Environment, which: str | None) -> Leaving:
    """The login CLUSTER, CLUSTER/NAME or ID with the key that waits for its renewal, or such a key alone; None for all.

    NotFoundError when there is neither, UsageError that names several.
    """
    known = all_waiting(here.contexts)
    if which is None:
        return Leaving(here.contexts.all(), known)
    if not here.contexts.fitting(which):
        return Leaving([], [find_waiting(here.contexts, which)])
    saved = here.contexts.find(which)
    return Leaving([saved], [waiting for waiting in known if waiting.id == saved.id])


def logout(here: Environment, logins: Sequence[Saved], waiting: Sequence[Waiting] = ()) -> None:
    """Remove these logins and waiting keys for good, key first; with the last login, Dask's `security-loader`.

    AccessDeniedError when the keyring cannot be reached: the login then stays as it is.
    """
    if not logins and not waiting:
        return
    with here.contexts.locked():
        for key in waiting:
            forget_waiting(key.id, here.contexts, here.keyring)
        for saved in logins:
            here.keyring.delete(saved.service, USERNAME)
            here.contexts.remove(saved)
        if here.contexts.is_empty():
            dask_config.unset_loader(here.environ)
