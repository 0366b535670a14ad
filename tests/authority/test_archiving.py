"""What has long expired goes into a file and out of the log; nothing that still counts is lost, whatever happens."""

from __future__ import annotations

import gzip
import json
import random
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from daskpki import CertificateAuthority, secret_names
from daskpki.authority.archive_file import read_archive
from daskpki.authority.archiving import archive
from daskpki.authority.audit import verify_log
from daskpki.authority.copy import copy_cluster
from daskpki.authority.csr import proposed
from daskpki.authority.session import Session
from daskpki.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CorruptError,
    DaskpkiError,
    NotFoundError,
    PolicyError,
    UsageError,
)
from daskpki.identity import Identity, Role
from daskpki.pki.csr import create_request, parse_request
from daskpki.pki.keys import KeyType, generate_key
from daskpki.pki.profile import DAY
from daskpki.records import ISSUED, RESERVED, Draft
from daskpki.store.gsm.api import RetryPolicy
from daskpki.store.gsm.log import GsmRecordLog
from daskpki.store.gsm.store import GsmStore
from daskpki.store.port import Store
from tests.support.clocks import Clock
from tests.support.fragile import AFTER, BEFORE, FragileStore, Fuse, Killed
from tests.support.gsm_places import GsmPlace, open_place
from tests.support.local_places import LocalPlace
from tests.support.running import Run

CHANCE = random.Random(7)
COUNT, BATCH, ROOM = 500, 25, 8_192
CHANGES = ("AddSecretVersion", "DestroySecretVersion")


