"""The shortcut accepts the plain case and is sound: it accepts nothing that the full check refuses."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.boot.reading import Material, Trust
from daskpki.boot.settings import Settings
from daskpki.boot.shortcut import plainly_holds
from daskpki.boot.spki import subject_public_key_info, verifies
from daskpki.confidential import Confidential
from daskpki.credentials.held import Pins, verify_held
from daskpki.errors import DaskpkiError
from daskpki.pki import keys
from daskpki.pki.certificates import load_certificate
from daskpki.pki.credential import encode_credential, parse_credential
from daskpki.pki.keys import KeyType
from daskpki.pki.trust_document import parse_trust
from tests.boot.cloud import Cloud, run_entrypoint
from tests.boot.test_check import SETTINGS, material
from tests.material import Cluster, make_cluster

CLUSTER = make_cluster()
OTHER = make_cluster()


def accepts(found: Material, wanted: Settings = SETTINGS) -> bool:
    return plainly_holds(found, wanted, datetime.now(UTC))


def of(cluster: Cluster, slug: str = "worker/worker") -> Material:
    return Material((cluster.credentials[slug],), Trust(cluster.trust, parse_trust(cluster.trust)), {})


@pytest.mark.parametrize("slug", ["scheduler/scheduler", "worker/worker", "client/alice"])
@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.P384])
def test_the_plain_case_of_every_role_and_key(slug: str, kind: KeyType) -> None:
    assert accepts(of(make_cluster(slugs=[slug], kind=kind), slug))


@pytest.mark.parametrize("kind", [KeyType.RSA3072, KeyType.ED25519])
def test_other_keys_are_left_to_the_full_check(kind: KeyType) -> None:
    assert not accepts(of(make_cluster(slugs=["worker"], kind=kind)))


def test_what_is_not_plain_is_left_to_the_full_check() -> None:
    assert not accepts(of(make_cluster(tiers=2)))
    revoking = make_cluster()
    revoking.publish(revoked=[revoking.credentials["worker/worker"]])
    assert not accepts(of(revoking))
    assert accepts(of(revoking, "scheduler/scheduler"))
    stale = make_cluster(now=datetime.now(UTC) - timedelta(days=36), slugs=["scheduler"])
    assert not accepts(of(stale, "scheduler/scheduler"))
    forged = make_cluster()
    forged.publish(signers=[OTHER.issuer])
    assert not accepts(of(forged))


def test_parts_of_two_clusters_do_not_go_together() -> None:
    mine, theirs = of(CLUSTER), of(OTHER)
    assert not accepts(mine._replace(trust=theirs.trust))
    assert not accepts(mine._replace(anchors=(OTHER.anchor,)))
    worker = mine.credentials[0]
    for change in ({"key": OTHER.credentials["worker/worker"].key}, {"leaf": theirs.credentials[0].leaf}):
        assert not accepts(mine._replace(credentials=(worker._replace(**change),)))


def test_pins_hold_in_the_shortcut_as_well() -> None:
    assert not accepts(of(CLUSTER), SETTINGS._replace(ca_sha256="0" * 64))
    assert not accepts(of(CLUSTER), SETTINGS._replace(min_epoch=2))


def test_a_leaf_says_who_it_is_itself() -> None:
    worker = of(CLUSTER).credentials[0]
    renamed = worker._replace(identity=worker.identity._replace(name="other"))
    assert not accepts(of(CLUSTER)._replace(credentials=(renamed,)))


TEXTS = (encode_credential(CLUSTER.credentials["worker/worker"]).reveal(), CLUSTER.trust.reveal())


@settings(max_examples=150, deadline=None)
@given(which=st.sampled_from([0, 1]), at=st.integers(0, 4000), byte=st.integers(0, 255))
def test_it_accepts_nothing_that_the_full_check_refuses(which: int, at: int, byte: int) -> None:
    texts = [bytearray(text) for text in TEXTS]
    texts[which][at % len(texts[which])] = byte
    try:
        credential = parse_credential(Confidential(bytes(texts[0])))
        signed = Confidential(bytes(texts[1]))
        found = Material((credential,), Trust(signed, parse_trust(signed)), {})
    except DaskpkiError:
        return
    if accepts(found):
        verify_held(credential, signed, {}, pins=Pins(), now=datetime.now(UTC))


def test_a_key_that_is_damaged_where_openssl_does_not_look_is_left_to_the_full_check() -> None:
    worker = of(CLUSTER).credentials[0]
    assert worker.key is not None
    damaged = bytearray(worker.key.reveal())
    damaged[33] ^= 1  # the version of ECPrivateKey (RFC 5915, 3)
    assert not accepts(of(CLUSTER)._replace(credentials=(worker._replace(key=Confidential(bytes(damaged))),)))


def test_the_public_key_is_read_as_the_library_reads_it() -> None:
    for kind in KeyType:
        leaf = make_cluster(slugs=["worker"], kind=kind).credentials["worker/worker"].leaf
        expected = load_certificate(leaf).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert subject_public_key_info(leaf) == expected


@pytest.mark.parametrize("kind", [KeyType.P256, KeyType.P384])
def test_signatures_are_judged_as_the_library_judges_them(kind: KeyType) -> None:
    credential = make_cluster(slugs=["worker"], kind=kind).credentials["worker/worker"]
    assert credential.key is not None
    signature = keys.sign(keys.parse_key(credential.key), b"data")
    assert verifies(credential.leaf, signature, b"data")
    assert not verifies(credential.leaf, signature, b"other")
    assert not verifies(CLUSTER.anchor, signature, b"data")


@given(st.binary(max_size=200))
def test_what_is_no_certificate_has_no_key(data: bytes) -> None:
    with pytest.raises(ValueError):
        verifies(data, b"", b"")


@given(st.integers(0, 900))
def test_a_cut_certificate_has_no_key_or_the_same(length: int) -> None:
    leaf = CLUSTER.credentials["worker/worker"].leaf
    try:
        found = subject_public_key_info(leaf[:length])
    except ValueError:
        return
    assert length >= len(leaf)
    assert found == subject_public_key_info(leaf)


def test_a_usual_boot_loads_neither_x509_nor_http_clients(cloud: Cloud) -> None:
    """What the shortcut and our own HTTP are for; `argparse` and `pathlib` are spared likewise."""
    script = """if 1:
        import json, os, sys
        from daskpki.boot.entrypoint import boot
        boot(["scheduler"], os.environ, lambda *_: print(json.dumps(sorted(sys.modules))))"""
    import subprocess

    done = subprocess.run([sys.executable, "-c", script], env=cloud.environ, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {"cryptography.x509", "urllib.request", "http.client", "email", "argparse", "pathlib", "distributed"}
    assert not loaded & heavy
    assert not [name for name in loaded if name.startswith("google")]


def test_exec_goes_the_long_way_since_no_preload_checks_again(cloud: Cloud) -> None:
    """Both ways end alike."""
    done = run_entrypoint(cloud.environ, "exec", "scheduler", "--", "true")
    assert done.returncode == 0, done.stderr
    assert material(cloud.cluster)
