"""What is broken off: a command, what comes before it, and the same by the Python API, to be done again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from daskpki.authority import CertificateAuthority
from daskpki.errors import AlreadyExistsError
from daskpki.identity import Role
from daskpki.inventory import CertificateRecord

Act = Callable[[CertificateAuthority], Iterator[CertificateRecord]]
"""Does it, and yields each certificate as it is acknowledged."""


class Case(NamedTuple):
    """One command; `act` is the same. `prepared` is whether a CA with a worker's leaf comes before it."""

    name: str
    command: tuple[str, ...]
    act: Act
    prepared: bool = True


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


CASES: Final = {
    case.name: case
    for case in (
        Case("init-ca", ("init-ca", "--with", "worker"), found, prepared=False),
        Case("issue", ("issue", "worker", "--count", "2"), lambda authority: issue(authority, "worker")),
        Case("renew", ("renew", "worker/worker"), renew),
        Case("revoke", ("revoke", "worker/worker", "--reason", "keyCompromise"), revoke),
    )
}
