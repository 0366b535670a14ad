"""`python -m tests.formats`: write the fixtures of the present formats, for a directory that has none of them yet.

They are kept as they were written, so that later releases prove that they can read them: a new format gets a new
directory beside `format-1`, and the old one stays. The keys in them were made for this and open nothing else.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.ca_keys import KeyLocations
from daskpki.authority.copy import copy_cluster
from daskpki.authority.creation import plan_ca
from daskpki.confidential import Confidential
from daskpki.credentials.contexts import Context, encode_context
from daskpki.credentials.saved_logins import Entry, encode_entry
from daskpki.identity import Role
from daskpki.pki.credential import parse_credential
from daskpki.records import EMPTY, Record
from daskpki.store.append_chain import Link
from daskpki.store.gsm.log_format import LogSegment, encode_part
from daskpki.store.local.backup import restore_backup, write_backup
from daskpki.store.local.store import LocalStore
from tests.support.gsm_places import open_place
from tests.support.local_places import LocalPlace

DATA: Final = Path(__file__).parent / "data" / "format-1"
MADE: Final = datetime(2026, 11, 24, tzinfo=UTC)
CLUSTER: Final = "kept"
PASSPHRASE: Final = Confidential("of the fixture")


def kept(root: Path, data: Path) -> LocalPlace:
    """The kept store, restored as its owner would."""
    place = LocalPlace(root)
    for name, target in (("store.backup", root / "store.backup"), ("store.key", place.key_file)):
        shutil.copyfile(data / name, target)
        target.chmod(0o600)
    restore_backup(root / "store.backup", place.directory, place.seen)
    return place


def main() -> None:
    """Write them all; an existing directory is left alone."""
    DATA.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        place = LocalPlace(Path(scratch))
        place.create().close()
        with closing(place.factory()) as store:
            live(store)
            payloads(store)
            records(store)
        write_backup(place.directory, DATA / "store.backup")
        shutil.copy(place.key_file, DATA / "store.key")
        (seen,) = place.seen.iterdir()
        shutil.copy(seen, DATA / "seen.json")


def live(store: LocalStore) -> None:
    """A short life: three leaves, one renewed, one revoked."""
    places = KeyLocations(seal=lambda: PASSPHRASE, unseal=lambda: PASSPHRASE)
    authority = CertificateAuthority(
        store, CLUSTER, who="ops@fixture", command="fixture", clock=lambda: MADE, places=places
    )
    authority.init(plan_ca(CLUSTER, permit_dns=["example.org"], max_ttl="90d"))
    for role, name, dns in ((Role.SCHEDULER, "s", ["s.example.org"]), (Role.WORKER, "w", []), (Role.CLIENT, "a", [])):
        list(authority.issue(authority.requests(role, [name], dns=dns)))
    list(authority.renew([authority.find("worker/w")]))
    authority.revoke("client/a", "keyCompromise")
    entries = [authority.describe(entry) for entry in authority.inventory().certificates()]
    expected = {"head": list(authority.inventory().head), "certificates": entries, "epoch": authority.trust().epoch}
    (DATA / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


def payloads(store: LocalStore) -> None:
    """What nodes and people read."""
    scheduler = store.secrets.latest(secret_names.credential_id(CLUSTER, Role.SCHEDULER, "s")).data
    trust = store.secrets.latest(secret_names.trust_id(CLUSTER)).data
    ca_key = store.secrets.latest(secret_names.ca_key_id(CLUSTER, 1)).data
    client = parse_credential(store.secrets.latest(secret_names.credential_id(CLUSTER, Role.CLIENT, "a")).data)
    context = Context(
        "local:", CLUSTER, "a", ("tls://10.0.0.5:8786",), client.leaf, tuple(client.chain), trust.reveal()
    )
    assert client.key is not None
    for name, data in (
        ("credential.json", scheduler.reveal()),
        ("trust.json", trust.reveal()),
        ("ca-key.json", ca_key.reveal()),
        ("login.json", encode_context(context)),
        ("login.entry", encode_entry(Entry(3, "ab" * 32, client.key)).reveal()),
    ):
        (DATA / name).write_bytes(data)


def records(store: LocalStore) -> None:
    """What Secret Manager keeps of the log: a head, and a sealed segment."""
    with open_place("grpc", None) as place, closing(place.factory()) as cloud:
        copy_cluster(store, cloud, CLUSTER)
        (DATA / "records.head").write_bytes(cloud.secrets.latest(secret_names.records_id(CLUSTER)).data.reveal())
    kept: tuple[Record, ...] = tuple(store.log(CLUSTER).records())
    segment = LogSegment(Link(0, 1, "fixture"), CLUSTER, EMPTY, kept)
    (DATA / "records.segment").write_bytes(encode_part(segment))


if __name__ == "__main__":
    main()
