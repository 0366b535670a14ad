"""A finding: how bad it is, what it is about, why, and the command that mends it. Pure.

This machine's clock against the one on the other side of the store. Pure.

Who may read which secret: the judgements of `daskpki grant --check`, as findings. Pure.

What is too wide for others is an error; that you read it yourself is a warning, since the owner of a project reads all
that is in it. What is too narrow is a warning, since a grant from above, which is not seen here, may make up for it.

By what a local store opens. Pure.

The versions of secrets: what every reader of `latest` stumbles over, and what lies about readable. Pure.

Who is logged in here, and whether that will hold. Pure.

How long the CA and every leaf still have, judged by the log. Pure.

A leaf is due once two thirds of its life are past, by the same rule as `daskpki renew --due`. What is in order is
summed up in one finding, since a cluster may have thousands of leaves.

What is installed here, and what Dask's configuration says. Pure.

The floors are security fixes: docs/adr/0002-dependencies.md.

What nodes rely on: the trust document's CRLs, its link to the log, and operations that stopped half-way. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from daskpki import grants
from daskpki.authority.renewal import is_due
from daskpki.authority.repair import ABANDON_AFTER, shows_authorities
from daskpki.errors import DaskpkiError, NotTrustedError, UnavailableError
from daskpki.grants import UNSEEN
from daskpki.inventory import EXPIRED, FROM_REQUEST, SUPERSEDED, CertificateRecord, Inventory
from daskpki.pki.crl import parse_header
from daskpki.pki.profile import Lifetime
from daskpki.pki.trust_document import HALF_FULL, CrlPart, TrustDocument, fill
from daskpki.quoting import rfc3339
from daskpki.records import ISSUED, RESERVED, REVOKING, Head
from daskpki.settings import GsmUrl
from daskpki.store.port import DESTROYED, ENABLED, Version

MOST_OF_A_TOPIC: Final = 5


class Severity(StrEnum):
    """From what is as it should be to what is broken or unsafe now."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One answer. `remedy` is a command or a sentence, None where nothing is to do; `temporary` errors may pass.

    `topic` is what many findings of one kind have in common, for those who want the gist.
    """

    severity: Severity
    subject: str
    reason: str
    remedy: str | None = None
    temporary: bool = False
    topic: str | None = None

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "severity": self.severity.value,
            "subject": self.subject,
            "reason": self.reason,
            "remedy": self.remedy,
        }


def ok(subject: str, reason: str) -> Finding:
    """It is as it should be."""
    return Finding(Severity.OK, subject, reason)


def note(subject: str, reason: str, remedy: str | None = None, *, topic: str | None = None) -> Finding:
    """Worth knowing: a choice, or something that could not be seen."""
    return Finding(Severity.NOTE, subject, reason, remedy, topic=topic)


def warning(subject: str, reason: str, remedy: str | None = None, *, topic: str | None = None) -> Finding:
    """It works, and will not for long, or is weaker than it should be."""
    return Finding(Severity.WARNING, subject, reason, remedy, topic=topic)


def error(subject: str, reason: str, remedy: str | None = None, *, topic: str | None = None) -> Finding:
    """It is broken or unsafe now."""
    return Finding(Severity.ERROR, subject, reason, remedy, topic=topic)


def of_error(subject: str, failure: DaskpkiError) -> Finding:
    """What a failure to look means: daskpki's errors name cause and way out themselves."""
    temporary = isinstance(failure, UnavailableError)
    return Finding(Severity.ERROR, subject, str(failure), failure.hint, temporary)


