"""`daskpki init-ca`: makes a cluster's CA and, with `--with`, its first certificates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from daskpki.cli.invocation import Invocation, parse_role_and_name, read_passphrase
from daskpki.cli.issue import next_step
from daskpki.cli.output import colon_fingerprint
from daskpki.errors import UsageError
from daskpki.identity import Role
from daskpki.quoting import rfc3339
from daskpki.settings import GsmUrl

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.authority.ca_keys import OfflineRoot
    from daskpki.store.gsm.secrets import GsmOptions


class OfflineRootFile(NamedTuple):
    """Options for the file of an offline root's key."""

    offline_root: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key file of the offline root (two tiers); init-ca and rotate-ca create it."),
    ] = None
    root_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the passphrase of --offline-root (default: ask).")
    ] = None

    def named(self, cluster: str) -> OfflineRoot | None:
        """The offline root, if there is one; UsageError for a passphrase without a file."""
        if self.offline_root is None:
            if self.root_passphrase_file is not None:
                raise UsageError("--root-passphrase-file is for the file of --offline-root", hint="--offline-root FILE")
            return None
        from daskpki.authority.ca_keys import OfflineRoot

        ask = partial(read_passphrase, self.root_passphrase_file, "the offline root", "--root-passphrase-file")
        return OfflineRoot(self.offline_root, cluster, lambda new: ask(new=new))


def init_ca(
    invocation: Invocation,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="LEAVES", help="Also issue these certificates: scheduler,worker,client/alice."),
    ] = None,
    trust_domain: Annotated[
        str | None, typer.Option(metavar="D", help="Default: CLUSTER.daskpki.internal. Cannot change later.")
    ] = None,
    permit_dns: Annotated[
        list[str] | None, typer.Option(metavar="D", help="Domain that certificates may name. Cannot change later.")
    ] = None,
    ca_key: Annotated[
        str,
        typer.Option(metavar="URI", help="Where to keep the CA's key: store:, another store's URL, or gcpkms://..."),
    ] = "store:",
    max_ttl: Annotated[
        str | None, typer.Option(metavar="T", help="Longest lifetime of a certificate, such as 90d.")
    ] = None,
    key_type: Annotated[str, typer.Option(metavar="K", help="p256, p384 or rsa3072.")] = "p256",
    ca_passphrase: Annotated[
        bool, typer.Option("--ca-passphrase", help="Encrypt the CA's key with a passphrase, and ask for it.")
    ] = False,
    replication: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="gsm: store payloads in these locations only. Cannot change later."),
    ] = None,
    cmek: Annotated[
        str | None, typer.Option(metavar="KEY", help="gsm: encrypt with this Cloud KMS key. Cannot change later.")
    ] = None,
    root: OfflineRootFile = OfflineRootFile(),
) -> None:
    """Make the cluster's certificate authority.

    Example:  [bold]daskpki init-ca --with scheduler,worker,client/alice[/bold]

    On Secret Manager:  [bold]daskpki --store gsm://PROJECT init-ca --ca-passphrase-file FILE[/bold]

    An existing CA is never overwritten; after an interruption, run the same command again.
    """
    from daskpki.authority.creation import plan_ca

    named = [part.strip() for listed in with_ or () for part in listed.split(",") if part.strip()]
    leaves = list(dict.fromkeys(parse_role_and_name(part) for part in named))
    seal = ca_passphrase or invocation.given.ca_passphrase_file is not None
    plan = plan_ca(  # refuses an impossible CA before a store is made for it
        invocation.cluster,
        trust_domain=trust_domain,
        permit_dns=permit_dns or (),
        max_ttl=max_ttl,
        key_type=key_type,
        offline_root=root.named(invocation.cluster),
    )
    with invocation.authority(create=True, placement=_placement(invocation, replication, cmek), seal=seal) as authority:
        authority.init(plan, ca_key=ca_key)
        document = _document(authority, leaves)
    invocation.output.result(document, _lines(document))
    invocation.output.hint(*_next_steps(document, root.offline_root, seal=seal))


def _placement(invocation: Invocation, replication: str | None, cmek: str | None) -> GsmOptions | None:
    if replication is None and cmek is None:
        return None
    if not isinstance(invocation.url, GsmUrl):
        raise UsageError("--replication and --cmek are for stores on Secret Manager", hint="--store gsm://PROJECT")
    from daskpki.store.gsm.secrets import GsmOptions

    return GsmOptions(tuple(part for part in (replication or "").split(",") if part), cmek)


def _document(authority: CertificateAuthority, leaves: Sequence[tuple[Role, str]]) -> dict[str, Any]:
    from daskpki.pki.pem import fingerprint

    made = authority.active()
    issued = [
        authority.describe(leaf.record)
        for role, name in leaves
        for leaf in authority.issue(authority.requests(role, [name]))
    ]
    root = authority.issuer().root
    return {
        "cluster": authority.session.cluster,
        "store": authority.session.store.url,
        "trustDomain": made.trust_domain,
        "permittedDns": list(authority.policy().permitted_dns),
        "generation": made.generation,
        "caKey": made.key_uri,
        "fingerprint": fingerprint(made.anchor_der),
        "notAfter": rfc3339(root.not_valid_after_utc),
        "issued": issued,
    }


def _lines(document: dict[str, Any]) -> list[str]:
    leaves = [f"  {leaf['role']}/{leaf['name']}  valid until {leaf['notAfter'][:10]}" for leaf in document["issued"]]
    return [
        f"made the CA of cluster {document['cluster']!r} in {document['store']}",
        f"  trust domain  {document['trustDomain']}",
        f"  valid until   {document['notAfter'][:10]}",
        f"  SHA-256       {colon_fingerprint(document['fingerprint'])}",
        *(["issued", *leaves] if leaves else []),
    ]


def _next_steps(document: dict[str, Any], root: Path | None, *, seal: bool) -> list[str]:
    steps = []
    if root is not None:
        steps.append(f"put {root} away on a separate medium, and its passphrase elsewhere")
    if document["store"].startswith("gsm:") and document["caKey"] == "store:" and not seal:
        steps.append(
            "note: everyone who can read the CA's secret can sign; --ca-passphrase-file FILE at init-ca encrypts it"
        )
    clients = [leaf["name"] for leaf in document["issued"] if leaf["role"] == Role.CLIENT]
    if document["store"].startswith("gsm:"):
        steps.append(
            "next: daskpki grant lets accounts read their secrets; daskpki deploy gcp does that and creates the VMs"
        )
    elif clients:
        steps.append(next_step(Role.CLIENT, clients[0]))
    else:
        steps.append("next: daskpki issue scheduler; daskpki issue worker; daskpki issue client/NAME")
    return steps
