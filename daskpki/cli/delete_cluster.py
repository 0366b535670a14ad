"""`daskpki delete-cluster`: revoke everything, then destroy the cluster's keys, credentials and secrets."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from daskpki.cli.invocation import Invocation
from daskpki.cli.output import ask
from daskpki.cli.renew_revoke import ONE_POLL, Push, notify_schedulers
from daskpki.errors import UsageError
from daskpki.quoting import minute
from daskpki.settings import GsmUrl, LocalUrl

if TYPE_CHECKING:
    from daskpki.authority.deletion import Deletion

_UNSEEN: Final = (
    "not seen: nodes on Kubernetes, resources made by Terraform, machines made by hand, copies in other stores, and "
    "backups; stop or delete those yourself"
)


def delete_cluster(
    invocation: Invocation,
    confirm: Annotated[
        str | None, typer.Option(metavar="CLUSTER", help="Name of the cluster again, instead of the question.")
    ] = None,
    wait: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, help="Time for running nodes to learn of the revocation.")
    ] = ONE_POLL,
) -> None:
    """Revoke every certificate of a cluster and destroy its keys, credentials and other secrets.

    Example:  [bold]daskpki delete-cluster --cluster lab --confirm lab[/bold]

    The trust document and the log stay until the last certificate has expired, since running nodes learn of the
    revocation from them; run the command again after that. It refuses while `daskpki deploy` finds VMs.
    """
    from daskpki.authority.deletion import delete_secrets, plan_deletion, revoke_all

    output = invocation.output
    if confirm is not None and confirm != invocation.cluster:
        raise UsageError(f"--confirm {confirm!r} is not the cluster {invocation.cluster!r}", hint="name it again")
    with invocation.authority() as authority:
        planned = plan_deletion(authority)
        if not output.as_json:
            output.result(None, _lines(planned))
        local = isinstance(invocation.url, LocalUrl)
        output.hint(f"{'daskpki backup FILE' if local else 'daskpki copy --to local:/path'} keeps a copy", _UNSEEN)
        _check_machines(invocation)
        if confirm is None:
            if not sys.stdin.isatty():
                raise UsageError("deleting a cluster has to be confirmed", hint=f"--confirm {invocation.cluster}")
            if ask(f"Type the cluster's name to delete it ({invocation.cluster}): ") != invocation.cluster:
                raise UsageError("that is not the cluster's name, so nothing was deleted")
        if revoke_all(authority):
            notify_schedulers(invocation, authority, Push())
            output.hint(f"waiting {wait} seconds, in which every running node looks for the new trust document")
            time.sleep(wait)  # for nodes that no push reaches
        delete_secrets(authority, planned, lambda secret: output.hint(f"deleted {secret}"))
    if output.as_json:
        output.result(planned._asdict(), ())
    if planned.kept_until is not None:
        output.hint(f"next: the same command after {minute(planned.kept_until + 60)} removes the rest")


def _lines(planned: Deletion) -> Iterator[str]:
    yield f"certificates to revoke and publish: {planned.revoked}"
    yield f"secrets to delete for good: {len(planned.now)}"
    yield from (f"    {secret}" for secret in planned.now)
    if planned.user_secrets:
        yield f"among them your secrets: {', '.join(planned.user_secrets)}"
    if planned.kept_until is not None:
        until = f"kept until {minute(planned.kept_until + 60)}, when no connection of a certificate is left"
        yield f"{until}: {', '.join(planned.later)}"
    yield from (f"not deleted: the CA's key {uri}" for uri in planned.keys_elsewhere)


def _check_machines(invocation: Invocation) -> None:
    """Raise UsageError while VMs of the cluster run; a local store has none that `deploy` made."""
    from daskpki.deploy.apply import find_machines
    from daskpki.deploy.gcloud import runner
    from daskpki.deploy.settings import Site

    url = invocation.url
    if not isinstance(url, GsmUrl):
        return
    try:
        machines = find_machines(runner(), Site(url, invocation.cluster))
    except UsageError as error:  # gcloud is not installed: a person without it may still have to delete a cluster
        invocation.output.warn(f"VMs were not looked for: {error}")
        return
    if machines:
        raise UsageError(
            f"cluster {invocation.cluster!r} has VMs: {', '.join(machines)}",
            hint=f"daskpki --store {url} --cluster {invocation.cluster} deploy gcp --destroy --apply",
        )
