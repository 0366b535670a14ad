"""Findings, and the pure rules that make them.

Access: a grant that is too wide for another member is an error. A node's secret that you can read yourself is a
warning, since the owner of a project reads everything in it. A grant that is too narrow is a warning, since a grant on
the project, which is not visible here, may make up for it.

Certificates: a leaf is due once two thirds of its life are past, by the rule of `daskpki renew --due`. Valid ones are
summed up in one finding, since a cluster may have thousands.

Installed versions: the minimum versions are security fixes (docs/adr/0002-dependencies.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple

from packaging.version import parse

from daskpki import grants
from daskpki.authority.crl import is_root_crl_due
from daskpki.authority.lookup import shows_authorities, stale_reservations
from daskpki.authority.renewal import is_due
from daskpki.credentials.contexts import LOGIN_FILE, Saved
from daskpki.credentials.dask_config import LOADER
from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError
from daskpki.grants import UNSEEN
from daskpki.identity import Role
from daskpki.inventory import EXPIRED, FROM_REQUEST, SUPERSEDED, CertificateRecord, Inventory
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.crl import crl_due, parse_header
from daskpki.pki.profile import Lifetime
from daskpki.pki.trust_document import HALF_FULL, TrustDocument, fill
from daskpki.quoting import rfc3339
from daskpki.records import ISSUED, REVOKING, Head
from daskpki.settings import GsmUrl
from daskpki.store.port import DESTROYED, ENABLED, Version

MOST_OF_A_TOPIC: Final = 5


class Severity(StrEnum):
    """Severity of a finding, from fine to broken or unsafe."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One finding. `remedy` is a command or a sentence, None if there is nothing to do; `temporary` errors may pass.

    Findings of one kind share a `topic`, by which `gist` sums them up.
    """

    severity: Severity
    subject: str
    reason: str
    remedy: str | None = None
    temporary: bool = False
    topic: str | None = None

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {name: getattr(self, name) for name in ("severity", "subject", "reason", "remedy")}


ok = partial(Finding, Severity.OK)
"""Make a finding that something is fine."""
note = partial(Finding, Severity.NOTE)
"""Make a finding that is worth knowing: a choice, or something that could not be checked."""
warning = partial(Finding, Severity.WARNING)
"""Make a finding that something works, but not for long or less safely than it should."""
error = partial(Finding, Severity.ERROR)
"""Make a finding that something is broken or unsafe now."""


def of_error(subject: str, failure: DaskpkiError) -> Finding:
    """Make a finding of a check that failed to run: daskpki's errors name cause and remedy themselves."""
    temporary = isinstance(failure, UnavailableError)
    return Finding(Severity.ERROR, subject, str(failure), failure.hint, temporary)


def gist(findings: Sequence[Finding], most: int = MOST_OF_A_TOPIC) -> list[Finding]:
    """Keep at most `most` findings of a topic and severity; the last one counts the others."""
    total = Counter((finding.topic, finding.severity) for finding in findings)
    seen: Counter[tuple[str | None, Severity]] = Counter()
    shown = []
    for finding in findings:
        kind = (finding.topic, finding.severity)
        seen[kind] += 1
        if finding.topic is None or total[kind] <= most or seen[kind] < most:
            shown.append(finding)
        elif seen[kind] == most:
            rest = f"{total[kind] - most + 1} more of the same kind; --json lists them"
            shown.append(finding._replace(subject=finding.topic, reason=rest, remedy=None))
    return shown


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 without errors, 75 if all errors are temporary, else 3."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return 0
    return UnavailableError.exit_code if all(each.temporary for each in errors) else NotTrustedError.exit_code


_NOTICEABLE: Final = 5.0
_HARMFUL: Final = 60.0
"""Seconds of difference from which a new certificate may not be valid yet here, or a boot waits for the clock."""
_REMEDY: Final = "chronyc makestep, and see that a time server is reachable"


def check_clock(ahead: float | None) -> Finding:
    """Check this machine's clock; `ahead` is in seconds, None without another clock."""
    subject = "clock"
    if ahead is None:
        return note(subject, "not compared: no server here sends its time")
    direction = "ahead of" if ahead > 0 else "behind"
    reason = f"this machine's clock is {abs(ahead):.0f} s {direction} Secret Manager's"
    if abs(ahead) > _HARMFUL:
        return error(subject, reason, _REMEDY)
    if abs(ahead) > _NOTICEABLE:
        return warning(subject, reason, _REMEDY)
    return ok(subject, "agrees with Secret Manager's")


_SEVERITY: Final = {
    grants.TOO_WIDE: Severity.ERROR,
    grants.TOO_NARROW: Severity.WARNING,
    grants.UNCLEAR: Severity.NOTE,
}


