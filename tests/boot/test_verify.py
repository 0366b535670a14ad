"""What does not check out does not start, each by its own mutation of a directory that boots; and what a clock does."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from daskpki.boot.fetch import Material
from daskpki.boot.http import Reading, parse_date
from daskpki.boot.options import parse_arguments
from daskpki.boot.settings import parse_settings
from daskpki.boot.verify import Clocks, verify_in_time
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError, NotTrustedError, UnavailableError
from daskpki.pki.trust_document import TrustPayload, parse_trust
from tests.support.boot_cloud import Cloud, Recorder, boot_here, plain_environ, run_entrypoint
from tests.support.material import Cluster, make_cluster

Mutation = Callable[[Cluster, Path], None]


def boot_directory(directory: Path, *argv: str, **environ: str) -> Recorder:
    return boot_here(plain_environ(DASKPKI_CREDENTIAL_DIR=str(directory), DASKPKI_CLUSTER="c", **environ), *argv)


def _of_another_cluster(name: str) -> Mutation:
    def mutate(_cluster: Cluster, worker: Path) -> None:
        other = make_cluster().export("worker/worker", worker.parent / "other")
        shutil.copy(other / name, worker / name)

    return mutate


def _cut(name: str) -> Mutation:
    def mutate(_cluster: Cluster, worker: Path) -> None:
        data = (worker / name).read_bytes()
        (worker / name).write_bytes(data[: len(data) // 2])

    return mutate


def _empty(name: str) -> Mutation:
    def mutate(_cluster: Cluster, worker: Path) -> None:
        (worker / name).write_bytes(b"")

    return mutate


def _remove(name: str) -> Mutation:
    return lambda _cluster, worker: (worker / name).unlink()


def _expired(_cluster: Cluster, worker: Path) -> None:
    shutil.rmtree(worker)
    past = make_cluster(now=datetime.now(UTC) - timedelta(days=31), slugs=["worker"])
    past.publish()
    past.export("worker/worker", worker)


def _revoked(_cluster: Cluster, worker: Path) -> None:
    shutil.rmtree(worker)
    fresh = make_cluster(slugs=["worker"])
    fresh.publish(revoked=[fresh.credentials["worker/worker"]])
    fresh.export("worker/worker", worker)


def _signed_by_another(_cluster: Cluster, worker: Path) -> None:
    shutil.rmtree(worker)
    fresh, other = make_cluster(slugs=["worker"]), make_cluster()
    fresh.publish(signers=[other.issuer])
    fresh.export("worker/worker", worker)


def _loose(name: str) -> Mutation:
    return lambda _cluster, worker: (worker / name).chmod(0o666)


MUTATIONS: dict[str, tuple[Mutation, type[DaskpkiError], str]] = {
    "another key": (_of_another_cluster("key.pem"), NotTrustedError, "key"),
    "another CA": (_of_another_cluster("ca.pem"), NotTrustedError, ""),
    "another leaf": (_of_another_cluster("cert.pem"), NotTrustedError, ""),
    "another trust document": (_of_another_cluster("trust.json"), NotTrustedError, ""),
    "trust signed by another CA": (_signed_by_another, NotTrustedError, "sign"),
    "expired": (_expired, NotTrustedError, ""),
    "revoked": (_revoked, NotTrustedError, "revoked"),
    "key open to all": (_loose("key.pem"), AccessDeniedError, "open to others"),
    "trust writable by all": (_loose("trust.json"), AccessDeniedError, "open to others"),
    **{
        f"{name} cut off": (_cut(name), NotTrustedError, "") for name in ("ca.pem", "cert.pem", "key.pem", "trust.json")
    },
    **{
        f"{name} empty": (_empty(name), NotTrustedError, "") for name in ("ca.pem", "cert.pem", "key.pem", "trust.json")
    },
    **{
        f"{name} missing": (_remove(name), NotFoundError, name)
        for name in ("ca.pem", "cert.pem", "key.pem", "trust.json")
    },
}


@pytest.mark.parametrize("case", MUTATIONS)
def test_a_directory_that_does_not_hold_is_refused(cluster: Cluster, directory: Path, case: str) -> None:
    mutate, error, words = MUTATIONS[case]
    assert boot_directory(directory / "worker", "worker", "--scheduler", "tls://h").started
    mutate(cluster, directory / "worker")
    with pytest.raises(error, match=words or None):
        boot_directory(directory / "worker", "worker", "--scheduler", "tls://h")


def test_a_credential_of_another_role_is_refused(directory: Path) -> None:
    with pytest.raises(NotTrustedError, match="has the role client, but a worker is to be started"):
        boot_directory(directory / "client", "worker", "--scheduler", "tls://h")


def test_pins(cluster: Cluster, directory: Path) -> None:
    pin = hashlib.sha256(cluster.anchor).hexdigest()
    worker = ("worker", "--scheduler", "tls://h")
    assert boot_directory(directory / "worker", *worker, DASKPKI_CA_SHA256=pin, DASKPKI_MIN_EPOCH="1").started
    with pytest.raises(NotTrustedError, match="pinned"):
        boot_directory(directory / "worker", *worker, DASKPKI_CA_SHA256="0" * 64)
    with pytest.raises(NotTrustedError, match="epoch 1, below the required 2"):
        boot_directory(directory / "worker", *worker, DASKPKI_MIN_EPOCH="2")


def test_pins_hold_for_a_store_as_well(cloud: Cloud) -> None:
    with pytest.raises(NotTrustedError, match="pinned"):
        boot_here(cloud.environ | {"DASKPKI_CA_SHA256": "0" * 64}, "scheduler")
    with pytest.raises(NotTrustedError, match="below the required 9"):
        boot_here(cloud.environ | {"DASKPKI_MIN_EPOCH": "9"}, "scheduler")


@pytest.mark.parametrize("command", [("worker", "--scheduler", "tls://h"), ("exec", "worker", "--", "true")])
def test_a_revocation_list_that_ran_out_boots_only_when_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    stale = make_cluster(now=datetime.now(UTC) - timedelta(days=36), slugs=[])
    stale.issue("worker/worker")
    worker = stale.export("worker/worker", tmp_path / "worker")
    with pytest.raises(NotTrustedError, match="CRL expired at") as refused:
        boot_directory(worker, *command)
    assert "--stale-trust allow" in str(refused.value.hint)
    assert boot_directory(worker, *command, DASKPKI_STALE_TRUST="allow").started
    assert "--stale-trust allow: peers that are revoked after" in capsys.readouterr().err


def test_a_cluster_of_two_tiers_boots(tmp_path: Path) -> None:
    cluster = make_cluster(tiers=2)
    cluster.export("worker/worker", tmp_path / "worker")
    assert boot_directory(tmp_path / "worker", "worker", "--scheduler", "tls://h").started


def test_what_is_refused_has_exit_code_3_and_one_line(directory: Path) -> None:
    environ = plain_environ(DASKPKI_CREDENTIAL_DIR=str(directory / "client"))
    done = run_entrypoint(environ, "exec", "worker", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1


class Hands:
    """A clock that the test moves; waiting moves it too."""

    def __init__(self, wrong_by: float, *, right_after: float | None = None) -> None:
        self.start = time.time()
        self.passed = 0.0
        self._wrong_by = wrong_by
        self._right_after = right_after

    def clocks(self) -> Clocks:
        return Clocks(self.wall, lambda: self.passed, self.sleep)

    def elsewhere(self) -> Reading:
        """What a server said that has the right time."""
        return Reading(self.start, 0.0)

    def wall(self) -> float:
        right = self._right_after is not None and self.passed >= self._right_after
        return self.start + self.passed + (0 if right else self._wrong_by)

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


def material(cluster: Cluster, date: Reading | None = None) -> Material:
    worker = cluster.credentials["worker/worker"]
    return Material((worker,), TrustPayload(cluster.trust, parse_trust(cluster.trust)), date=date)


SETTINGS = parse_settings(parse_arguments(["worker"]), {})


def test_a_clock_that_is_put_right_meanwhile_lets_the_boot_go_on(cluster: Cluster) -> None:
    hands = Hands(-400 * 86_400, right_after=10)
    document = verify_in_time(material(cluster, hands.elsewhere()), SETTINGS, hands.clocks(), patience=60)
    assert document.cluster == "c"
    assert 10 <= hands.passed < 11


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_stays_wrong_ends_with_both_times(cluster: Cluster, days: int) -> None:
    hands = Hands(days * 86_400)
    with pytest.raises(UnavailableError) as caught:
        verify_in_time(material(cluster, hands.elsewhere()), SETTINGS, hands.clocks(), patience=60)
    assert 60 <= hands.passed < 61
    here = datetime.fromtimestamp(hands.wall(), UTC)
    there = datetime.fromtimestamp(hands.start + hands.passed, UTC)
    for moment in (here, there):
        assert f"{moment:%Y-%m-%d %H:%M:%S}" in str(caught.value)


def test_with_a_right_clock_nobody_waits() -> None:
    fresh = make_cluster(now=datetime.now(UTC) - timedelta(days=40), slugs=["worker"])
    fresh.publish()
    hands = Hands(0)
    with pytest.raises(NotTrustedError):
        verify_in_time(material(fresh, hands.elsewhere()), SETTINGS, hands.clocks(), patience=60)
    assert hands.passed == 0


def test_secret_managers_date_is_what_the_clock_is_held_against(cloud: Cloud) -> None:
    """The leaf has expired by this machine's clock, and by Secret Manager's it has not: the clock is named."""
    past = datetime.now(UTC) - timedelta(days=31)
    old = make_cluster("old", now=past)
    old.publish(now=datetime.now(UTC) - timedelta(days=30))
    cloud.cluster = old
    old.seed(cloud.server, cloud.parent)
    cloud.server.skew_date(-30.5 * 86_400)
    with pytest.raises(UnavailableError, match="this machine's clock says") as caught:
        boot_here(cloud.environ | {"DASKPKI_DEADLINE": "1"}, "worker", "--scheduler", "tls://h")
    assert caught.value.exit_code == 75


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777.0),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("", None),
    ],
)
def test_dates(text: str, seconds: float | None) -> None:
    assert parse_date(text) == seconds


def test_a_directory_says_whose_it_is(directory: Path) -> None:
    """For a client as for the others: its name stands in its certificate."""
    environ = plain_environ(DASKPKI_CREDENTIAL_DIR=str(directory / "client"))
    assert boot_here(environ, "exec", "client", "--", "true").started


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        ("cert.pem", "CA first"),
        ("cert.pem", "garbage"),
        ("key.pem", "encrypted"),
        ("key.pem", "garbage"),
        ("ca.pem", "garbage"),
    ],
)
def test_what_is_wrong_in_a_directory_is_said_with_the_files_name(directory: Path, file: str, wrong: str) -> None:
    place = directory / "worker"
    text = (place / file).read_bytes()
    if wrong == "CA first":
        (place / file).write_bytes((place / "ca.pem").read_bytes() + text)
    elif wrong == "encrypted":
        key = serialization.load_pem_private_key(text, None)
        sealed = serialization.BestAvailableEncryption(b"abcdefgh")
        pem = serialization.Encoding.PEM
        (place / file).write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, sealed))
    else:
        (place / file).write_bytes(b"nothing")
    with pytest.raises(DaskpkiError, match=f"^{file} in the credential directory") as caught:
        boot_here(plain_environ(DASKPKI_CREDENTIAL_DIR=str(place)), "exec", "worker", "--", "true")
    assert str(place) not in f"{caught.value} {caught.value.hint}"