def gist(findings: Sequence[Finding], most: int = MOST_OF_A_TOPIC) -> list[Finding]:
    """The findings with no more than `most` of a topic and severity; the last of them says how many more there are."""
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
    """0 while nothing is worse than a warning, 75 when all errors are temporary ones, 3 otherwise."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return 0
    return UnavailableError.exit_code if all(each.temporary for each in errors) else NotTrustedError.exit_code


_NOTICEABLE: Final = 5.0
_HARMFUL: Final = 60.0
"""Seconds from which a fresh certificate may not be valid yet here, or a boot waits for the clock."""
_REMEDY: Final = "chronyc makestep, and see that a time server is reachable"


def check_clock(ahead: float | None) -> Finding:
    """`ahead` is by how many seconds this clock is ahead of the other, None when there was none to compare with."""
    subject = "clock"
    if ahead is None:
        return note(subject, "not compared: nothing that answers here tells its time")
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


def check_access(judged: Iterable[grants.Finding], url: GsmUrl) -> Iterator[Finding]:
    """The findings about a cluster's policies, and what could not be seen."""
    found = [_finding(each) for each in judged]
    yield from found or [ok("grants", "each credential is read by one, and no CA key by a node")]
    yield note("grants", f"not seen: {UNSEEN}", f"gcloud projects get-ancestors-iam-policy {url.project}")


def _finding(judged: grants.Finding) -> Finding:
    whom = f"{judged.member}: " if judged.member else ""
    severity = _SEVERITY[judged.severity] if judged.member else Severity.WARNING
    return Finding(
        severity, judged.secret, f"{judged.severity}: {whom}{judged.reason}", judged.mend, topic=judged.severity
    )


_LOSS: Final = {
    "keyring": "the OS keyring of this user",
    "passphrase": "one passphrase",
    "keyfile": "one key file",
    "recovery": "a recovery code",
}


def check_slots(kinds: Sequence[str]) -> Iterator[Finding]:
    """A store with one way in is one loss away from the loss of its CA."""
    subject = "key slots"
    if len(kinds) == 1:
        way = _LOSS.get(kinds[0], kinds[0])
        yield warning(subject, f"the store opens by {way} only: who loses it loses the CA", "daskpki slot add recovery")
    elif "recovery" not in kinds:
        yield note(subject, f"{len(kinds)} ways in, no recovery code among them", "daskpki slot add recovery")
    else:
        yield ok(subject, f"{len(kinds)} ways in: {', '.join(kinds)}")


MANY: Final = 20
"""Versions of one secret that are paid for, beyond which something does not clean up."""

Remedy = Callable[[str, str, Sequence[int]], "str | None"]
"""The command for a verb (enable, destroy), a secret and version numbers; None where the store has none."""


def check_newest(secret: str, versions: Sequence[Version], remedy: Remedy, anew: str | None) -> Iterator[Finding]:
    """`latest` is the highest number in any state, so one that is not enabled stops every reader.

    `anew` is the command that adds a version, None where only a backup has what was in it.
    """
    newest = max(versions, key=lambda version: version.number, default=None)
    if newest is None:
        yield error(secret, "it has no version: nothing was ever put in", anew)
    elif newest.state == DESTROYED:
        reason = f"its newest version, {newest.number}, is destroyed: every reader fails"
        yield error(secret, reason, anew or "restore it from a backup")
    elif newest.state != ENABLED:
        yield error(
            secret,
            f"its newest version, {newest.number}, is disabled: every reader fails",
            remedy("enable", secret, [newest.number]),
        )


def check_recorded(secret: str, versions: Sequence[Version], entry: CertificateRecord | None) -> Iterator[Finding]:
    """The newest version is the one that the log confirms; any other was added by a command that died, or by others."""
    newest = max((version.number for version in versions), default=None)
    recorded = None if entry is None else entry.version
    if newest is not None and newest != recorded:
        slug = f"{entry.role}/{entry.name}" if entry else "ROLE/NAME"
        yield warning(
            secret,
            f"its newest version, {newest}, is not the one that the log confirms ({recorded or 'none'}): a command "
            "died before it was done, or somebody else added it",
            f"daskpki renew {slug}" if entry else None,
        )


def check_superseded(secret: str, versions: Sequence[Version], remedy: Remedy) -> Iterator[Finding]:
    """Old keys that whoever may read the secret can still read by number."""
    numbers = sorted(version.number for version in versions if version.state == ENABLED)[:-1]
    if numbers:
        listed = ", ".join(map(str, numbers))
        yield note(
            secret,
            f"superseded and still readable: version {listed}",
            remedy("destroy", secret, numbers),
            topic="old versions",
        )


