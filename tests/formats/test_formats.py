"""Every format that was ever written is read, and one that is newer than understood is refused by its number.

The fixtures were written by `python -m tests.formats` and are never written again.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from daskpki.authority.audit import verify_log
from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.ca_keys import KeyLocations, StoredCaKeys
from daskpki.confidential import Confidential
from daskpki.credentials.contexts import parse_context
from daskpki.credentials.saved_logins import parse_entry
from daskpki.errors import DaskpkiError, NotTrustedError
from daskpki.inventory import ReplayedInventory
from daskpki.pki.certificates import load_certificate
from daskpki.pki.credential import parse_credential
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust import heirs, verify_trust
from daskpki.pki.trust_document import parse_trust
from daskpki.records import verify_chain
from daskpki.store.gsm.log_format import LogHead, LogSegment, decode_part
from daskpki.store.local.store import LocalStore
from tests.formats.__main__ import CLUSTER, DATA, MADE, PASSPHRASE, kept
from tests.formats.succession import DATA as SUCCESSIONS
from tests.formats.succession import NEXT_DAY
from tests.support.local_places import LocalPlace

EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text())


def data(name: str) -> bytes:
    return (DATA / name).read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    """The kept store, restored as its owner would."""
    return kept(tmp_path, DATA)


def authority(store: LocalStore) -> CertificateAuthority:
    later = MADE + timedelta(days=1)
    return CertificateAuthority(store, CLUSTER, clock=lambda: later, places=KeyLocations(unseal=lambda: PASSPHRASE))


def test_a_local_store_is_read_and_goes_on(place: LocalPlace) -> None:
    with closing(place.factory()) as store:
        kept = authority(store)
        assert list(kept.inventory().head) == EXPECTED["head"]
        shown = [kept.describe(entry) for entry in kept.inventory().certificates()]
        assert shown == EXPECTED["certificates"]
        assert kept.trust().epoch == EXPECTED["epoch"]
        verify_log(kept.session)
        list(kept.renew([kept.find("scheduler/s")]))
        kept.revoke("worker/w")
        verify_log(kept.session)


def test_the_seen_heads_are_read(place: LocalPlace) -> None:
    with closing(place.factory()) as store:
        name = f"{store.id}.json"
        seen = json.loads(data("seen.json"))
    seen["heads"][CLUSTER][0] += 1
    (place.seen / name).parent.mkdir(exist_ok=True)
    (place.seen / name).write_text(json.dumps(seen))
    with closing(place.factory()) as store, pytest.raises(NotTrustedError, match="rolled back"):
        authority(store).inventory()


def test_a_credential_is_read() -> None:
    credential = parse_credential(Confidential(data("credential.json")))
    assert credential.identity.uri == "spiffe://kept.daskpki.internal/scheduler/s"
    assert credential.cluster == CLUSTER
    assert credential.key is not None
    assert fingerprint(credential.leaf) == EXPECTED["certificates"][0]["fingerprint"]


def test_a_trust_document_is_read_and_verified() -> None:
    signed = parse_trust(Confidential(data("trust.json")))
    anchors = [anchor.certificate for anchor in signed.document.authorities]
    document = verify_trust(signed, cluster=CLUSTER, anchors=anchors, now=MADE)
    assert (document.epoch, document.trust_domain) == (EXPECTED["epoch"], "kept.daskpki.internal")
    with pytest.raises(NotTrustedError):
        parse_trust(Confidential(data("trust.json").replace(b'"format\\":1', b'"format\\":2', 1)))


def test_a_trust_document_with_the_words_of_dropped_cas_is_followed() -> None:
    """By whoever trusted the first of three CAs, and saw no document since; the third has an offline root."""
    expected = json.loads((SUCCESSIONS / "expected.json").read_text())
    before = parse_trust(Confidential(data("trust.json"))).document
    signed = parse_trust(Confidential((SUCCESSIONS / "trust.json").read_bytes()))
    now = verify_trust(signed, cluster=CLUSTER, previous=before, now=NEXT_DAY)
    assert now.epoch == expected["epoch"]
    assert (
        [[word.generation, word.successor] for word in now.successions] == expected["generations"] == [[1, 2], [2, 3]]
    )
    assert len(now.root_crls) == 1
    assert now.active.certificate in heirs(CLUSTER, before.authorities, now.successions)
    for words in ((), now.successions[1:]):
        assert now.active.certificate not in heirs(CLUSTER, before.authorities, words)


def test_a_sealed_ca_key_is_read(place: LocalPlace) -> None:
    with closing(place.factory()) as store:
        key = StoredCaKeys(store.secrets, CLUSTER, unseal=lambda: PASSPHRASE).open(1)
        certificate = load_certificate(authority(store).trust().authorities[0].certificate)
        assert key.public_key() == certificate.public_key()
        assert store.secrets.latest(f"daskpki_{CLUSTER}_cakey_1").data == Confidential(data("ca-key.json"))


def test_the_logs_payloads_are_read() -> None:
    head, segment = decode_part(data("records.head")), decode_part(data("records.segment"))
    assert isinstance(head, LogHead)
    assert isinstance(segment, LogSegment)
    assert list(head.end) == list(segment.end) == EXPECTED["head"]
    replayed = ReplayedInventory(verify_chain(segment.begin, segment.records))
    assert [f"{entry.serial:x}" for entry in replayed.certificates()] == [
        entry["serial"] for entry in EXPECTED["certificates"]
    ]


def test_a_login_is_read() -> None:
    context = parse_context(data("login.json"))
    assert (context.title, context.schedulers) == (f"{CLUSTER}/a", ("tls://10.0.0.5:8786",))
    entry = parse_entry(Confidential(data("login.entry")))
    assert (entry.epoch, entry.digest) == (3, "ab" * 32)


def newer_json(name: str) -> bytes:
    document = json.loads(data(name))
    assert document["format"] == 1
    return json.dumps(document | {"format": 2}).encode()


def newer_records(name: str) -> bytes:
    header, _, rest = lzma.decompress(data(name)).partition(b"\n")
    changed = json.dumps(json.loads(header) | {"format": 3}).encode()
    return lzma.compress(changed + b"\n" + rest, check=lzma.CHECK_CRC32)


NEWER: dict[str, Callable[[], object]] = {
    "credential": lambda: parse_credential(Confidential(newer_json("credential.json"))),
    "trust document": lambda: parse_trust(Confidential(newer_json("trust.json"))),
    "login": lambda: parse_context(newer_json("login.json")),
    "keyring entry": lambda: parse_entry(Confidential(b"2" + data("login.entry")[1:])),
}


@pytest.mark.parametrize("what", NEWER)
def test_a_newer_format_is_refused_by_its_number(what: str) -> None:
    with pytest.raises(DaskpkiError, match="2") as refused:
        NEWER[what]()
    assert "format" in str(refused.value)
    assert "1" in str(refused.value)


@pytest.mark.parametrize("name", ["records.head", "records.segment"])
def test_a_newer_log_is_refused_by_its_number(name: str) -> None:
    with pytest.raises(NotTrustedError, match="the log has format 3; this daskpki reads 1"):
        decode_part(newer_records(name))


def test_a_newer_store_is_refused_by_its_number(place: LocalPlace) -> None:
    place.sql("PRAGMA user_version = 3")
    with pytest.raises(NotTrustedError, match="has format 3; this daskpki reads 1") as refused:
        place.factory()
    assert refused.value.hint == "upgrade daskpki"
