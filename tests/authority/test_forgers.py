"""A forger with each single permission, and a thief of the old CA key, against every command that changes something."""

from __future__ import annotations

import base64
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daskpki import CertificateAuthority, secret_names
from daskpki.authority.audit import verify_log
from daskpki.authority.ca_keys import KeyLocations
from daskpki.authority.copy import copy_cluster
from daskpki.authority.crl import kept_crls
from daskpki.authority.rollover import Successor
from daskpki.confidential import Confidential
from daskpki.credentials.sources import fetch_credential
from daskpki.credentials.verified import Pins
from daskpki.errors import CorruptError, DaskpkiError, NotTrustedError, PolicyError
from daskpki.identity import Identity, Role
from daskpki.pki.certificates import der
from daskpki.pki.credential import Credential, encode_credential
from daskpki.pki.csr import create_request, parse_request
from daskpki.pki.issuer import Issuer, issue_leaf
from daskpki.pki.keys import KeyType, generate_key, serialize_key
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import LeafRequest, make_policy
from daskpki.pki.trust_document import TrustDocument
from daskpki.records import chain, encode_signatures
from daskpki.store.gsm.log_format import LogHead, decode_part
from daskpki.store.local.backup import restore_backup, write_backup
from daskpki.store.local.store import LocalStore
from daskpki.store.port import Store
from tests.support import forging
from tests.support.fragile import BEFORE, FragileStore, Fuse, Killed
from tests.support.gsm_places import GsmPlace, open_place
from tests.support.local_places import LocalPlace
from tests.support.nightly import sample


def utc_now() -> datetime:
    return datetime.now(UTC)


def opened(store: Store, **more: Any) -> CertificateAuthority:
    return CertificateAuthority(store, clock=utc_now, **more)


@pytest.fixture
def place() -> Iterator[GsmPlace]:
    with open_place("grpc", None) as place:
        yield place


@pytest.fixture
def serial(place: GsmPlace) -> int:
    """That of a leaf whose key was stolen, in a cluster with one more leaf."""
    with closing(place.factory()) as store:
        return found(store)


def found(store: Store) -> int:
    ca = opened(store)
    ca.init()
    list(ca.issue(ca.requests(Role.WORKER, ["a", "b", "held"])))
    ca.revoke("worker/held", "certificateHold")
    (revoked,) = ca.revoke("worker/a", "keyCompromise")
    return revoked.serial


def start(ca: CertificateAuthority) -> None:
    ca.rollover().start(Successor())


def promote(ca: CertificateAuthority) -> None:
    start(ca)
    ca.rollover().promote()


def finish(ca: CertificateAuthority) -> None:
    promote(ca)
    list(ca.rollover().reissue())
    ca.rollover().finish()


def abort(ca: CertificateAuthority) -> None:
    start(ca)
    ca.rollover().abort()


def sign(ca: CertificateAuthority) -> None:
    (leaf,) = ca.requests(Role.CLIENT, ["alice"])
    data = create_request(generate_key(KeyType.P256), "default", leaf.identity)
    ca.sign_request(leaf, parse_request(data))


def copy(ca: CertificateAuthority) -> None:
    """Copy the cluster, and revoke in the copy, as somebody who knows its CA."""
    session, pin = ca.session, fingerprint(ca.trust().active.certificate)
    with tempfile.TemporaryDirectory() as directory, closing(LocalPlace(Path(directory)).create()) as target:
        copy_cluster(session.store, target, session.cluster, ca_sha256=pin)
        copied = opened(target, ca_sha256=pin)
        copied.revoke("worker/b")
        verify_log(copied.session)


COMMANDS: dict[str, Callable[[CertificateAuthority], object]] = {
    "issue": lambda ca: list(ca.issue(ca.requests(Role.CLIENT, ["eve"]))),
    "renew --due": lambda ca: list(ca.renew(ca.due())),
    "renew": lambda ca: list(ca.renew([ca.find("worker/b")])),
    "revoke": lambda ca: ca.revoke("worker/b"),
    "release": lambda ca: ca.release("worker/held"),
    "sign": sign,
    "crl": lambda ca: kept_crls(ca.trust()),
    "copy": copy,
    "announce": lambda ca: ca.announce("tls://10.0.0.5:8786"),
    "rotate-ca start": start,
    "rotate-ca promote": promote,
    "rotate-ca finish": finish,
    "rotate-ca abort": abort,
    "rotate-ca --emergency": lambda ca: ca.rollover().emergency(Successor()),
}


