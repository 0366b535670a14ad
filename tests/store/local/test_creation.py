"""How a store comes to be: private from its first instant, complete or absent, made once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from daskpki.confidential import Confidential
from daskpki.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CorruptError,
    DaskpkiError,
    NotFoundError,
    NotTrustedError,
)
from daskpki.files import write_private
from daskpki.settings import LocalUrl
from daskpki.store.local.backup import read_backup, write_backup
from daskpki.store.local.database import check_files
from daskpki.store.local.key_slots import Unlocking, create_key_file
from daskpki.store.local.store import LocalStore
from daskpki.store.opening import open_store
from tests.support.disks import as_root, tmpfs
from tests.support.local_places import CHEAP, LocalPlace, create_store
from tests.support.samples import add_sample, read_sample


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    previous = os.umask(0)
    try:
        with closing(place.create()) as store:
            add_sample(store)
            files = {path.name: mode(path) for path in place.directory.iterdir()}
    finally:
        os.umask(previous)
    assert files == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert (mode(place.directory), mode(place.key_file)) == (0o700, 0o600)


def test_a_store_is_never_made_over_another(place: LocalPlace, store: LocalStore) -> None:
    add_sample(store)
    with pytest.raises(AlreadyExistsError, match="there is a store in"):
        place.create()
    assert read_sample(store)


@pytest.mark.parametrize("key", ["made before", "made by one of them"])
def test_of_many_creators_one_makes_the_store_and_all_use_it(tmp_path: Path, key: str) -> None:
    environ = {"DASKPKI_HOME": str(tmp_path / "home"), "DASKPKI_KEY_FILE": str(tmp_path / "key")}
    if key == "made before":
        write_private(tmp_path / "key", bytes(range(32)))

    def open_it(_: int) -> str:
        with closing(open_store(LocalUrl(None), environ=environ, create=True)) as store:
            assert isinstance(store, LocalStore)
            return store.id

    with ThreadPoolExecutor(8) as executor:
        assert len(set(executor.map(open_it, range(8)))) == 1
    assert [path.name for path in (tmp_path / "home" / "store").iterdir()] == ["store.db"]


def test_of_many_that_make_a_key_file_all_read_the_same_key(tmp_path: Path) -> None:
    for number in range(50):
        with ThreadPoolExecutor(4) as executor:
            keys = list(executor.map(create_key_file, [tmp_path / f"key-{number}"] * 4))
        assert {key.reveal() for key in keys} == {(tmp_path / f"key-{number}").read_bytes()}


def test_a_store_opens_while_another_process_that_closes_it_removes_its_log(place: LocalPlace) -> None:
    log, over = place.directory / "store.db-wal", threading.Event()

    def come_and_go() -> int:
        times = 0
        while not over.is_set():
            log.touch(0o600)
            log.unlink()
            times += 1
        return times

    with ThreadPoolExecutor() as executor:
        other = executor.submit(come_and_go)
        try:
            for _ in range(5_000):
                check_files(place.database)
        finally:
            over.set()
        assert other.result() > 100


def test_what_a_crash_left_is_cleaned_away(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    place.directory.mkdir(0o700)
    (place.directory / ".tmp-store.db-0123").write_bytes(b"key material")
    (place.directory / ".tmp-store.db-0123-wal").write_bytes(b"key material")
    place.create().close()
    assert [path.name for path in place.directory.iterdir()] == ["store.db"]


def test_nothing_is_made_without_protection(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    with pytest.raises(AccessDeniedError, match="there is no key to protect") as refused:
        place.create(Unlocking(cost=CHEAP))
    assert "--key-file" in (refused.value.hint or "")
    assert list(place.directory.iterdir()) == []


def test_a_missing_store_is_not_found_unless_it_is_to_be_made(tmp_path: Path) -> None:
    environ = {"DASKPKI_HOME": str(tmp_path), "DASKPKI_KEY_FILE": str(tmp_path / "key")}
    with pytest.raises(NotFoundError, match="no store in") as missing:
        open_store(LocalUrl(None), environ=environ)
    assert "init-ca" in (missing.value.hint or "")
    assert list(tmp_path.iterdir()) == []
    create_store(LocalUrl(None), unlock=Unlocking(), environ=environ).close()
    with closing(open_store(LocalUrl(None), environ=environ)) as store:
        assert store.url == f"local:{tmp_path}/store"


@pytest.mark.parametrize("name", ["", "store.db", "store.db-wal", "store.db-shm"])
def test_files_that_others_can_read_are_refused_as_ssh_does(place: LocalPlace, name: str) -> None:
    (place.directory / "store.db-wal").touch(0o600)
    (place.directory / "store.db-shm").touch(0o600)
    path = place.directory / name
    path.chmod(mode(path) | 0o040)
    with pytest.raises(AccessDeniedError, match="is open to others") as refused:
        place.factory()
    assert (refused.value.hint or "").startswith("chmod ")


def test_files_of_another_user_are_refused(place: LocalPlace) -> None:
    as_root("chown", "65534", str(place.database))
    with pytest.raises(AccessDeniedError, match="belongs to another user"):
        place.factory()


def test_a_symbolic_link_is_no_store(place: LocalPlace) -> None:
    elsewhere = place.root / "elsewhere.db"
    place.database.rename(elsewhere)
    place.database.symlink_to(elsewhere)
    with pytest.raises(NotTrustedError, match="symbolic link"):
        place.factory()
    with pytest.raises(AlreadyExistsError):
        place.create()


def test_a_store_in_a_read_only_directory_says_so(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir(0o700)
    place = LocalPlace(mounted)
    with tmpfs(mounted, "size=4m"):
        place.create().close()
        as_root("mount", "-o", "remount,ro", str(mounted))
        with pytest.raises(AccessDeniedError, match=r"store\.db.*") as refused:
            place.factory()
        assert "writable" in (refused.value.hint or "")
        with pytest.raises(DaskpkiError, match="Read-only file system"):
            LocalPlace(mounted / "other").create()


def test_a_full_disk_loses_nothing_and_says_so(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir(0o700)
    with tmpfs(mounted, "size=400k"):
        place = LocalPlace(mounted)
        with closing(place.create()) as store:
            secret = add_sample(store)
            with pytest.raises(DaskpkiError, match="disk is full"):
                fill(store, secret)
            acknowledged = next(store.secrets.versions(secret)).number
            assert 1 < acknowledged < 50
            assert [version.number for version in store.secrets.versions(secret)] == list(range(acknowledged, 0, -1))
            assert read_sample(store)
        as_root("mount", "-o", "remount,size=4m", str(mounted))
        with closing(place.factory()) as store:
            assert read_sample(store)
            assert store.secrets.add(secret, Confidential(bytes(20_000))) == acknowledged + 1


def test_a_disk_too_full_for_a_store_gets_none(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir(0o700)
    with tmpfs(mounted, "size=40k"):
        place = LocalPlace(mounted)
        with pytest.raises(DaskpkiError, match="disk"):
            place.create()
        assert list(place.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "not the database of a daskpki store"),
        (b"garbage" * 1000, "damaged, or no daskpki store"),
        (b"-----BEGIN CERTIFICATE-----\n", "damaged, or no daskpki store"),
        (b"SQLite format 3\0" + bytes(84), "damaged, or no daskpki store"),
        (b"SQLite format 3\0" + bytes(52) + b"DPKI" + bytes(28), "damaged, or no daskpki store"),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_left_alone(place: LocalPlace, content: bytes, error: str) -> None:
    place.database.write_bytes(content)
    with pytest.raises(CorruptError, match=error):
        place.factory()
    assert place.database.read_bytes() == content


def test_another_program_s_database_is_refused_and_left_alone(place: LocalPlace) -> None:
    place.database.unlink()
    place.sql("CREATE TABLE cookies (name TEXT)")
    place.database.chmod(0o600)
    before = place.database.read_bytes()
    with pytest.raises(CorruptError, match="not the database of a daskpki store"):
        place.factory()
    assert place.database.read_bytes() == before


def test_a_store_may_lie_under_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path / os.fsdecode(b"jos\xe9 100%?"))
    place.root.mkdir(0o700)
    with closing(place.create()) as store:
        add_sample(store)
    with closing(place.factory()) as store:
        assert read_sample(store)
    file = place.root / "one.backup"
    assert write_backup(place.directory, file) == read_backup(file)


def test_a_newer_format_is_refused_by_name(place: LocalPlace) -> None:
    place.sql("PRAGMA user_version=3")
    with pytest.raises(NotTrustedError, match="format 3; this daskpki reads 1"):
        place.factory()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE secret RENAME COLUMN mac TO other",
        "ALTER TABLE record RENAME COLUMN signatures TO other",
        "DROP TABLE key_slot",
    ],
)
def test_tables_of_an_unreleased_version_are_refused_with_the_way_out(place: LocalPlace, change: str) -> None:
    with closing(place.factory()) as store:
        add_sample(store)
    place.sql(change)
    with pytest.raises(NotTrustedError, match="has another format than this daskpki reads") as refused:
        use_everything(place)
    assert "use the version that made it; or move" in (refused.value.hint or "")


def test_a_truncated_store_is_refused_at_every_length(place: LocalPlace) -> None:
    with closing(place.factory()) as store:
        add_sample(store)
    whole = place.database.read_bytes()
    assert len(whole) > 40_000
    for length in range(0, len(whole), 4096):
        place.database.write_bytes(whole[:length])
        with pytest.raises(NotTrustedError):
            use_everything(place)
    place.database.write_bytes(whole)
    use_everything(place)


def fill(store: LocalStore, secret: str) -> None:
    for _ in range(50):  # 1 MB
        store.secrets.add(secret, Confidential(bytes(20_000)))


def use_everything(place: LocalPlace) -> None:
    with closing(place.factory()) as store:
        assert read_sample(store)
        list(store.log("c").records())
        list(store.log("c").inventory().certificates())
        store.log("c").authenticate()


def test_opening_a_store_imports_neither_x509_nor_the_cloud() -> None:
    script = "import sys, daskpki.store.opening; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "daskpki.store.local.store" in modules
    for heavy in ("cryptography.x509", "google", "keyring", "pytest", "hypothesis", "distributed", "typer", "asyncio"):
        assert heavy not in modules
