"""What daskpki itself makes before any VM can boot: the CA and the credentials, by its own commands. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daskpki import secret_names
from daskpki.deploy.parts import parts
from daskpki.deploy.plan import Observed, Step
from daskpki.deploy.resource import CREATED, NO_FILES, Command
from daskpki.deploy.settings import Deployment
from daskpki.errors import NotFoundError
from daskpki.identity import Role, default_name

KIND: Final = "credential"


def prerequisites(wanted: Deployment, observed: Observed) -> Iterator[Step]:
    """The steps that make what is missing; none is undone by a plan, since credentials are revoked, not removed."""
    leaves = [leaf for part in parts(wanted) for leaf in part.leaves]
    missing = [
        (role, name)
        for role, name in leaves
        if secret_names.credential_id(wanted.cluster, role, name) not in observed.secrets
    ]
    if secret_names.trust_id(wanted.cluster) not in observed.secrets:
        usual = [f"{role}" for role, name in missing if name == default_name(role)]
        yield _made(f"CA of cluster {wanted.cluster} in {wanted.store}", _init(wanted, usual))
        missing = [(role, name) for role, name in missing if name != default_name(role)]
    isolated = [name for role, name in missing if role is Role.WORKER and name != default_name(role)]
    if isolated:
        yield _made(f"credentials of {wanted.workers} workers", _issue(wanted, "worker", f"--count={wanted.workers}"))
    for role, name in missing:
        if name == default_name(role):
            yield _made(f"credential {role}/{name}", _issue(wanted, role))


def check_mounted(wanted: Deployment, observed: Observed) -> None:
    """Raise NotFoundError for a secret that workers are to mount, and that nobody has set."""
    for mount in wanted.mounts:
        if secret_names.user_secret_id(wanted.cluster, mount.name) not in observed.secrets:
            raise NotFoundError(
                f"cluster {wanted.cluster!r} in {wanted.store} has no secret {mount.name!r} to mount",
                hint=f"daskpki --store={wanted.store} --cluster={wanted.cluster} secret set {mount.name} --file FILE",
            )


def _made(title: str, command: Command) -> Step:
    return Step(CREATED, KIND, title, {}, (command,), (), NO_FILES)


def _init(wanted: Deployment, roles: list[str]) -> Command:
    chosen = (f"--with={','.join(roles)}",) if roles else ()
    return (*_daskpki(wanted), "init-ca", *chosen)


def _issue(wanted: Deployment, role: str, *words: str) -> Command:
    return (*_daskpki(wanted), "issue", role, *words)


def _daskpki(wanted: Deployment) -> Command:
    sealed = (f"--ca-passphrase-file={wanted.ca_passphrase_file}",) if wanted.ca_passphrase_file else ()
    return ("daskpki", f"--store={wanted.store}", f"--cluster={wanted.cluster}", *sealed)