def check(ca: CertificateAuthority, serial: int) -> TrustDocument:
    """Whatever was forged is in nothing that the CA says."""
    trust = ca.trust()
    assert trust.epoch < 30
    assert "gsm://mallory" not in {entry.key_uri for entry in ca.inventory().authorities()}
    entry = ca.inventory().certificate(serial)
    assert entry is not None
    assert (entry.status, entry.reason) == ("revoked", "keyCompromise")
    verify_log(ca.session)
    return trust


@pytest.mark.parametrize("command", sample(list(COMMANDS), one_of=6))
@pytest.mark.parametrize("attack", ["a CA", "a release", "a publication"])
def test_a_version_of_records_without_the_ca_s_signature_changes_nothing(
    place: GsmPlace, serial: int, attack: str, command: str
) -> None:
    with closing(place.factory()) as store:
        number = forging.append(store.secrets, forging.drafts_of(attack, serial))
    with closing(place.factory()) as store:
        ca = opened(store)
        COMMANDS[command](ca)
        check(ca, serial)
        log: Any = store.log("default")
        assert number in log._chain.foreign or number in range(1, log._tip.head.number)


@pytest.mark.parametrize("attack", ["a CA", "a release", "a publication"])
def test_the_same_commit_signed_by_the_ca_counts(place: GsmPlace, serial: int, attack: str) -> None:
    """The control: what keeps the forged ones out is the signature alone."""
    with closing(place.factory()) as store:
        ca = opened(store)
        drafts = forging.drafts_of(attack, serial)
        forging.append(store.secrets, drafts, forging.signed_by(ca.issuer()))
    with closing(place.factory()) as store:
        assert opened(store).inventory().head.seq == list(opened(store).session.log.records())[-1].seq
        kinds = [record.kind for record in opened(store).session.log.records()]
        assert kinds[-len(drafts) :] == [draft.kind for draft in drafts]


SIGNATURES: dict[str, Callable[[CertificateAuthority], forging.Signing]] = {
    "none": lambda _ca: lambda _records, _place: None,
    "an empty list": lambda _ca: lambda _records, _place: (),
    "the forger's CA, in its own name": lambda _ca: forging.signed_by(forging.own_ca()),
    "the forger's CA, in the CA's name": lambda _ca: forging.signed_by(forging.own_ca(1)),
    "one over another commit": lambda ca: lambda _records, _place: list(ca.session.log.records())[-1].signatures,
}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_no_other_signature_makes_a_commit_count(place: GsmPlace, serial: int, signature: str) -> None:
    with closing(place.factory()) as store:
        forging.append(store.secrets, forging.new_ca(forging.own_ca()), SIGNATURES[signature](opened(store)))
    with closing(place.factory()) as store:
        check(opened(store), serial)


def test_a_true_head_with_another_header_does_not_count(place: GsmPlace, serial: int) -> None:
    """State, segments and link are in no record, and under the signature of the last commit all the same."""
    with closing(place.factory()) as store:
        head = decode_part(store.secrets.latest(forging.RECORDS).data.reveal())
        assert isinstance(head, LogHead)
        changes: list[dict[str, Any]] = [
            {},
            {"state": head.state._replace(published={"epoch": forging.GREATEST})},
            {"leftover": tuple(range(1, 9))},
        ]
        numbers = [forging.append(store.secrets, [], **change) for change in changes]
    with closing(place.factory()) as store:
        ca = opened(store)
        ca.revoke("worker/b")
        now = decode_part(store.secrets.latest(forging.RECORDS).data.reveal())
        assert now.link.seq == head.link.seq + 2
        assert store.secrets.access(forging.RECORDS, numbers[0] - 1), "nothing was destroyed by their word"
        check(ca, serial)


