"""`daskpki crl`: shows the revocation lists, exports them, and signs an offline root's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daskpki.cli.init_ca import OfflineRootFile
from daskpki.cli.invocation import Invocation
from daskpki.cli.output import facts, table
from daskpki.errors import NotFoundError, UsageError
from daskpki.quoting import rfc3339

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.authority.crl import KeptCrl
    from daskpki.cli.output import Output
    from daskpki.inventory import Inventory


def crl(
    invocation: Invocation,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the list to this file.")] = None,
    pem: Annotated[bool, typer.Option("--pem", help="PEM (default for a file); without --out, on stdout.")] = False,
    der: Annotated[bool, typer.Option("--der", help="DER; for one CA only.")] = False,
    generation: Annotated[
        int | None, typer.Option(metavar="N", help="Only the list of this CA; during a rollover there are two.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    root_file: OfflineRootFile = OfflineRootFile(),
    revoke_intermediate: Annotated[
        bool, typer.Option("--revoke-intermediate", help="With --offline-root: revoke a replaced CA's intermediate.")
    ] = False,
) -> None:
    """Show the certificate revocation list, or export it.

    Examples:  [bold]daskpki crl[/bold]   [bold]daskpki crl --out ca.crl --der[/bold]

    For OpenSSL:  [bold]openssl verify -crl_check -CRLfile ca.crl.pem -CAfile ca.pem cert.pem[/bold]

    With two tiers there are two lists: the intermediate's, and the offline root's, which is signed for a year and needs
    its file:  [bold]daskpki crl --offline-root root.key[/bold]
    """
    from daskpki.files import PUBLIC_FILE, check_writable, write_private

    if pem and der:
        raise UsageError("--pem and --der are two forms of the same", hint="use one of them")
    if der and out is None:
        raise UsageError("DER is not for a terminal", hint="--out FILE")
    root = root_file.named(invocation.cluster)
    if revoke_intermediate and root is None:
        raise UsageError("only its root revokes an intermediate", hint="--offline-root FILE")
    if out is not None:
        check_writable(out, force=force)
    with invocation.authority() as authority:
        inventory = authority.inventory()
        try:
            chosen = _chosen(authority, inventory, generation, der=der)
        except NotFoundError:  # the list of a replaced CA is shown once its root revoked the intermediate
            if not revoke_intermediate or generation not in {entry.generation for entry in inventory.authorities()}:
                raise
        if root is not None:
            signed = authority.sign_root_crl(root, revoke=revoke_intermediate)
            invocation.output.hint(f"signed the CRL of CA {signed.generation} ({signed.state})")
            inventory = authority.inventory()
            chosen = _chosen(authority, inventory, generation, der=der)
        warn_of_end(invocation.output, inventory, authority.session.now())
    if out is not None:
        data = chosen[0].der if der else _pem(chosen).encode()
        write_private(out, data, force=force, mode=PUBLIC_FILE)
        invocation.output.result({"files": [str(out)]}, [str(out)])
    elif pem:
        text = _pem(chosen)
        invocation.output.result({"pem": text}, text.splitlines())
    else:
        documents = [_document(entry) for entry in chosen]
        invocation.output.result(documents, [line for document in documents for line in _lines(document)])


def _chosen(
    authority: CertificateAuthority, inventory: Inventory, generation: int | None, *, der: bool
) -> list[KeptCrl]:
    from daskpki.authority.crl import kept_crls, root_crls

    kept = [*kept_crls(authority.trust()), *root_crls(inventory)]
    chosen = [entry for entry in kept if generation in (None, entry.generation)]
    if not chosen:
        known = ", ".join(str(entry.generation) for entry in kept)
        raise NotFoundError(f"CA {generation} is not in the trust document", hint=f"CAs are {known}")
    if der and len(chosen) > 1:
        hint = "--generation N, or --pem" if generation is None else "--pem; openssl crl -outform DER converts each"
        raise UsageError(f"a DER file contains one CRL, and there are {len(chosen)}", hint=hint)
    return chosen


def _pem(chosen: Sequence[KeptCrl]) -> str:
    from daskpki.pki.crl import crl_pem

    return "".join(crl_pem(entry.der) for entry in chosen)


def _document(entry: KeptCrl) -> dict[str, Any]:
    contents = entry.contents
    revoked = sorted(contents.revoked.values(), key=lambda revocation: revocation.at)
    return {
        "generation": entry.generation,
        "state": entry.state,
        "number": contents.number,
        "thisUpdate": rfc3339(contents.this_update),
        "nextUpdate": rfc3339(contents.next_update),
        "revoked": [
            {"serial": f"{known.serial:x}", "revokedAt": rfc3339(known.at), "reason": known.reason} for known in revoked
        ],
    }


def _lines(document: dict[str, Any]) -> list[str]:
    shown = facts(
        {
            "CRL of": f"CA {document['generation']} ({document['state']})",
            "number": document["number"],
            "signed": document["thisUpdate"],
            "next update": document["nextUpdate"],
            "revoked": str(len(document["revoked"])),
        }
    )
    rows = [(known["serial"], known["revokedAt"], known["reason"]) for known in document["revoked"]]
    return [*shown, *(table(("serial", "revoked", "reason"), rows) if rows else ())]


def warn_of_end(output: Output, inventory: Inventory, now: datetime) -> None:
    """Warn about a CRL that has expired or soon will: nodes refuse new peers from then on."""
    from daskpki.authority.crl import root_running_out, running_out

    if end := root_running_out(inventory, now):
        output.warn(
            f"the CRL of the offline root expires at {rfc3339(end)}: daskpki crl --offline-root FILE re-signs it"
        )
    if end := running_out(inventory, now):
        past = end < now.timestamp()
        output.warn(
            f"the CRL {'expired' if past else 'expires'} at {rfc3339(end)}, and nodes refuse new peers from then on: "
            "daskpki renew --due re-signs it, as does any command that opens the CA's key"
        )
