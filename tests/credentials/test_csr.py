"""A key that never leaves alice's keyring: request, sign, login, and again after a renewal."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from daskpki import CertificateAuthority, secret_names
from daskpki.credentials.csr import all_waiting, request_certificate, waiting_for, waiting_key
from daskpki.credentials.login import login, logout, logout_targets
from daskpki.credentials.os_keyring import OSKeyring
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.sources import Environment, obtain
from daskpki.errors import AccessDeniedError, NotFoundError, PolicyError, UsageError
from daskpki.identity import Identity, Role
from daskpki.pki.credential import parse_credential
from daskpki.pki.csr import CertificateRequest, parse_request
from daskpki.pki.keys import KeyType, generate_key, parse_key
from daskpki.store.local.store import LocalStore
from tests.support.key_search import Canary

ALICE = Identity("default.daskpki.internal", Role.CLIENT, "alice")


@pytest.fixture
def ca(store: LocalStore) -> CertificateAuthority:
    authority = CertificateAuthority(store)
    authority.init()
    return authority


def requested(store: LocalStore, here: Environment) -> CertificateRequest:
    key = waiting_for(here.contexts, store.url, "default", "alice")
    return parse_request(request_certificate(key, ALICE, here.contexts, here.keyring))


def sign(ca: CertificateAuthority, request: CertificateRequest) -> tuple[bytes, ...]:
    (leaf,) = ca.requests(Role.CLIENT, ["alice"])
    issued = ca.sign_request(leaf, request)
    credential = parse_credential(ca.session.store.secrets.latest(issued.secret).data)
    assert credential.key is None
    return (credential.leaf, *credential.chain)


def waiting(store: LocalStore, here: Environment) -> object:
    return waiting_key(here.contexts.id_of(store.url, "default", "alice"), here.keyring)


def test_request_sign_login(ca: CertificateAuthority, store: LocalStore, here: Environment, keyring: OSKeyring) -> None:
    here = here._replace(keyring=keyring)
    request = requested(store, here)
    assert requested(store, here).public_key == request.public_key, "asked again, it is the same key"
    assert ca.proposed(request) == (Role.CLIENT, "alice")
    sign(ca, request)
    made = login(store, "default", "alice", [], here)
    key = made.verified.credential.key
    assert key is not None
    assert parse_key(key).public_key() == request.public_key
    assert waiting(store, here) is None
    assert all_waiting(here.contexts) == []
    assert obtain(Wanted(), here).verified.credential == made.verified.credential
    login(store, "default", "alice", [], here)  # which finds the key where the first one put it
    logout(here, here.contexts.all())


def test_the_key_is_in_the_keyring_only(
    ca: CertificateAuthority, store: LocalStore, here: Environment, tmp_path: Path
) -> None:
    sign(ca, requested(store, here))
    key = waiting_key(here.contexts.id_of(store.url, "default", "alice"), here.keyring)
    assert key is not None
    login(store, "default", "alice", [], here)
    canary = Canary({"alice": key})
    assert not canary.in_files([tmp_path, Path(here.environ["HOME"])])
    (tmp_path / "planted").write_bytes(key.reveal())
    assert canary.in_files([tmp_path])
    logout(here, here.contexts.all())


def test_a_renewal_by_request_has_a_new_key(ca: CertificateAuthority, store: LocalStore, here: Environment) -> None:
    first = requested(store, here)
    sign(ca, first)
    login(store, "default", "alice", [], here)
    with pytest.raises(PolicyError, match="stayed with its holder"):
        list(ca.renew([ca.find("client/alice")]))
    second = requested(store, here)
    login(store, "default", "alice", [], here)  # too early: the later request's key goes on waiting
    assert requested(store, here).public_key == second.public_key
    assert second.public_key != first.public_key
    with pytest.raises(PolicyError, match="was issued before"):
        ca.proposed(second)
    sign(ca, second)
    login(store, "default", "alice", [], here)
    verified = obtain(Wanted(), here).verified
    assert verified.credential.key is not None
    assert parse_key(verified.credential.key).public_key() == second.public_key
    logout(here, here.contexts.all())


def test_elsewhere_there_is_no_key_for_it(ca: CertificateAuthority, store: LocalStore, here: Environment) -> None:
    other = parse_request(_request(x509.Name(ALICE_NAME)))
    sign(ca, other)
    with pytest.raises(NotFoundError, match="is not in this keyring") as refusal:
        login(store, "default", "alice", [], here)
    assert "daskpki request client --name alice" in str(refusal.value.hint)
    assert here.contexts.all() == []


def test_without_a_keyring_there_is_no_request(store: LocalStore, here: Environment) -> None:
    environ = dict(here.environ) | {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    with pytest.raises(AccessDeniedError, match="protects what it keeps"):
        requested(store, here._replace(keyring=OSKeyring(environ)))


def test_a_key_that_waits_is_known_and_goes_by_logout(
    ca: CertificateAuthority, store: LocalStore, here: Environment
) -> None:
    sign(ca, requested(store, here))
    login(store, "default", "alice", [], here)
    requested(store, here)  # a renewal, which waits beside the login
    bob = waiting_for(here.contexts, store.url, "default", "bob")
    request_certificate(bob, ALICE, here.contexts, here.keyring)
    assert [known.title for known in all_waiting(here.contexts)] == ["default/alice", "default/bob"]
    logout(here, *logout_targets(here, "default/alice"))
    assert waiting(store, here) is None
    assert all_waiting(here.contexts) == [bob], "somebody else's key is not removed by the way"
    assert logout_targets(here, "default") == logout_targets(here, None) == ([], [bob])
    logout(here, *logout_targets(here, None))
    assert waiting_key(bob.id, here.keyring) is None
    assert not here.contexts.directory.exists()
    with pytest.raises(NotFoundError, match="neither a login nor a waiting key"):
        logout_targets(here, "default")


def test_of_several_waiting_keys_one_has_to_be_named(store: LocalStore, here: Environment) -> None:
    for name in ("alice", "bob"):
        key = waiting_for(here.contexts, store.url, "default", name)
        request_certificate(key, ALICE, here.contexts, here.keyring)
    with pytest.raises(UsageError, match="several waiting keys fit 'default': default/alice in"):
        logout_targets(here, "default")
    next(here.contexts.directory.glob("*.request")).write_text("torn")
    assert len(all_waiting(here.contexts)) == 2, "a damaged note still says which key it is about"
    logout(here, *logout_targets(here, None))
    assert all_waiting(here.contexts) == []


ALICE_NAME = [
    x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "default"),
    x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "client"),
    x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice"),
]


def _request(subject: x509.Name, *extensions: x509.ExtensionType) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(generate_key(KeyType.P256), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_nothing_but_the_key_is_copied(ca: CertificateAuthority) -> None:
    """A request that asks to be a CA, a server and the scheduler."""
    request = _request(
        x509.Name([*ALICE_NAME, x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "XX")]),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName(
            [
                x509.DNSName("scheduler.scheduler.default.daskpki.internal"),
                x509.UniformResourceIdentifier("spiffe://default.daskpki.internal/scheduler/scheduler"),
            ]
        ),
        x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]),
    )
    parsed = parse_request(request)
    leaf = x509.load_der_x509_certificate(sign(ca, parsed)[0])
    (issued,) = ca.issue(ca.requests(Role.CLIENT, ["bob"]))
    payload = ca.session.store.secrets.latest(secret_names.credential_id("default", Role.CLIENT, "bob")).data
    usual = x509.load_der_x509_certificate(parse_credential(payload).leaf)
    assert issued.record.key_type == "p256"
    assert ca.find("client/alice").key_type == "csr"
    assert leaf.public_key() == parsed.public_key
    assert {entry.oid for entry in leaf.extensions} == {entry.oid for entry in usual.extensions}
    assert b"scheduler" not in leaf.public_bytes(serialization.Encoding.DER)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ({"OU": "scheduler", "CN": "scheduler"}, "asks for the role scheduler"),
        ({"O": "other"}, "for cluster 'other'"),
    ],
)
def test_what_a_request_may_not_propose(ca: CertificateAuthority, subject: dict[str, str], words: str) -> None:
    parts = {"O": "default", "OU": "client", "CN": "alice"} | subject
    name = x509.Name.from_rfc4514_string(",".join(f"{part}={value}" for part, value in reversed(parts.items())))
    with pytest.raises(PolicyError, match=words) as refusal:
        ca.proposed(parse_request(_request(name)))
    assert refusal.value.hint is not None
    assert "daskpki sign FILE " in refusal.value.hint


def test_a_request_for_another_cluster_is_told_where_it_belongs(ca: CertificateAuthority) -> None:
    request = parse_request(_request(x509.Name.from_rfc4514_string("CN=alice,OU=client,O=other")))
    with pytest.raises(PolicyError) as refusal:
        ca.proposed(request, "daskpki sign alice.csr")
    assert refusal.value.hint == (
        "--cluster and --store name the cluster that it is for; to take client/alice into this one: "
        "daskpki sign alice.csr client/alice"
    )