def test_an_old_head_that_is_added_again_hides_nothing(place: GsmPlace) -> None:
    with closing(place.factory()) as store:
        ca = opened(store)
        ca.init()
        old = store.secrets.latest(forging.RECORDS).data
        list(ca.issue(ca.requests(Role.WORKER, ["a"])))
        end = ca.inventory().head
        for _ in range(2):
            store.secrets.add(forging.RECORDS, old)
    with closing(place.factory()) as store:
        assert opened(store).inventory().head == end


FORGED_TRUST: dict[str, Callable[[Store], Confidential]] = {
    "no document": lambda _: Confidential(b"{"),
    "a newer format": lambda store: Confidential(store.secrets.latest(forging.TRUST).data.reveal().replace(b"1", b"9")),
    "a false signature in the CA's name": lambda store: forging.own_trust(
        store.secrets, forging.own_ca(1), epoch=forging.GREATEST
    ),
    "the forger's own CA": lambda store: forging.own_trust(store.secrets, forging.own_ca(), epoch=forging.GREATEST),
}


@pytest.mark.parametrize("command", ["issue", "renew --due", "revoke", "announce", "rotate-ca start"])
@pytest.mark.parametrize("forged", FORGED_TRUST)
def test_a_forged_trust_document_stops_nobody_who_has_an_anchor(
    place: GsmPlace, serial: int, forged: str, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(place.factory()) as store:
        pin = fingerprint(opened(store).trust().active.certificate)
        number = store.secrets.add(forging.TRUST, FORGED_TRUST[forged](store))
    with closing(place.factory()) as store, caplog.at_level(logging.WARNING):
        ca = opened(store, ca_sha256=pin)
        COMMANDS[command](ca)
        check(ca, serial)
    assert f"version {number} does not count" in caplog.text
    assert f"gcloud secrets versions destroy {number} --secret={forging.TRUST}" in caplog.text


def test_two_roots_and_no_anchor_are_not_chosen_between(place: GsmPlace, serial: int) -> None:
    mallory = forging.own_ca()
    with closing(place.factory()) as store:
        mine = fingerprint(opened(store).trust().active.certificate)
        store.secrets.add(forging.TRUST, forging.own_trust(store.secrets, mallory, epoch=99))
    with closing(place.factory()) as store:
        with pytest.raises(NotTrustedError, match="two CAs claim cluster") as refused:
            opened(store).revoke("worker/b")
        assert mine in str(refused.value)
        assert fingerprint(der(mallory.root)) in str(refused.value)
        assert "--ca-sha256" in str(refused.value.hint)
        assert refused.value.exit_code == 3
    with closing(place.factory()) as store:
        check(opened(store, ca_sha256=mine), serial)


def test_a_thief_of_the_old_key_is_not_followed(place: GsmPlace, serial: int) -> None:
    with closing(place.factory()) as store:
        ca = opened(store)
        stolen = ca.issuer()
        ca.rollover().emergency(Successor())
        pin = fingerprint(ca.trust().active.certificate)
        forging.append(store.secrets, forging.new_ca(forging.own_ca(3)), forging.signed_by(stolen))
        store.secrets.add(forging.TRUST, forging.own_trust(store.secrets, stolen, epoch=20))
    with closing(place.factory()) as store, pytest.raises(NotTrustedError, match="two CAs claim"):
        opened(store).trust()
    with closing(place.factory()) as store:
        ca = opened(store, ca_sha256=pin)
        ca.revoke("worker/b")
        assert [anchor.generation for anchor in check(ca, serial).authorities] == [2]


@pytest.mark.parametrize("attack", ["a CA", "a release", "a publication"])
def test_what_a_thief_of_the_old_key_signs_after_the_emergency_changes_nothing(
    place: GsmPlace, serial: int, attack: str
) -> None:
    with closing(place.factory()) as store:
        ca = opened(store)
        stolen = ca.issuer()
        ca.rollover().emergency(Successor())
        pin = fingerprint(ca.trust().active.certificate)
        forging.append(store.secrets, forging.drafts_of(attack, serial), forging.signed_by(stolen))
    for command in ("issue", "revoke", "announce", "copy"):
        with closing(place.factory()) as store:
            ca = opened(store, ca_sha256=pin)
            COMMANDS[command](ca)
            assert [anchor.generation for anchor in check(ca, serial).authorities] == [2]


def test_a_pin_is_not_judged_by_what_the_same_handle_found_without_it(place: GsmPlace) -> None:
    with closing(place.factory()) as store:
        opened(store).init()
        assert opened(store).inventory().authorities()
        with pytest.raises(NotTrustedError, match="the pin fits no trust document"):
            opened(store, ca_sha256="0" * 64).inventory()


def test_init_ca_continues_no_ca_that_a_forger_made_before_it(place: GsmPlace) -> None:
    """Before there is a document, the first CA vouches for itself; its key's place is not asked all the same."""
    forged = forging.own_ca(1)
    sign = forging.signed_by(forged)
    with closing(place.factory()) as store:
        drafts = forging.new_ca(forged)
        log = store.log("default")
        log.commit(lambda _view: drafts, forging.STAMP, lambda _view, records, where: sign(records, where) or ())
    with closing(place.factory()) as store:
        with pytest.raises(PolicyError, match="key in gsm://mallory") as refused:
            opened(store).init()
        assert "find out who can write" in str(refused.value.hint)
        assert [info.id for info in store.secrets.select({"daskpki-cluster": "default"})] == [forging.RECORDS]


LEAVES: dict[str, Callable[[CertificateAuthority], Credential]] = {
    "of the forger's own CA": lambda _ca: forged_leaf(forging.own_ca(1)),
    "of the forger's own CA, in another generation": lambda _ca: forged_leaf(forging.own_ca(2)),
}


def forged_leaf(issuer: Issuer, role: Role = Role.SCHEDULER) -> Credential:
    policy = make_policy("default.daskpki.internal")
    key, identity = generate_key(KeyType.P256), Identity("default.daskpki.internal", role, "s")
    leaf = issue_leaf(issuer, LeafRequest(identity), key.public_key(), serial=9, now=utc_now(), policy=policy)
    return Credential("default", identity, serialize_key(key), der(leaf), ())


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_forged_version_of_a_leaf_s_secret_is_handed_out_by_nobody(place: GsmPlace, leaf: str) -> None:
    """Its forger has the right to add versions to that secret alone."""
    with closing(place.factory()) as store:
        ca = opened(store)
        ca.init()
        list(ca.issue(ca.requests(Role.SCHEDULER, ["s"])))
        secret = secret_names.credential_id("default", Role.SCHEDULER, "s")
        number = store.secrets.add(secret, encode_credential(LEAVES[leaf](ca), 1))
    with closing(place.factory()) as store:
        with pytest.raises(NotTrustedError):
            fetch_credential(store, "default", Role.SCHEDULER, "s", pins=Pins(), now=utc_now())
        list(opened(store).renew([opened(store).find("scheduler/s")]))
        held = fetch_credential(store, "default", Role.SCHEDULER, "s", pins=Pins(), now=utc_now())
        assert held.credential.leaf != LEAVES[leaf](ca).leaf
        assert store.secrets.latest(secret).number == number + 1


@pytest.mark.long
def test_a_thousand_forged_versions_cost_a_request_each(
    place: GsmPlace, serial: int, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(place.factory()) as store:
        payload = store.secrets.access(forging.RECORDS, forging.append(store.secrets, forging.new_ca(forging.own_ca())))
        for _ in range(999):
            store.secrets.add(forging.RECORDS, payload)
    began = time.monotonic()
    with closing(place.factory()) as store:
        ca = opened(store)
        assert ca.inventory().certificate(serial) is not None
        check(ca, serial)
    assert time.monotonic() - began < 30
    assert "do not count" in caplog.text


# --- a local store ---


@pytest.fixture
def local(tmp_path: Path) -> LocalPlace:
    place = LocalPlace(tmp_path)
    with closing(place.create()) as store:
        found(store)
    return place


STATEMENTS: dict[str, tuple[str, ...]] = {
    "a CA": (
        """INSERT INTO authority SELECT cluster, 2, json_set(entry, '$.generation', 2, '$.status', 'ca-created',
        '$.key_uri', 'gsm://mallory') FROM authority""",
    ),
    "another place of the key": ("UPDATE authority SET entry = json_set(entry, '$.key_uri', 'gsm://mallory')",),
    "another role": ("UPDATE certificate SET role = 'scheduler', name = 'evil' WHERE name = 'b'",),
    "a leaf that is gone": ("DELETE FROM certificate WHERE name = 'a'",),
    "a release": ("UPDATE certificate SET status = 'released' WHERE name = 'a'",),
    "a great epoch": ("UPDATE published SET epoch = 9223372036854775805",),
    "a head that is gone": ("DELETE FROM log_head",),
    "a record": (
        """INSERT INTO record SELECT cluster, seq + 1, time, operation, who, command, kind, body, hash, NULL FROM record
        ORDER BY seq DESC LIMIT 1""",
    ),
    "the digests": ("DELETE FROM table_digest", "DELETE FROM certificate"),
    "the seal": ("DELETE FROM table_seal",),
    "another state": ("UPDATE version SET state = 'DISABLED' WHERE secret LIKE '%_trust'",),
    "a version that is gone": (
        """DELETE FROM version WHERE secret = 'daskpki_default_trust' AND number = (SELECT max(number) FROM version
        WHERE secret = 'daskpki_default_trust')""",
    ),
}


@pytest.mark.parametrize("command", sample(list(COMMANDS), one_of=6))
@pytest.mark.parametrize("change", STATEMENTS)
def test_a_row_that_was_changed_without_the_key_stops_every_command(
    local: LocalPlace, change: str, command: str
) -> None:
    for statement in STATEMENTS[change]:
        local.sql(statement)
    changed = recorded(local)
    with closing(local.factory()) as store, pytest.raises(DaskpkiError) as refused:
        COMMANDS[command](opened(store))
    assert isinstance(refused.value, NotTrustedError | CorruptError), refused.value
    assert recorded(local) == changed, "and nothing was recorded"


@pytest.mark.parametrize("change", STATEMENTS)
def test_a_backup_of_a_changed_store_is_of_no_use_either(local: LocalPlace, tmp_path: Path, change: str) -> None:
    for statement in STATEMENTS[change]:
        local.sql(statement)
    write_backup(local.directory, tmp_path / "backup")
    restored = LocalPlace(tmp_path / "restored")
    restored.root.mkdir()
    restore_backup(tmp_path / "backup", restored.directory, restored.seen)
    store = LocalStore(restored.directory, local.ways, seen=None, clock=time.time)
    with closing(store), pytest.raises((NotTrustedError, CorruptError)):
        opened(store).revoke("worker/b")


@pytest.mark.parametrize("command", sample(list(COMMANDS), one_of=6))
@pytest.mark.parametrize("attack", ["a CA", "a release", "a publication"])
def test_a_thief_of_the_ca_key_without_the_store_s_key_changes_nothing(
    local: LocalPlace, attack: str, command: str
) -> None:
    """He signs commits that count, and writes them as SQL; the heads and tables are under the store's own key."""
    with closing(local.factory()) as store:
        ca = opened(store)
        (revoked,) = ca.inventory().certificates(name="a")
        head, stolen = ca.inventory().head, ca.issuer()
    records = chain(head, forging.drafts_of(attack, revoked.serial), forging.STAMP)
    signed = forging.signed_by(stolen)(records, "")
    records[-1] = records[-1]._replace(signatures=signed)
    for record in records:
        text = None if record.signatures is None else json.dumps(encode_signatures(record.signatures))
        local.sql(INSERT, *record[:6], json.dumps(record.body), record.hash, text)
    end = records[-1]
    local.sql("UPDATE log_head SET seq = ?, hash = ? WHERE cluster = 'default'", end.seq, end.hash)
    changed = recorded(local)
    with closing(local.factory()) as store, pytest.raises(CorruptError, match="without the store's key"):
        COMMANDS[command](opened(store))
    assert recorded(local) == changed


INSERT = "INSERT INTO record VALUES ('default', ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def recorded(local: LocalPlace) -> list[Any]:
    return local.sql("SELECT * FROM record ORDER BY cluster, seq")


def test_a_password_s_deleted_version_is_noticed(local: LocalPlace) -> None:
    from daskpki.user_secrets import ClusterSecrets

    with closing(local.factory()) as store:
        secrets = ClusterSecrets(store, "default", who="me", command="test")
        secrets.set("db", Confidential("old"))
        secrets.set("db", Confidential("new"))
        assert secrets.get("db").data.reveal() == b"new"
    local.sql("DELETE FROM version WHERE secret = 'daskpki_default_secret_db' AND number = 2")
    with closing(local.factory()) as store:
        secrets = ClusterSecrets(store, "default", who="me", command="test")
        with pytest.raises(CorruptError, match="without the store's key"):
            secrets.get("db")


def test_a_copy_carries_the_signatures_and_goes_on(place: GsmPlace, local: LocalPlace) -> None:
    with closing(local.factory()) as source, closing(place.factory()) as target:
        copy_cluster(source, target, "default")
        assert list(target.log("default").records()) == list(source.log("default").records())
    with closing(place.factory()) as store:
        ca = opened(store)
        ca.revoke("worker/b")
        verify_log(ca.session)


def test_a_secret_s_events_need_no_right_to_the_records(place: GsmPlace) -> None:
    from daskpki.user_secrets import ClusterSecrets

    with closing(place.factory()) as store:
        opened(store).init()
        before = store.secrets.latest(forging.RECORDS).number
        ClusterSecrets(store, "default", who="me", command="test").set("db", Confidential("x"))
        assert store.secrets.latest(forging.RECORDS).number == before
        assert [record.kind for record in store.events("default").records()] == ["secret-added"]
        assert store.clusters() == ["default"]


def test_a_key_that_is_less_sealed_than_recorded_is_not_opened(place: GsmPlace) -> None:
    places = KeyLocations(seal=lambda: Confidential("right"), unseal=lambda: Confidential("right"))
    with closing(place.factory()) as store:
        opened(store, places=places).init()
        key = base64.b64encode(serialize_key(forging.own_ca(1).key).reveal()).decode()
        payload = {"format": 1, "generation": 1, "sealing": "none", "key": key}
        store.secrets.add("daskpki_default_cakey_1", Confidential(json.dumps(payload)))
    with (
        closing(place.factory()) as store,
        pytest.raises(NotTrustedError, match="records sealing passphrase for the key of CA 1, but"),
    ):
        list(opened(store, places=places).issue([]))


def test_another_key_in_the_place_of_the_ca_s_signs_nothing(place: GsmPlace, serial: int) -> None:
    with closing(place.factory()) as store:
        key = base64.b64encode(serialize_key(forging.own_ca(1).key).reveal()).decode()
        payload = {"format": 1, "generation": 1, "sealing": "none", "key": key}
        store.secrets.add("daskpki_default_cakey_1", Confidential(json.dumps(payload)))
        newest = store.secrets.latest(forging.RECORDS).number
    for command in ("issue", "revoke", "announce", "rotate-ca start"):
        with closing(place.factory()) as store:
            with pytest.raises(NotTrustedError, match="does not belong to its certificate"):
                COMMANDS[command](opened(store))
            assert store.secrets.latest(forging.RECORDS).number == newest
            check(opened(store), serial)


def test_the_commit_of_an_emergency_is_signed_by_the_old_and_the_new_ca(place: GsmPlace) -> None:
    with closing(place.factory()) as store:
        ca = opened(store)
        ca.init()
        ca.rollover().emergency(Successor())
        signers = {
            record.kind: [each.generation for each in record.signatures]
            for record in ca.session.log.records()
            if record.signatures
        }
    assert signers["ca-activated"] == [1, 2]
    assert signers["published"] == [2]


def test_a_ca_whose_start_was_cut_off_is_published_by_nobody_else(place: GsmPlace) -> None:
    with closing(place.factory()) as store:
        ca = opened(store)
        ca.init()
        with pytest.raises(Killed):  # the next CA is recorded, and the trust document does not show it
            opened(FragileStore(store, Fuse(5, BEFORE))).rollover().start(Successor())
        assert [entry.generation for entry in ca.inventory().authorities()] == [1, 2]
        ca.announce("tls://10.0.0.5:8786")
        assert [anchor.generation for anchor in ca.trust().authorities] == [1]
        ca.rollover().start(Successor())
        assert [anchor.generation for anchor in ca.trust().authorities] == [1, 2]