def check_access(judged: Iterable[grants.GrantFinding], url: GsmUrl) -> Iterator[Finding]:
    """Report the findings about a cluster's IAM policies, and the grants that are not checked."""
    found = []
    for each in judged:
        whom = f"{each.member}: " if each.member else ""
        severity = _SEVERITY[each.severity] if each.member else Severity.WARNING
        reason = f"{each.severity}: {whom}{each.reason}"
        found.append(Finding(severity, each.secret, reason, each.mend, topic=each.severity))
    yield from found or [ok("grants", "each credential has one reader, and no node reads a CA key")]
    yield note("grants", f"not seen: {UNSEEN}", f"gcloud projects get-ancestors-iam-policy {url.project}")


def check_slots(kinds: Sequence[str]) -> Iterator[Finding]:
    """Warn about a store with one key slot: losing that loses the CA."""
    subject = "key slots"
    if len(kinds) == 1:
        reason = f"there is only one ({kinds[0]}), and losing it loses the CA"
        yield warning(subject, reason, "daskpki slot add recovery")
    elif "recovery" not in kinds:
        yield note(subject, f"{len(kinds)} key slots, none of them a recovery code", "daskpki slot add recovery")
    else:
        yield ok(subject, f"{len(kinds)} key slots: {', '.join(kinds)}")


Remedy = Callable[[str, str, Sequence[int]], "str | None"]
"""The command for a verb (enable, destroy), a secret and version numbers; None where the store has none."""


def check_newest(secret: str, versions: Sequence[Version], remedy: Remedy, again: str | None) -> Iterator[Finding]:
    """Check that the newest version is enabled: readers of `latest` get the highest number in any state.

    `again` is the command that adds a version, None if only a backup has the payload.
    """
    newest = max(versions, key=lambda version: version.number, default=None)
    if newest is None:
        yield error(secret, "it has no version: no payload was ever added", again)
    elif newest.state != ENABLED:
        reason = f"its newest version, {newest.number}, is {newest.state.lower()}: every reader fails"
        erased = newest.state == DESTROYED
        mend = again or "restore it from a backup" if erased else remedy("enable", secret, [newest.number])
        yield error(secret, reason, mend)


def check_recorded(secret: str, versions: Sequence[Version], entry: CertificateRecord | None) -> Iterator[Finding]:
    """Check that the newest version is the one that the log confirms."""
    newest = max((version.number for version in versions), default=None)
    recorded = None if entry is None else entry.version
    if newest is not None and newest != recorded:
        yield warning(
            secret,
            f"its newest version, {newest}, is not the one that the log confirms ({recorded or 'none'}): a command "
            "was killed before it was done, or another program added it",
            f"daskpki renew {entry.slug}" if entry else None,
        )


def check_superseded(secret: str, versions: Sequence[Version], remedy: Remedy) -> Iterator[Finding]:
    """Report old keys that readers of the secret can still read by number."""
    numbers = sorted(version.number for version in versions if version.state == ENABLED)[:-1]
    if numbers:
        listed = ", ".join(map(str, numbers))
        yield note(
            secret,
            f"superseded and still readable: version {listed}",
            remedy("destroy", secret, numbers),
            topic="old versions",
        )


def check_login(saved: Saved, newest: int | None, failure: DaskpkiError | None, renewal: str, now: float) -> Finding:
    """Check one login: usable, not due, not behind the store's trust document.

    `newest` is that document's epoch, None where the store was not read; `failure` is the error of using the login,
    `renewal` what renews it.
    """
    context = saved.context
    subject, life, epoch = f"login {context.title}", lifetime(load_certificate(context.leaf)), context.document.epoch
    if failure is not None:
        return of_error(subject, failure)
    if is_due(life, now):
        remedy = renewal if context.store == LOGIN_FILE else f"after a renewal, {renewal}"
        return warning(subject, f"past two thirds of its life; it expires at {rfc3339(life.not_after)}", remedy)
    if newest is not None and epoch < newest:
        reason = f"it has trust epoch {epoch}, the store {newest}: it does not know later revocations"
        return note(subject, reason, renewal)
    return ok(subject, f"valid until {rfc3339(life.not_after)}")


def check_keyring(failure: DaskpkiError | None, *, needed: bool) -> Iterator[Finding]:
    """Report a keyring that does not work; an error only if a login is in it."""
    if failure is None:
        yield ok("keyring", "works, and encrypts its entries")
    else:
        severity = Severity.ERROR if needed else Severity.NOTE
        yield of_error("keyring", failure)._replace(severity=severity)


_ROTATE: Final = "daskpki rotate-ca start"


