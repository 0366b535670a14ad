"""Reads a cluster in its store for the checks: each function reads one part, and raises if it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any, Final

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.lookup import living_authorities
from daskpki.authority.renewal import renewable
from daskpki.credentials.sources import fetch_trust
from daskpki.credentials.verified import Pins
from daskpki.doctor import checks
from daskpki.doctor.checks import Finding, error, note, ok, warning
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError
from daskpki.identity import Role
from daskpki.inventory import Inventory
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.crl import revoked_serials
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust import verify_trust
from daskpki.pki.trust_document import TrustDocument
from daskpki.quoting import rfc3339
from daskpki.records import EMPTY
from daskpki.settings import GsmUrl, parse_store_url
from daskpki.store.port import SecretInfo
from daskpki.user_secrets import ClusterSecrets

MOST: Final = 300
"""Secrets whose versions are listed: a project answers 600 such requests a minute, and others need some too."""


class Cluster:
    """One cluster in its store; everything is read once."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority
        self.session = authority.session
        self.now = self.session.now().timestamp()
        self.basis = self.session.anchor.basis
        """Anchor of the log: `pin`, `seen` or `first use`; taken first, since a read turns `first use` into `seen`."""
        parsed = parse_store_url(self.session.store.url)
        self.gsm = parsed if isinstance(parsed, GsmUrl) else None

    @cached_property
    def inventory(self) -> Inventory:
        """The inventory; NotFoundError when the log is empty."""
        found = self._authority.inventory()
        if found.head == EMPTY:
            raise NotFoundError(
                f"cluster {self.session.cluster!r} has no CA in this store", hint="daskpki init-ca makes one"
            )
        return found

    @cached_property
    def is_log_closed(self) -> bool:
        """True if this user may read the trust document but not the log, like nodes and clients."""
        try:
            _ = self.inventory
        except AccessDeniedError:
            with suppress(DaskpkiError):
                return self.trust.epoch > 0
        except DaskpkiError:
            return False
        return False

    @cached_property
    def trust(self) -> TrustDocument:
        """The trust document, verified by the CAs in the log, or by its own CA if we may not read the log."""
        try:
            return self._authority.trust()
        except AccessDeniedError:
            session = self.session
            signed = fetch_trust(session.store, session.cluster, pins=Pins(), now=session.now()).signed
            return verify_trust(signed, cluster=session.cluster, now=session.now())

    @cached_property
    def secrets(self) -> list[SecretInfo]:
        """The cluster's secrets that are checked, shared ones first."""
        marks = {"managed-by": "daskpki", "daskpki-cluster": self.session.cluster}
        roles = set(Role)
        found = sorted(self.session.store.secrets.select(marks), key=lambda info: self.kind_and_name(info)[0] in roles)
        self.passed_over = max(0, len(found) - MOST)
        return found[:MOST]

    passed_over = 0

    def kind_and_name(self, info: SecretInfo) -> tuple[str, str]:
        """The kind and name of a secret."""
        return secret_names.kind_and_name(self.session.cluster, info.id)

    def remedy(self, verb: str, secret: str, numbers: Sequence[int]) -> str | None:
        """The command that changes versions; None on a local store, where only daskpki itself changes them."""
        if self.gsm is None:
            return None
        place = f" --location={self.gsm.location}" if self.gsm.location else ""
        where = f"--secret={secret} --project={self.gsm.project}{place}"
        return "; ".join(f"gcloud secrets versions {verb} {number} {where}" for number in numbers)


def examine_store(cluster: Cluster) -> Iterator[Finding]:
    """Check that the store answers, and the key slots of a local one."""
    store: Any = cluster.session.store
    if store.url.startswith("local:"):
        yield from checks.check_slots([slot.kind for slot in store.slots.list()])
    head = cluster.inventory.head
    yield ok("store", f"{store.url} answers; cluster {cluster.session.cluster!r} has {head.seq} records")


def report_closed_log(cluster: Cluster) -> Iterator[Finding]:
    """Report what cannot be checked without an operator's grants."""
    store = cluster.session.store
    yield ok("store", f"{store.url} answers")
    yield note(
        "log",
        "you may not read it, so the CA, certificates, versions and grants were not checked",
        "ask an operator to run daskpki doctor",
    )


def examine_authorities(cluster: Cluster) -> Iterator[Finding]:
    """Check when each certificate of each CA expires."""
    living = living_authorities(cluster.inventory)
    if len(living) > 1:
        yield note("CA", "a rollover is under way: nodes trust more than one CA", "daskpki rotate-ca status")
    for entry in living:
        for certificate in (*entry.chain_der, entry.anchor_der):
            yield checks.check_authority(entry.generation, lifetime(load_certificate(certificate)), cluster.now)


