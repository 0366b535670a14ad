"""Who is logged in here, and whether that will hold. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from daskpki.doctor.finding import Finding, Severity, note, of_error, ok, warning
from daskpki.errors import DaskpkiError
from daskpki.pki.profile import Lifetime, show


class LoginSeen(NamedTuple):
    """A login: its title, the name to log in by, its leaf's life, the trust epoch that it holds and the store's.

    `failure` is why it cannot be used, else None; `newest` is None where the store was not read; `by_file` are the
    steps that renew a login that came by a login file.
    """

    title: str
    name: str
    lifetime: Lifetime
    epoch: int
    newest: int | None = None
    failure: DaskpkiError | None = None
    by_file: str | None = None


def check_login(seen: LoginSeen, now: float) -> Finding:
    """One login."""
    subject, again = f"login {seen.title}", seen.by_file or f"daskpki login {seen.name}"
    begin, end = seen.lifetime
    if seen.failure is not None:
        return of_error(subject, seen.failure)
    if now >= begin + (end - begin) * 2 / 3:
        remedy = again if seen.by_file else f"after a renewal, {again}"
        return warning(subject, f"past two thirds of its life; it ends at {show(end)}", remedy)
    if seen.newest is not None and seen.epoch < seen.newest:
        reason = f"it knows trust epoch {seen.epoch}, and the store has {seen.newest}: later revocations are not known"
        return note(subject, reason, again)
    return ok(subject, f"valid until {show(end)}")


def check_keyring(failure: DaskpkiError | None, *, needed: bool) -> Iterator[Finding]:
    """A keyring that does not work is an error only for those who keep something in it."""
    if failure is None:
        yield ok("keyring", "answers, and is one that encrypts what it keeps")
    else:
        severity = Severity.ERROR if needed else Severity.NOTE
        yield of_error("keyring", failure)._replace(severity=severity)