def check_authority(generation: int, lifetime: Lifetime, now: float) -> Finding:
    """Check the end of a CA's certificate, which leaves cannot outlive."""
    subject = f"CA generation {generation}"
    end = lifetime.not_after
    if now > end:
        return error(subject, f"its certificate expired at {rfc3339(end)}, and every leaf with it", _ROTATE)
    if is_due(lifetime, now):
        return warning(subject, f"two thirds of its life are past; it expires at {rfc3339(end)}", _ROTATE)
    return ok(subject, f"valid until {rfc3339(end)}")


def check_leaves(entries: Iterable[CertificateRecord], living: Collection[int], now: float) -> Iterator[Finding]:
    """Check all leaves: expired, of a dropped CA, due, and older ones that are still valid."""
    valid: list[CertificateRecord] = []
    older: dict[str, list[CertificateRecord]] = {}
    for entry in entries:
        state = entry.state(now)
        if state == SUPERSEDED:
            if entry.issuer in living:
                older.setdefault(entry.slug, []).append(entry)
        elif state == EXPIRED and not entry.superseded:
            yield error(_subject(entry), f"expired at {rfc3339(entry.not_after)}", _renew(entry), topic="expired")
        elif state == ISSUED and entry.issuer not in living:
            reason = f"comes from CA {entry.issuer}, which was dropped, so it is not trusted"
            yield error(_subject(entry), reason, _renew(entry), topic="of a dropped CA")
        elif state == ISSUED and is_due(entry, now):
            reason = f"past two thirds of its life; it expires at {rfc3339(entry.not_after)}"
            yield warning(_subject(entry), reason, _renew(entry), topic="due")
        elif state == ISSUED:
            valid.append(entry)
    if valid:
        first = min(valid, key=lambda entry: entry.not_after)
        yield ok("certificates", f"{len(valid)} valid; the first to end is {first.slug}, {rfc3339(first.not_after)}")
    yield from (_still_valid(slug, entries) for slug, entries in older.items())


def _still_valid(slug: str, entries: list[CertificateRecord]) -> Finding:
    serials = ", ".join(f"{entry.serial:x}" for entry in entries)
    number = "an older certificate is" if len(entries) == 1 else f"{len(entries)} older certificates are"
    last = max(entry.not_after for entry in entries)
    return note(
        f"certificate {slug}",
        f"{number} valid in addition to the newest, until {rfc3339(last)} (serial {serials})",
        f"when it is no longer used: daskpki revoke {entries[0].serial:x} --reason superseded",
        topic="older certificates",
    )


def _subject(entry: CertificateRecord) -> str:
    return f"certificate {entry.slug}"


def _renew(entry: CertificateRecord) -> str:
    if entry.key_type == FROM_REQUEST:
        return "its owner runs daskpki request, and you run daskpki sign"
    return f"daskpki renew {entry.slug}"


FLOORS: Final = {"distributed": "2026.1.0", "cryptography": "46.0.6"}
_PEM: Final = "-----BEGIN"


def check_versions(installed: Mapping[str, str | None]) -> Iterator[Finding]:
    """Check installed versions; None for a distribution that is absent."""
    low = list(_too_old(installed))
    yield from low
    dask, distributed = installed.get("dask"), installed.get("distributed")
    if dask and distributed and parse(dask).release != parse(distributed).release:
        reason = f"dask {dask} and distributed {distributed} are of different releases"
        yield warning("dask", reason, f"pip install 'dask=={distributed}'")
    elif not low:
        yield ok("versions", ", ".join(f"{name} {version}" for name, version in installed.items() if version))


def _too_old(installed: Mapping[str, str | None]) -> Iterator[Finding]:
    for name, least in FLOORS.items():
        version = installed.get(name)
        if version is None:
            yield error(name, "is not installed", f"pip install '{name}>={least}'")
        elif parse(version) < parse(least):
            yield error(
                name, f"{version} has known security faults, which {least} fixes", f"pip install '{name}>={least}'"
            )


_TLS_FILES: Final = ("ca-file", *(f"{role}.{file}" for role in Role for file in ("cert", "key")))


def check_config(config: dict[str, Any]) -> Iterator[Finding]:
    """Check Dask's configuration from files and environment, without defaults."""
    from dask.config import get

    subject = "Dask's configuration"
    for name in _TLS_FILES:
        if _PEM in str(get(f"distributed.comm.tls.{name}", None, config)):  # Dask passes it on to other processes
            yield error(
                subject,
                f"distributed.comm.tls.{name} is PEM text: it reaches subprocesses by their environment, and is "
                "written to files",
                "remove it; daskpki login, or daskpki-entrypoint",
            )
    if get("distributed.comm.require-encryption", None, config) is False:
        reason = "distributed.comm.require-encryption is false: connections without TLS are accepted"
        yield error(subject, reason, "remove it, or set it to true")
    loader = get("distributed.client.security-loader", None, config)
    if loader not in (None, LOADER):
        yield warning(
            subject,
            f"distributed.client.security-loader is {loader}, so Client('tls://...') does not ask daskpki",
            "remove it, or use daskpki.connect()",
        )
    elif loader is None:
        yield note(
            subject,
            "no security-loader is set: Client('tls://...') does not find a credential by itself",
            "daskpki login --user-config sets it; daskpki.connect() works without",
        )
    else:
        yield ok(subject, "Client('tls://...') asks daskpki")