@pytest.fixture(params=["local", "gsm"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        with closing(LocalPlace(tmp_path).create()) as store:
            yield store
        return
    with closing(small_segments(request.getfixturevalue("place"))) as store:
        yield store


def small_segments(place: GsmPlace) -> GsmStore:
    """A store whose log seals a segment after some sixty leaves instead of a thousand."""
    store = place.factory()
    patience = RetryPolicy(place.timing)
    store._logs["default"] = GsmRecordLog(store.secrets, "default", options=None, patience=patience, room=ROOM)
    return store


@pytest.fixture
def place() -> Iterator[GsmPlace]:
    with open_place("grpc", None) as place:
        yield place


def founded(store: Store, clock: Clock) -> CertificateAuthority:
    """A cluster with clients that live on, and more than a segment of workers that ended long ago."""
    ca = CertificateAuthority(store, clock=clock)
    ca.init()
    issue(ca, Role.CLIENT, "bob", "30d")
    live(ca)
    issue(ca, Role.CLIENT, "alice", "90d")  # the CRL is due by now, so there is a new trust document
    bob = ca.find("client/bob")  # it has expired as well: an event about an archived leaf
    ca.revoke(f"{bob.serial:x}")
    return ca


def issue(ca: CertificateAuthority, role: Role, name: str, ttl: str) -> None:
    list(ca.issue(ca.requests(role, [name], ttl=ttl)))


def live(ca: CertificateAuthority) -> None:
    """Workers of a day each, recorded as if they had been issued, and two months that pass."""
    session, clock = ca.session, ca.session.clock
    assert isinstance(clock, Clock)
    now = int(session.now().timestamp())
    dates = {"not_before": now, "not_after": now + DAY - 1}
    serials = [f"{CHANCE.getrandbits(126):x}" for _ in range(COUNT)]
    common = {"role": "worker", "issuer": 1, "key_type": "p256", **dates}
    reserved = [Draft(RESERVED, {"serial": serial, "name": f"w-{serial[:8]}", **common}) for serial in serials]
    issued = [
        Draft(ISSUED, {"serial": serial, "fingerprint": f"{CHANCE.getrandbits(256):064x}", "version": 1})
        for serial in serials
    ]
    for at in range(0, COUNT, BATCH):
        for drafts in (reserved[at : at + BATCH], issued[at : at + BATCH]):
            session.log.commit(lambda _, drafts=drafts: drafts, session.stamp())  # type: ignore[misc]
    clock.advance(days=60)


def names(ca: CertificateAuthority) -> set[str]:
    return {entry.name for entry in ca.inventory().certificates()}


def test_what_counts_stays_and_the_rest_is_in_a_file(store: Store, tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "first.jsonl.gz"
    ca = founded(store, clock)
    everything = list(ca.session.log.records())
    cut = archive(ca.session, file)
    assert cut is not None
    assert cut.certificates >= COUNT // 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    header, *lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert (header["format"], header["cluster"], header["begin"]) == (1, "default", [0, "0" * 64])
    assert [line[0] for line in lines] == [record.seq for record in everything[: cut.end.seq]]
    assert list(ca.session.log.records())[:-1] == everything[cut.end.seq :]
    assert {"alice", "bob"} <= names(ca), "of bob, a later record tells"
    assert len(names(ca)) <= COUNT + 3 - cut.certificates + BATCH, "of the others, what straddles the cut"
    audited = verify_log(ca.session)
    assert (audited.begin, audited.archived) == (cut.end, 0)
    whole = verify_log(ca.session, [read_archive(file)])
    assert whole.archived == cut.end.seq
    list(ca.renew([ca.find("client/alice")]))
    issue(ca, Role.WORKER, "w-0", "1d")
    assert [entry.serial for entry in ca.revoke("client/alice")]
    assert verify_log(ca.session, [read_archive(file)]).archived == cut.end.seq
    assert archive(ca.session, tmp_path / "again") is None
    assert not (tmp_path / "again").exists()


def test_archives_follow_one_another_and_all_of_them_are_wanted(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    ca = founded(store, clock)
    files = [tmp_path / "one", tmp_path / "two"]
    archive(ca.session, files[0])
    live(ca)
    live(ca)  # until alice's certificate has expired, which was in the way
    issue(ca, Role.WORKER, "late", "1d")
    cut = archive(ca.session, files[1])
    assert cut is not None
    one, two = map(read_archive, files)
    assert (one.end, two.end) == (two.begin, cut.end)
    assert verify_log(ca.session, [two, one]).archived == cut.end.seq
    for some, message in (
        ([one], "the archives end with record"),
        ([two], "is missing before"),
        ([one, one], "missing"),
    ):
        with pytest.raises(UsageError, match=message):
            verify_log(ca.session, some)
    CertificateAuthority(store, "other", clock=clock).init()
    with pytest.raises(UsageError, match="of cluster 'default', not of 'other'"):
        verify_log(Session(store, "other", "me", "test", clock), [one, two])


@pytest.mark.parametrize("damage", ["cut off", "changed", "newer", "loose"])
def test_a_damaged_archive_is_refused(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "archive"
    with closing(LocalPlace(tmp_path).create()) as store:
        ca = founded(store, Clock())
        archive(ca.session, file)
        whole = gzip.decompress(file.read_bytes())
        lines = whole.splitlines(keepends=True)
        written = {
            "cut off": b"".join(lines[:-1]),
            "changed": whole.replace(b"worker", b"client", 1),
            "newer": whole.replace(b'"format":1', b'"format":9'),
            "loose": whole,
        }[damage]
        file.write_bytes(gzip.compress(written))
        file.chmod(0o644 if damage == "loose" else 0o600)
        with pytest.raises(DaskpkiError, match=r"cut off|does not follow|has format 9|open to others"):
            verify_log(ca.session, [read_archive(file)])


def test_what_stands_for_the_archived_is_under_the_hash_chain(tmp_path: Path) -> None:
    place, clock = LocalPlace(tmp_path), Clock()
    with closing(place.create()) as store:
        ca = founded(store, clock)
        archive(ca.session, tmp_path / "archive")
        verify_log(ca.session)
    place.sql("UPDATE archived SET body = replace(body, 'bob', 'eve')")
    with closing(place.factory()) as store, pytest.raises(CorruptError, match="no record says that the log was cut"):
        verify_log(Session(store, "default", "me", "test", clock))


def test_no_signature_vouches_no_cut(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    ca = CertificateAuthority(store, clock=clock)
    ca.init()
    vouched = ca.trust().log[0]
    issue(ca, Role.WORKER, "w", "1d")
    clock.advance(days=60)
    cut = archive(ca.session, tmp_path / "archive")
    assert cut is None or cut.end.seq <= vouched
    with pytest.raises(UsageError, match="still stands on the CRL"):
        archive(ca.session, tmp_path / "more", keep=DAY - 1)


def test_an_archived_name_is_not_free_for_a_request(tmp_path: Path) -> None:
    with closing(LocalPlace(tmp_path).create()) as store:
        clock = Clock()
        ca = CertificateAuthority(store, clock=clock)
        ca.init()
        issue(ca, Role.CLIENT, "carol", "1d")
        clock.advance(days=60)
        issue(ca, Role.WORKER, "w", "1d")
        archive(ca.session, tmp_path / "archive")
        with pytest.raises(NotFoundError):
            ca.find("client/carol")
        for name, free in (("carol", False), ("dave", True)):
            identity = Identity("default.daskpki.internal", Role.CLIENT, name)
            request = parse_request(create_request(generate_key(KeyType.P256), "default", identity))
            if free:
                assert proposed(ca, request) == (Role.CLIENT, name)
                continue
            with pytest.raises(PolicyError, match="was issued before"):
                proposed(ca, request)


def test_a_cut_log_is_copied_as_it_is(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    ca = founded(store, clock)
    archive(ca.session, tmp_path / "archive")
    (tmp_path / "copy").mkdir()
    with closing(LocalPlace(tmp_path / "copy").create()) as target:
        copied = copy_cluster(store, target, "default")
        assert copied.records == ca.inventory().head.seq
        session = Session(target, "default", "me", "test", clock)
        assert verify_log(session, [read_archive(tmp_path / "archive")]) == verify_log(
            ca.session, [read_archive(tmp_path / "archive")]
        )


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_a_command_that_dies_is_gone_on_with(store: Store, tmp_path: Path, when: str) -> None:
    clock, file = Clock(), tmp_path / "archive"
    ca = founded(store, clock)
    dying = Session(FragileStore(store, Fuse(1, when)), "default", "me", "test", clock)
    with pytest.raises(Killed):
        archive(dying, file)
    assert file.exists()
    verify_log(ca.session)
    cut = archive(ca.session, file)
    assert cut is not None
    assert verify_log(ca.session, [read_archive(file)]).archived == cut.end.seq
    issue(ca, Role.WORKER, "later", "1d")
    assert archive(ca.session, file) == cut, "once more, and nothing is cut off"


def test_another_log_s_archive_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    file = tmp_path / "archive"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with closing(LocalPlace(tmp_path / "one").create()) as other:
        archive(founded(other, Clock()).session, file)
    with closing(LocalPlace(tmp_path / "two").create()) as store:
        ca = founded(store, Clock())
        with pytest.raises(AlreadyExistsError, match="not the next archive"):
            archive(ca.session, file)
        assert verify_log(ca.session).begin.seq == 0


def test_active_versions_become_few_and_a_cut_that_fails_anywhere_loses_nothing(
    place: GsmPlace, tmp_path: Path
) -> None:
    """Each change to the log fails once, before and after it acted; what was begun is gone on with by the next try."""
    secret = place.name(secret_names.records_id("default"))
    clock, file = Clock(), tmp_path / "archive"
    with closing(small_segments(place)) as store:
        founded(store, clock)
        before = place.server.active_versions(secret)
    points = [(method, nth, acts) for method in CHANGES for nth in (1, 2, 3) for acts in (False, True)]
    for method, nth, acts in points:
        fault = place.server.fail(method, nth=nth, times=None, status="PERMISSION_DENIED", acts_first=acts)
        with closing(small_segments(place)) as store:
            session = Session(store, "default", "me", "test", clock)
            with suppress(AccessDeniedError):
                archive(session, file)
            place.end(fault)
            verify_log(session)
    with closing(small_segments(place)) as store:
        ca = CertificateAuthority(store, clock=clock)
        cut = archive(ca.session, file)
        assert cut is not None
        assert verify_log(ca.session, [read_archive(file)]).archived == cut.end.seq
        issue(ca, Role.WORKER, "later", "1d")
        issue(ca, Role.WORKER, "latest", "1d")
        after = place.server.active_versions(secret)
        segments = store.log("default")._head()
    assert segments is not None
    assert len(before) >= 6, "three open ones and the sealed segments"
    assert len(after) <= 3 + len(segments.segments) + 1, "and one that says what stands for the archived records"
    assert len(after) < len(before)


def test_by_the_command(run: Run, tmp_path: Path) -> None:
    run("init-ca", "--with", "worker")
    file = str(tmp_path / "archive")
    assert "nothing to archive" in run("audit", "--archive", file, "--keep", "1d").out
    assert run("audit", "--archive", file, "--json").json() == {"file": None}
    run("audit", "--archive", file, "--verify", code=2)
    run("audit", file, code=2)
    run("audit", "--archive", file, "--keep", "1h", code=2)
    run("audit", "--verify", file, code=4)
