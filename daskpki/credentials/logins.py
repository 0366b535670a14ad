"""A login, put together again: the public file and the key in the keyring, each of which vouches for the other."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from daskpki.confidential import Confidential
from daskpki.credentials.addresses import SCHEME, matches, parse_scheduler
from daskpki.credentials.choice import Wanted
from daskpki.credentials.contexts import Contexts, Saved, service_name
from daskpki.credentials.entry import Entry, parse_entry
from daskpki.credentials.held import Held, Pins, verify_held
from daskpki.credentials.os_keyring import KeyringPort
from daskpki.errors import CorruptError, NotFoundError, NotTrustedError, UsageError
from daskpki.identity import Identity, Role
from daskpki.pki.credential import Credential
from daskpki.pki.trust import check_fresh, parse_trust

_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "[::1]")

USERNAME: Final = "credential"
"""The keyring's user name of every login: without meaning, since it is readable while the keyring is locked."""


def find_login(contexts: Contexts, wanted: Wanted) -> Saved:
    """The login that fits; NotFoundError when none does, UsageError that names the candidates when several do."""
    fitting = [saved for saved in contexts.all() if _fits(saved, wanted)]
    if wanted.address is not None:
        fitting = logins_that_list(contexts, wanted) or [saved for saved in fitting if not saved.context.schedulers]
    if not fitting:
        raise _nobody(contexts, wanted)
    return contexts.only(fitting, _describe(wanted))


def logins_that_list(contexts: Contexts, wanted: Wanted) -> list[Saved]:
    """The logins among whose addresses `wanted.address` is."""
    names = _names_of(wanted.address or "")
    return [
        saved
        for saved in contexts.all()
        if _fits(saved, wanted) and any(matches(name, saved.context.schedulers) for name in names)
    ]


def _names_of(address: str) -> list[str]:
    """The address, in each of the three ways to write it where its host is this machine."""
    try:
        host, _, port = parse_scheduler(address).removeprefix(SCHEME).rpartition(":")
    except UsageError:
        return []  # nobody's
    return [f"{SCHEME}{name}:{port}" for name in (_THIS_MACHINE if host in _THIS_MACHINE else (host,))]


def _nobody(contexts: Contexts, wanted: Wanted) -> NotFoundError:
    logins = contexts.all()
    if not logins:
        where = f", so there is no certificate for {wanted.address}" if wanted.address else ""
        ways = "daskpki login NAME; without a keyring, DASKPKI_CREDENTIAL_DIR or DASKPKI_SOURCE=store"
        other = "; for a TLS cluster of another kind, Client(..., security=...)" if wanted.address else ""
        return NotFoundError(f"nobody is logged in here{where}", hint=ways + other)
    if wanted.address:
        listed = [f"{address} ({saved.context.title})" for saved in logins for address in saved.context.schedulers]
        return NotFoundError(
            f"no login knows {wanted.address}; known: {', '.join(listed) or 'none'}",
            hint=f"daskpki login {logins[0].context.name} --scheduler {wanted.address}; "
            "for a TLS cluster of another kind, Client(..., security=...)",
        )
    titles = ", ".join(saved.context.title for saved in logins)
    return NotFoundError(f"no login fits {_describe(wanted)}", hint=f"logins are {titles}; daskpki login adds one")


def _fits(saved: Saved, wanted: Wanted) -> bool:
    context = saved.context
    return wanted.name in (None, context.name) and wanted.cluster in (None, context.cluster)


def _describe(wanted: Wanted) -> str:
    parts = {"name": wanted.name, "cluster": wanted.cluster, "address": wanted.address}
    return ", ".join(f"{what} {value}" for what, value in parts.items() if value) or "this request"


def read_entry(login_id: str, keyring: KeyringPort) -> Entry | None:
    """What the keyring keeps for a login; AccessDeniedError, CorruptError."""
    line = keyring.get(service_name(login_id), USERNAME)
    return None if line is None else parse_entry(line)


def load_login(saved: Saved, keyring: KeyringPort, now: datetime) -> Held:
    """The verified credential of a login.

    CorruptError when its file is not the one that `login` wrote; NotTrustedError when certificate or revocation list
    have run out, which another login mends.
    """
    title = saved.context.title
    entry = read_entry(saved.id, keyring)
    if entry is None:
        raise NotFoundError(f"the keyring holds no key for the login {title}", hint="daskpki login writes it anew")
    if entry.digest != saved.digest:
        raise CorruptError(
            f"the file of the login {title} is not the one that login wrote: it was changed since",
            hint="daskpki login writes it anew; find out who could change it",
        )
    try:
        return _verify(saved, entry, now)
    except NotTrustedError as error:
        raise type(error)(f"the login {title}: {error}", hint="daskpki login fetches the present state") from error


def _verify(saved: Saved, entry: Entry, now: datetime) -> Held:
    signed = Confidential(saved.context.trust)
    held = verify_held(_credential(saved, entry), signed, pins=Pins(min_epoch=entry.epoch), now=now)
    check_fresh(held.trust, now)
    return held


def _credential(saved: Saved, entry: Entry) -> Credential:
    context = saved.context
    domain = parse_trust(Confidential(context.trust)).document.trust_domain
    return Credential(
        cluster=context.cluster,
        identity=Identity(domain, Role.CLIENT, context.name),
        generation=context.generation,
        key=entry.key,
        leaf=context.leaf,
        chain=context.chain,
    )