def examine_leaves(cluster: Cluster) -> Iterator[Finding]:
    """Check every leaf in the log."""
    living = {entry.generation for entry in living_authorities(cluster.inventory)}
    yield from checks.check_leaves(cluster.inventory.certificates(), living, cluster.now)


def examine_trust(cluster: Cluster) -> Iterator[Finding]:
    """Check the trust document: signature, and CRLs complete and current."""
    revoked = revoked_serials(cluster.trust)
    number = len({serial for serials in revoked.values() for serial in serials})
    yield ok("trust document", f"epoch {cluster.trust.epoch}, signature and CRLs verified, {number} revoked")
    yield from checks.check_fill(cluster.trust)
    yield from checks.check_crls(cluster.trust, cluster.now)
    yield from checks.check_root_crls(cluster.trust, cluster.now)


def examine_log(cluster: Cluster) -> Iterator[Finding]:
    """Check the whole log from its first record, its link to the trust document, and the anchor of both."""
    head = cluster.session.log.authenticate()
    seq = cluster.trust.log[0]
    records = cluster.session.log.records(after=max(seq - 1, 0))
    logged = next((record.hash for record in islice(records, 1)), None)
    yield checks.check_link(cluster.trust, head, EMPTY.hash if seq == 0 else logged)
    yield checks.check_anchor(cluster.basis, fingerprint(cluster.trust.active.certificate))


def examine_versions(cluster: Cluster) -> Iterator[Finding]:
    """Check the versions of every secret."""
    for info in cluster.secrets:
        kind, name = cluster.kind_and_name(info)
        versions = list(cluster.session.store.secrets.versions(info.id))
        yield from checks.check_newest(info.id, versions, cluster.remedy, _command_to_add(kind, name))
        if kind in set(Role):
            entry = cluster.inventory.current(kind, name)
            yield from checks.check_recorded(info.id, versions, entry)
            if cluster.gsm is not None:  # a local store is unlocked as a whole, old keys or new
                yield from checks.check_superseded(info.id, versions, cluster.remedy)
    if cluster.passed_over:
        yield note("versions", f"not checked for {cluster.passed_over} further secrets: at most {MOST} are checked")


def examine_missing(cluster: Cluster) -> Iterator[Finding]:
    """Check for valid leaves whose secret is gone, so that boot and login fail."""
    here = {info.id for info in cluster.secrets}
    for entry in () if cluster.passed_over else renewable(cluster.inventory):
        secret = secret_names.credential_id(cluster.session.cluster, Role(entry.role), entry.name)
        if secret not in here and entry.not_after >= cluster.now and _is_gone(cluster, secret):
            slug = entry.slug
            yield error(secret, f"{slug} was issued, but its secret is gone", f"daskpki renew {slug}")


def _is_gone(cluster: Cluster, secret: str) -> bool:
    """Ask for the secret by name, since lists lag behind."""
    try:
        cluster.session.store.secrets.describe(secret)
    except NotFoundError:
        return True
    return False


def _command_to_add(kind: str, name: str) -> str | None:
    """The command that adds a version to a secret of that kind and name."""
    if kind in set(Role):
        return f"daskpki renew {kind}/{name}"
    return f"daskpki secret set {name} --file FILE" if kind == secret_names.SECRET else None


def examine_reminders(cluster: Cluster) -> Iterator[Finding]:
    """Check the cluster's other secrets: expired, or due for a new value."""
    session = cluster.session
    secrets = ClusterSecrets(session.store, session.cluster, who=session.who, command=session.command)
    for name, _, ends, rotate_by in secrets.all():
        subject, again = f"secret {name}", f"daskpki secret set {name} --file FILE"
        if ends is not None and ends < cluster.now:
            yield error(subject, f"expired at {rfc3339(ends)}, and can no longer be read", again)
        elif rotate_by is not None and rotate_by < cluster.now:
            yield warning(subject, f"rotation overdue since {rfc3339(rotate_by)}", again)


def examine_grants(cluster: Cluster) -> Iterator[Finding]:
    """Check the IAM policies of the secrets."""
    if cluster.gsm is None:
        yield note("grants", "not applicable: a local store is unlocked as a whole")
        return
    from daskpki.grants import Grants
    from daskpki.store.gsm.store import GsmStore

    assert isinstance(cluster.session.store, GsmStore)
    yield from checks.check_access(Grants(cluster.session.store, cluster.session.cluster).check(), cluster.gsm)