def check_number(secret: str, versions: Sequence[Version]) -> Iterator[Finding]:
    """Every version that is not destroyed is paid for, and counts against nobody's needs."""
    active = [version for version in versions if version.state != DESTROYED]
    if len(active) > MANY:
        yield warning(secret, f"{len(active)} versions are active, each of them paid for by the month")


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
        return warning(subject, f"past two thirds of its life; it ends at {rfc3339(end)}", remedy)
    if seen.newest is not None and seen.epoch < seen.newest:
        reason = f"it knows trust epoch {seen.epoch}, and the store has {seen.newest}: later revocations are not known"
        return note(subject, reason, again)
    return ok(subject, f"valid until {rfc3339(end)}")


def check_keyring(failure: DaskpkiError | None, *, needed: bool) -> Iterator[Finding]:
    """A keyring that does not work is an error only for those who keep something in it."""
    if failure is None:
        yield ok("keyring", "answers, and is one that encrypts what it keeps")
    else:
        severity = Severity.ERROR if needed else Severity.NOTE
        yield of_error("keyring", failure)._replace(severity=severity)


_ROTATE: Final = "daskpki rotate-ca start"


def check_authority(generation: int, lifetime: Lifetime, now: float) -> Finding:
    """The end of a CA's certificate, which leaves cannot outlive."""
    subject = f"CA generation {generation}"
    begin, end = lifetime
    if now > end:
        return error(subject, f"its certificate expired at {rfc3339(end)}, and every leaf with it", _ROTATE)
    if now >= begin + (end - begin) * 2 / 3:
        return warning(subject, f"two thirds of its life are past; it ends at {rfc3339(end)}", _ROTATE)
    return ok(subject, f"valid until {rfc3339(end)}")


def check_leaves(entries: Iterable[CertificateRecord], living: Collection[int], now: float) -> Iterator[Finding]:
    """What expired or comes from a CA that is not among the living, what is due, and older leaves that still count."""
    valid: list[CertificateRecord] = []
    older: dict[str, list[CertificateRecord]] = {}
    for entry in entries:
        state = entry.state(now)
        if state == SUPERSEDED:
            if entry.issuer in living:
                older.setdefault(_slug(entry), []).append(entry)
        elif state == EXPIRED and not entry.superseded:
            yield error(_subject(entry), f"expired at {rfc3339(entry.not_after)}", _renew(entry), topic="expired")
        elif state == ISSUED and entry.issuer not in living:
            reason = f"comes from CA {entry.issuer}, which was dropped, so nobody trusts it"
            yield error(_subject(entry), reason, _renew(entry), topic="of a dropped CA")
        elif state == ISSUED and is_due(entry, now):
            reason = f"past two thirds of its life; it ends at {rfc3339(entry.not_after)}"
            yield warning(_subject(entry), reason, _renew(entry), topic="due")
        elif state == ISSUED:
            valid.append(entry)
    yield from _in_order(valid)
    yield from (_still_valid(slug, entries) for slug, entries in older.items())


def _in_order(valid: list[CertificateRecord]) -> Iterator[Finding]:
    if valid:
        first = min(valid, key=lambda entry: entry.not_after)
        yield ok(
            "certificates", f"{len(valid)} in order; the first to end is {_slug(first)}, {rfc3339(first.not_after)}"
        )


def _still_valid(slug: str, entries: list[CertificateRecord]) -> Finding:
    serials = ", ".join(f"{entry.serial:x}" for entry in entries)
    number = "an older certificate is" if len(entries) == 1 else f"{len(entries)} older certificates are"
    last = max(entry.not_after for entry in entries)
    return note(
        f"certificate {slug}",
        f"{number} valid besides the newest, until {rfc3339(last)} (serial {serials})",
        f"once nobody uses it any more: daskpki revoke {entries[0].serial:x} --reason superseded",
        topic="older certificates",
    )


