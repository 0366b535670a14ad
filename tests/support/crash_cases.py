"""What is broken off: a command, what comes before it, and the same by the Python API, to be done again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.rollover import IDLE, RETIRING, STARTED, Successor
from daskpki.errors import AlreadyExistsError
from daskpki.identity import Role
from daskpki.inventory import CertificateRecord

Act = Callable[[CertificateAuthority], Iterator[CertificateRecord]]
"""Does it, and yields each certificate as it is acknowledged."""


class Ending(NamedTuple):
    """Where a rollover stands once its step is done; `issuing` is None for a CA that the step itself made."""

    phase: str
    issuing: int | None = None


class Case(NamedTuple):
    """One command; `act` is the same. `before` leads up to it; `ending` is where a step of a rollover leads."""

    name: str
    command: tuple[str, ...]
    act: Act
    before: tuple[Act, ...]
    ending: Ending | None = None


def found(authority: CertificateAuthority) -> Iterator[CertificateRecord]:
    with suppress(AlreadyExistsError):  # it was made before the command broke off
        authority.init()
    yield from issue(authority, "worker")


def issue(authority: CertificateAuthority, name: str, role: Role = Role.WORKER) -> Iterator[CertificateRecord]:
    for leaf in authority.issue(authority.requests(role, [name])):
        yield leaf.record


def renew(authority: CertificateAuthority) -> Iterator[CertificateRecord]:
    for leaf in authority.renew([authority.find("worker/worker")], give_way=False):
        yield leaf.record


def revoke(authority: CertificateAuthority) -> Iterator[CertificateRecord]:
    yield from authority.revoke("worker/worker", "keyCompromise")


def start(authority: CertificateAuthority) -> Iterator[CertificateRecord]:
    authority.rollover().start(Successor())
    yield from ()


def promote(authority: CertificateAuthority) -> Iterator[CertificateRecord]:
    authority.rollover().promote()
    yield from reissue(authority)


def finish(authority: CertificateAuthority) -> Iterator[CertificateRecord]:
    authority.rollover().finish()
    yield from ()


def abort(authority: CertificateAuthority) -> Iterator[CertificateRecord]:
    authority.rollover().abort()
    yield from reissue(authority)


def emergency(authority: CertificateAuthority) -> Iterator[CertificateRecord]:
    authority.rollover().emergency(Successor())
    yield from reissue(authority, give_way=False)


def reissue(authority: CertificateAuthority, *, give_way: bool = True) -> Iterator[CertificateRecord]:
    for leaf in authority.rollover().reissue(give_way=give_way):
        yield leaf.record


ROLLOVERS: Final = (
    Case("start", ("rotate-ca", "start"), start, (found,), Ending(STARTED, 1)),
    Case("promote", ("rotate-ca", "promote"), promote, (found, start), Ending(RETIRING, 2)),
    Case("finish", ("rotate-ca", "finish"), finish, (found, start, promote), Ending(IDLE, 2)),
    Case("abort", ("rotate-ca", "abort"), abort, (found, start), Ending(IDLE, 1)),
    Case("take-back", ("rotate-ca", "abort"), abort, (found, start, promote), Ending(RETIRING, 1)),
    Case("emergency", ("rotate-ca", "--emergency"), emergency, (found,), Ending(IDLE)),
)

CASES: Final = {
    case.name: case
    for case in (
        Case("init-ca", ("init-ca", "--with", "worker"), found, ()),
        Case("issue", ("issue", "worker", "--count", "2"), lambda authority: issue(authority, "worker"), (found,)),
        Case("renew", ("renew", "worker/worker"), renew, (found,)),
        Case("revoke", ("revoke", "worker/worker", "--reason", "keyCompromise"), revoke, (found,)),
        *ROLLOVERS,
    )
}