PUBLISH: Final = "daskpki renew --due"
"""Opens the CA's key, and so repairs unfinished work, even if no certificate is due."""

SIGN_ROOT: Final = "daskpki crl --offline-root FILE"


def check_crls(document: TrustDocument, now: float) -> Iterator[Finding]:
    """Check the CRLs: nodes refuse new peers after the expiry; commands re-sign after a third of the lifetime."""
    for part in document.crls:
        subject, end = f"CRL of CA generation {part.generation}", rfc3339(part.next_update)
        if now > part.next_update:
            yield error(subject, f"expired at {end}: nodes and people refuse every certificate", PUBLISH)
        elif now >= crl_due(part):
            yield warning(subject, f"a third of its life is past; it expires at {end}", PUBLISH)
        else:
            yield ok(subject, f"number {part.number}, valid until {end}")


def check_fill(document: TrustDocument) -> Iterator[Finding]:
    """Warn about a trust document half full; a payload has room for some 2,000 revoked certificates."""
    if fill(document) >= HALF_FULL:
        reason = f"it is {fill(document):.0%} full of revoked certificates; when it is full, nothing can be published"
        yield warning("trust document", reason, "daskpki rotate-ca --emergency")


def check_root_crls(document: TrustDocument, now: float) -> Iterator[Finding]:
    """Check the CRLs of offline roots, which nodes do not need, but software that checks whole chains does."""
    subject = "CRL of the offline root"
    if len(document.root_crls) < sum(bool(anchor.chain) for anchor in document.authorities):
        reason = "there is none, so software that checks every CA in a chain refuses the cluster's certificates"
        yield warning(subject, reason, SIGN_ROOT)
    for header in map(parse_header, document.root_crls):
        end = rfc3339(header.next_update)
        if is_root_crl_due(header, now):
            yield warning(subject, f"it {'expired' if now > header.next_update else 'expires'} at {end}", SIGN_ROOT)
        else:
            yield ok(subject, f"number {header.number}, valid until {end}")


def check_link(document: TrustDocument, head: Head, logged: str | None) -> Finding:
    """Compare the log with the signed trust document, which names a record by hash; `logged` is its hash now."""
    seq, promised = document.log
    if logged == promised:
        return ok("log", f"{head.seq} records, the chain is intact and matches the signed trust document")
    reason = f"record {seq} is not the one after which the trust document was signed: the log was rewritten"
    if logged is None:
        reason = (
            f"it ends at record {head.seq}, and the trust document was signed after record {seq}: records are missing"
        )
    return error("log", reason, "restore the store from a backup, and find out which accounts can write to it")


def check_anchor(basis: str, ca_sha256: str) -> Finding:
    """Report the anchor of the log (docs/explanation/anchors.md); on first use there is none."""
    if basis == "pin":
        return ok("log", f"judged by the pin: CA {ca_sha256}")
    if basis == "seen":
        return ok("log", "judged by the CA that this user has seen before")
    reason = f"nothing was known of this cluster here, so its own CA was trusted: SHA-256 {ca_sha256}"
    return note("log", reason, "compare it with what init-ca printed, or pin it: daskpki --ca-sha256 HEX doctor")


def check_unfinished(inventory: Inventory, now: float) -> Iterator[Finding]:
    """Report operations that a crash left unfinished; any command that opens the CA's key finishes them."""
    for entry in stale_reservations(inventory, now):
        yield warning(
            f"certificate {entry.slug}",
            f"serial {entry.serial:x} was reserved at {rfc3339(entry.reserved_at)} but never confirmed: the "
            "command was killed. It will be abandoned, and its serial revoked",
            f"{PUBLISH}; then, if still needed: daskpki issue {entry.role} --name {entry.name}",
            topic="reserved and not confirmed",
        )
    for entry in inventory.certificates(statuses=[REVOKING]):
        yield error(
            f"certificate {entry.slug}",
            f"serial {entry.serial:x} is being revoked, but this was not published: the command was interrupted",
            PUBLISH,
        )
    if inventory.published and not shows_authorities(inventory):
        yield error("trust document", "its CAs differ from those in the log: a command was interrupted", PUBLISH)
