"""What nodes rely on: the trust document's CRLs, its link to the log, and operations that stopped half-way. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from daskpki.authority.abandoning import ABANDON_AFTER
from daskpki.authority.undone import shows_authorities
from daskpki.doctor.finding import Finding, error, ok, warning
from daskpki.inventory import CertificateRecord, Inventory
from daskpki.pki.crl import parse_header
from daskpki.pki.profile import show
from daskpki.pki.trust_document import HALF_FULL, CrlPart, TrustDocument, fill
from daskpki.records import RESERVED, REVOKING, Head

PUBLISH: Final = "daskpki renew --due"
"""Opens the CA's key, and so makes good whatever was left undone, also when no certificate is due."""

SIGN_ROOT: Final = "daskpki crl --offline-root FILE"


def check_crls(document: TrustDocument, now: float) -> Iterator[Finding]:
    """Nodes refuse new peers once a CRL has run out; commands sign it anew once a third of its life is past."""
    for part in document.crls:
        yield _check_crl(part, now)


def _check_crl(part: CrlPart, now: float) -> Finding:
    subject = f"CRL of CA generation {part.generation}"
    if now > part.next_update:
        return error(
            subject, f"ran out at {show(part.next_update)}: nodes and people refuse every certificate", PUBLISH
        )
    if now >= part.this_update + (part.next_update - part.this_update) // 3:
        return warning(subject, f"a third of its life is past; it runs out at {show(part.next_update)}", PUBLISH)
    return ok(subject, f"number {part.number}, good until {show(part.next_update)}")


def check_fill(document: TrustDocument) -> Iterator[Finding]:
    """A payload has room for some 2,000 revoked certificates."""
    if fill(document) >= HALF_FULL:
        reason = f"it is {fill(document):.0%} full of revoked certificates; when it is full, nothing can be published"
        yield warning("trust document", reason, "daskpki rotate-ca --emergency")


def check_root_crls(document: TrustDocument, now: float) -> Iterator[Finding]:
    """Nodes go on without it, but software that checks every certificate of a chain does not."""
    subject = "CRL of the offline root"
    if len(document.root_crls) < sum(bool(anchor.chain) for anchor in document.authorities):
        yield warning(subject, "there is none: software that checks every CA of a chain refuses it", SIGN_ROOT)
    for header in map(parse_header, document.root_crls):
        end = show(header.next_update)
        if now > header.next_update - (header.next_update - header.this_update) // 3:
            yield warning(subject, f"{'it ran' if now > header.next_update else 'it runs'} out at {end}", SIGN_ROOT)
        else:
            yield ok(subject, f"number {header.number}, good until {end}")


def check_link(document: TrustDocument, head: Head, logged: str | None) -> Finding:
    """The signed document names a record of the log by its hash; `logged` is that record's hash now, None without."""
    subject = "log"
    seq, promised = document.log
    if logged is None:
        return error(
            subject,
            f"it ends at record {head.seq}, and the trust document was signed after record {seq}: records are missing",
            "restore the store from a backup, and find out who could write to it",
        )
    if logged != promised:
        return error(
            subject,
            f"record {seq} is not the one after which the trust document was signed: the log was rewritten",
            "restore the store from a backup, and find out who could write to it",
        )
    return ok(subject, f"{head.seq} records, the chain holds and carries the signed trust document")


def check_unfinished(inventory: Inventory, now: float) -> Iterator[Finding]:
    """Operations that a crash left open. Nothing is lost by them, and any command that opens the CA's key ends them."""
    for entry in inventory.certificates(statuses=[RESERVED]):
        if entry.reserved_at < now - ABANDON_AFTER:
            yield _abandoned(entry)
    for entry in inventory.certificates(statuses=[REVOKING]):
        yield error(
            f"certificate {entry.role}/{entry.name}",
            f"serial {entry.serial:x} is to be revoked, and nodes were not told: the command was cut off",
            PUBLISH,
        )
    if inventory.published and not shows_authorities(inventory):
        yield error("trust document", "it does not show the CAs as the log has them: a command was cut off", PUBLISH)


def _abandoned(entry: CertificateRecord) -> Finding:
    return warning(
        f"certificate {entry.role}/{entry.name}",
        f"serial {entry.serial:x} was reserved at {show(entry.reserved_at)} and never confirmed: the command died. "
        "It will be given up, and its serial revoked",
        f"{PUBLISH}; then, if it is still wanted: daskpki issue {entry.role} --name {entry.name}",
        topic="reserved and not confirmed",
    )
