"""The Security objects themselves: where the key goes, and where it does not."""

from __future__ import annotations

import copy
import pickle
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Security
from distributed.comm.core import connect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskpki.cluster.backend import install
from daskpki.cluster.security import NodeSecurity, PkiSecurity, client_security
from daskpki.cluster.tls import KeyPair, client_context, load_key_pair, load_through_sealed_file
from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError, UsageError
from daskpki.handover import Freshness, Handover, parse_handover
from daskpki.identity import Role
from tests.support.cluster_material import DAY, Authority, Leaf
from tests.support.nodes import handover_of


@pytest.fixture
def alice(authority: Authority) -> Leaf:
    return authority.leaf(Role.CLIENT, "alice")


@pytest.fixture
def security(authority: Authority, alice: Leaf) -> PkiSecurity:
    return client_security(alice.credential, authority.document())


def test_it_says_who_it_is_and_never_the_key(security: PkiSecurity, alice: Leaf) -> None:
    for text in (repr(security), str(security), security._repr_html_()):
        assert "spiffe://default.daskpki.internal/client/alice" in text
        assert "PRIVATE KEY" not in text
    assert not any(alice.pair.key.reveal() in repr(value).encode() for value in vars(security).values())


@pytest.mark.parametrize("save", [pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_never_pickled_or_copied(security: PkiSecurity, save: Any) -> None:
    with pytest.raises(TypeError, match="has a private key"):
        save(security)


def test_it_is_no_other_role(security: PkiSecurity) -> None:
    for role in ("scheduler", "worker"):
        with pytest.raises(NotTrustedError, match=f"does not make a {role}"):
            security.get_listen_args(role)


@pytest.mark.parametrize("role", [Role.SCHEDULER, Role.WORKER])
def test_a_client_holds_a_clients_leaf(authority: Authority, role: Role) -> None:
    with pytest.raises(NotTrustedError, match="is not a client"):
        client_security(authority.leaf(role).credential, authority.document())


def test_a_credential_without_its_key_is_refused(authority: Authority, alice: Leaf) -> None:
    with pytest.raises(UsageError, match="has no key"):
        client_security(alice.credential._replace(key=None), authority.document())


def test_a_key_of_another_certificate_is_refused(authority: Authority, alice: Leaf) -> None:
    other = authority.leaf(Role.CLIENT, "bob")
    with pytest.raises(NotTrustedError, match="cannot be loaded"):
        client_context(KeyPair(alice.pair.certificates, other.pair.key), [authority.der], ssl.TLSVersion.TLSv1_3)


def test_a_backend_that_is_not_ours_finds_nothing_to_connect_with(security: PkiSecurity) -> None:
    arguments = security.get_connection_args("client")
    assert "ssl_context" not in arguments
    assert arguments["require_encryption"] is True


def test_another_security_in_the_same_process_stays_stock(authority: Authority, tmp_path: Path) -> None:
    files = authority.files(authority.leaf(Role.WORKER), tmp_path)
    stock = Security(tls_ca_file=files.ca, tls_worker_cert=files.cert, tls_worker_key=files.key)
    listener = install().get_listener("127.0.0.1:0", connect, True, **stock.get_listen_args("worker"))
    assert type(listener).__module__ == "distributed.comm.tcp"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(data=st.binary(max_size=3000))
def test_broken_keys_raise_one_error(alice: Leaf, data: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(NotTrustedError, match="cannot be loaded"):
        load_key_pair(context, KeyPair(alice.pair.certificates, Confidential(data)))


def test_a_chain_longer_than_a_pipe_holds_is_loaded(alice: Leaf) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    comment = "#" * 79 + "\n"
    load_key_pair(context, KeyPair(alice.pair.certificates + comment * 4096, alice.pair.key))


def test_a_key_touches_no_file_system(alice: Leaf, tmp_path: Path) -> None:
    key = alice.pair.key.reveal()
    program = (
        "import ssl, sys\n"
        "from daskpki.cluster.tls import KeyPair, load_key_pair\n"
        "from daskpki.confidential import Confidential\n"
        "certificates, key = sys.stdin.read().split('---8<---')\n"
        "load_key_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), KeyPair(certificates, Confidential(key)))\n"
        "print('loaded')\n"
    )
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-s", "4096", "-e", "trace=write,writev,pwrite64", "-o", str(trace)]
    done = subprocess.run(
        [*strace, sys.executable, "-c", program],
        input=alice.pair.certificates + "---8<---" + key.decode(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "loaded\n"
    writes = [line for line in trace.read_text().splitlines() if "PRIVATE KEY" in line]
    assert writes  # it was seen on its way
    assert all("<pipe:" in line for line in writes)


def test_the_windows_way_leaves_nothing_and_writes_ciphertext_only(
    alice: Leaf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_through_sealed_file(context, alice.pair)
    assert list(tmp_path.iterdir()) == []


def test_a_nodes_security_travels_as_its_handover(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.leaf(Role.WORKER)
    node = NodeSecurity(parse_handover(handover_of(authority, leaf, tmp_path, "limited").read_bytes()))
    sent = pickle.dumps(node)
    assert b"PRIVATE KEY" not in sent
    received = pickle.loads(sent)  # noqa: S301 - what was pickled a line above
    assert received.enforcement(Role.WORKER).identity == leaf.identity


@pytest.mark.parametrize("field", ["cert", "key", "ca", "trust"])
def test_a_node_whose_files_do_not_hold_does_not_start(authority: Authority, tmp_path: Path, field: str) -> None:
    handover = parse_handover(handover_of(authority, authority.leaf(Role.WORKER), tmp_path, "limited").read_bytes())
    stranger = Authority()
    foreign = handover_of(stranger, stranger.leaf(Role.WORKER), tmp_path / "other", "limited").read_bytes()
    mixed = Handover(**handover._asdict() | {field: parse_handover(foreign)._asdict()[field]})
    with pytest.raises(NotTrustedError):
        NodeSecurity(mixed).enforcement(Role.WORKER).server_context()


@pytest.mark.parametrize("mode", ["refuse", "allow"])
def test_the_handover_says_what_a_revocation_list_that_ran_out_means(
    authority: Authority, tmp_path: Path, mode: str
) -> None:
    handover = parse_handover(handover_of(authority, authority.leaf(Role.SCHEDULER), tmp_path, "limited").read_bytes())
    stale = authority.signed(authority.document(lifetime=35 * DAY, at=-36 * DAY))
    Path(handover.trust).write_bytes(stale.reveal())
    node = NodeSecurity(handover._replace(freshness=Freshness(stale_trust=mode)))
    shown = authority.leaf(Role.CLIENT, "alice").credential.leaf
    enforcement = node.enforcement(Role.SCHEDULER)
    if mode == "allow":
        assert enforcement.admit(shown, frozenset({Role.CLIENT})).identity.name == "alice"
    else:
        with pytest.raises(NotTrustedError, match="revocation list of cluster default expired"):
            enforcement.admit(shown, frozenset({Role.CLIENT}))