def _slug(entry: CertificateRecord) -> str:
    return f"{entry.role}/{entry.name}"


def _subject(entry: CertificateRecord) -> str:
    return f"certificate {_slug(entry)}"


def _renew(entry: CertificateRecord) -> str:
    if entry.key_type == FROM_REQUEST:
        return "its holder runs daskpki request, and you daskpki sign"
    return f"daskpki renew {_slug(entry)}"


FLOORS: Final = {"distributed": (2026, 1, 0), "cryptography": (46, 0, 6)}
LOADER: Final = "daskpki.loader.security_loader"
_PEM: Final = "-----BEGIN"


def check_versions(installed: Mapping[str, str | None]) -> Iterator[Finding]:
    """`installed` has the version of each distribution, None where it is absent."""
    low = list(_too_old(installed))
    yield from low
    dask, distributed = installed.get("dask"), installed.get("distributed")
    if dask and distributed and _numbers(dask)[:3] != _numbers(distributed)[:3]:
        reason = f"dask {dask} and distributed {distributed} are of different releases"
        yield warning("dask", reason, f"pip install 'dask=={distributed}'")
    elif not low:
        yield ok("versions", ", ".join(f"{name} {version}" for name, version in installed.items() if version))


def _too_old(installed: Mapping[str, str | None]) -> Iterator[Finding]:
    for name, floor in FLOORS.items():
        version, least = installed.get(name), ".".join(map(str, floor))
        if version is None:
            yield error(name, "is not installed", f"pip install '{name}>={least}'")
        elif _numbers(version) < floor:
            yield error(name, f"{version} has known security faults; {least} has not", f"pip install '{name}>={least}'")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def check_config(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Dask's configuration as files and environment set it, keys by dots and with `-`; defaults are not in it."""
    yield from _check_keys(config)
    if config.get("distributed.comm.require-encryption") is False:
        reason = "distributed.comm.require-encryption is false: connections without TLS are accepted"
        yield error("Dask's configuration", reason, "remove it, or set it to true")
    loader = config.get("distributed.client.security-loader")
    if loader not in (None, LOADER):
        yield warning(
            "Dask's configuration",
            f"distributed.client.security-loader is {loader}, so Client('tls://...') does not ask daskpki",
            "remove it, or use daskpki.connect()",
        )
    elif loader is None:
        yield note(
            "Dask's configuration",
            "no security-loader is set: Client('tls://...') does not find a credential by itself",
            "daskpki login --user-config sets it; daskpki.connect() works without",
        )
    else:
        yield ok("Dask's configuration", "Client('tls://...') asks daskpki")


def _check_keys(config: Mapping[str, Any]) -> Iterator[Finding]:
    """A key as text in the configuration goes wherever the configuration goes."""
    for name, value in sorted(config.items()):
        if name.startswith("distributed.comm.tls.") and isinstance(value, str) and _PEM in value:
            yield error(
                "Dask's configuration",
                f"{name} holds PEM text: it is passed to subprocesses by their environment, and written to files",
                "remove it; daskpki login, or daskpki-entrypoint",
            )


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration by dotted names; `_` and `-` are the same to Dask."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{str(key).replace('_', '-')}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


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
            subject, f"ran out at {rfc3339(part.next_update)}: nodes and people refuse every certificate", PUBLISH
        )
    if now >= part.this_update + (part.next_update - part.this_update) // 3:
        return warning(subject, f"a third of its life is past; it runs out at {rfc3339(part.next_update)}", PUBLISH)
    return ok(subject, f"number {part.number}, good until {rfc3339(part.next_update)}")


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
        end = rfc3339(header.next_update)
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
        f"serial {entry.serial:x} was reserved at {rfc3339(entry.reserved_at)} and never confirmed: the command died. "
        "It will be given up, and its serial revoked",
        f"{PUBLISH}; then, if it is still wanted: daskpki issue {entry.role} --name {entry.name}",
        topic="reserved and not confirmed",
    )
