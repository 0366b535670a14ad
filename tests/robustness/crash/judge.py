"""What a command left that was broken off: every next command works, nothing acknowledged is lost, nothing is torn.

- The same command runs again, at once, and another one ten minutes later, after which nothing is half done.
- What was acknowledged is in the inventory as it was, with its key; what was revoked stays so.
- The log holds as `daskpki audit --verify` sees it; each stored leaf has its serial in the log, and each serial that
  was reserved and never confirmed is on the CRL.
- Numbers (epoch, CRLNumber) did not go back, and a node that trusted what was there before follows all the way.
- A step of a rollover is where it should be, and no CA's key outlived its CA.
- No private key lies in any file in the clear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.authority.audit import verify_log
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.issuance import KEPT_VERSIONS
from daskpki.authority.lookup import living_authorities
from daskpki.identity import Role
from daskpki.inventory import CertificateRecord
from daskpki.pki.certificates import load_certificate
from daskpki.pki.credential import Credential, parse_credential
from daskpki.pki.crl import revoked_serials
from daskpki.pki.keys import serialize_key
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust_document import TrustDocument
from daskpki.records import ABANDONED, ISSUED, RESERVED, REVOKED, REVOKING
from daskpki.store.port import ENABLED, Store
from tests.support.crash_cases import Case, issue
from tests.support.key_search import Canary
from tests.support.rollovers import check_ended, followed

TEN_MINUTES: Final = timedelta(seconds=601)
_PLAIN: Final = (b"PRIVATE KEY-----", b"MIGHAgEAMBMGByqGSM49", bytes.fromhex("308187020100301306072a8648ce3d"))
"""How a P-256 key in PKCS#8 begins: as PEM, in base64, as DER. Also of keys that nobody knows any more."""


class Place(NamedTuple):
    """Where a case is played: how to open the store anew, the cluster, and the directories that may hold leftovers."""

    factory: Callable[[], Store]
    cluster: str
    directories: tuple[Path, ...] = ()


def trusted(place: Place) -> TrustDocument | None:
    """What the nodes of the cluster trust at present; None before the first document."""
    with closing(place.factory()) as store:
        return followed(store, place.cluster, None, datetime.now(UTC))


def judge(place: Place, case: Case, acknowledged: Iterable[CertificateRecord], before: TrustDocument | None) -> None:
    """Raise AssertionError, or what a next command raises, unless all is well."""
    now = datetime.now(UTC)
    with closing(place.factory()) as store:
        trust = followed(store, place.cluster, before, now)
        again = list(case.act(CertificateAuthority(store, place.cluster, clock=lambda: now)))
        trust = followed(store, place.cluster, trust, now)
    with closing(place.factory()) as store:
        later = CertificateAuthority(store, place.cluster, clock=lambda: now + TEN_MINUTES)
        last = list(case.act(later)) if case.ending else []  # for what a dead command had reserved until now
        last += issue(later, "after", Role.CLIENT)
        followed(store, place.cluster, trust, later.session.now())
        _check(later, [*acknowledged, *again, *last], before)
        if case.ending:
            check_ended(later, case.ending)
        _check_files(later, place)


def _check(
    authority: CertificateAuthority, acknowledged: list[CertificateRecord], before: TrustDocument | None
) -> None:
    verify_log(authority.session)
    view = authority.inventory()
    entries = {entry.serial: entry for entry in view.certificates()}
    unfinished = [entry for entry in entries.values() if entry.status in (RESERVED, REVOKING)]
    assert not unfinished, f"left half done: {unfinished}"
    for entry in acknowledged:
        assert entry.serial in entries, f"acknowledged and lost: {entry}"
        kept = entries[entry.serial]
        assert kept.fingerprint == entry.fingerprint, f"acknowledged and lost: {entry}"
        assert kept.version == entry.version
        assert kept.status == entry.status or (entry.status, kept.status) == (ISSUED, REVOKED), (entry, kept)
    trust = authority.trust()
    _check_numbers(trust, before)
    _check_crl(trust, entries.values())
    _check_stored(authority, entries)


def _check_numbers(trust: TrustDocument, before: TrustDocument | None) -> None:
    if before is not None:
        numbers = {part.generation: part.number for part in before.crls}
        assert trust.epoch >= before.epoch
        assert all(part.number >= numbers.get(part.generation, 1) for part in trust.crls)


def _check_crl(trust: TrustDocument, entries: Iterable[CertificateRecord]) -> None:
    listed = revoked_serials(trust)
    on_crl = {serial for revoked in listed.values() for serial in revoked}
    gone = {entry.serial for entry in entries if entry.status in (REVOKED, ABANDONED) and entry.issuer in listed}
    assert on_crl == gone


def _check_stored(authority: CertificateAuthority, entries: dict[int, CertificateRecord]) -> None:
    """Each stored leaf is known, and each issued one is stored with its key, save for those whose turn is long over."""
    stored: dict[int, tuple[str, bool]] = {}
    for credential in _credentials(authority):
        serial = load_certificate(credential.leaf).serial_number
        assert serial in entries, "signed, and never recorded"
        stored[serial] = (fingerprint(credential.leaf), credential.key is not None)
    for entry in entries.values():
        if entry.status == ISSUED and not _gave_way(authority, entry):
            assert stored.get(entry.serial) == (entry.fingerprint, True), f"issued, and not stored: {entry}"


def _gave_way(authority: CertificateAuthority, entry: CertificateRecord) -> bool:
    """Whether so many newer versions of its secret exist that this one may be destroyed."""
    secret = secret_names.credential_id(authority.session.cluster, Role(entry.role), entry.name)
    newest = max((version.number for version in authority.session.store.secrets.versions(secret)), default=0)
    return entry.superseded and entry.version is not None and entry.version <= newest - KEPT_VERSIONS


def _credentials(authority: CertificateAuthority) -> Iterator[Credential]:
    session = authority.session
    for role in Role:
        for info in session.store.secrets.select({"daskpki-cluster": session.cluster, "daskpki-kind": role.value}):
            for version in session.store.secrets.versions(info.id):
                if version.state == ENABLED:
                    yield parse_credential(session.store.secrets.access(info.id, version.number))


def _check_files(authority: CertificateAuthority, place: Place) -> None:
    """Keys that are known are looked for in all forms, and any other by how keys begin."""
    if not place.directories:
        return
    keys = {str(n): credential.key for n, credential in enumerate(_credentials(authority)) if credential.key}
    for entry in living_authorities(authority.inventory()):
        keys[f"CA {entry.generation}"] = serialize_key(authority.session.issuers(entry).key)
    assert not Canary(keys).in_files(place.directories)
    assert not plain_keys(place.directories)


def plain_keys(directories: Iterable[Path]) -> list[Path]:
    """The files in which some private key begins in the clear."""
    files = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if any(sign in path.read_bytes() for sign in _PLAIN)]
