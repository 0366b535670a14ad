"""Key slots: every kind opens the same store, and changing one touches nothing else."""

from __future__ import annotations

import base64
from contextlib import closing
from pathlib import Path

import pytest

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, CorruptError, DaskpkiError, NotFoundError, UsageError
from daskpki.store.local.key_slots import Unlocking
from daskpki.store.local.store import LocalStore
from daskpki.store.testing.backing import STAMP
from tests.support.keyrings import MemoryKeyring
from tests.support.local_places import CHEAP, LocalPlace
from tests.support.samples import add_sample, read_sample


@pytest.fixture
def filled(place: LocalPlace, store: LocalStore) -> LocalPlace:
    """A store with something in it, whose only slot is a key file."""
    add_sample(store)
    return place


def by_passphrase(root: Path, passphrase: str) -> Unlocking:
    path = root / "passphrase"
    path.touch(0o600)
    path.write_text(passphrase + "\n")
    return Unlocking(passphrase_file=path, cost=CHEAP)


def opens(place: LocalPlace, ways: Unlocking) -> bool:
    with closing(place.factory(ways)) as store:
        return read_sample(store)


def test_every_kind_of_slot_opens_the_same_store(filled: LocalPlace, store: LocalStore) -> None:
    keyring = MemoryKeyring()
    store.slots.add_passphrase(Confidential("hunter2"))
    store.slots.add_keyring(keyring)
    store.slots.add_key_file(filled.root / "second.key")
    code = store.slots.add_recovery()
    assert sorted(slot.kind for slot in store.slots.list()) == [
        "keyfile", "keyfile", "keyring", "passphrase", "recovery",
    ]  # fmt: skip
    for ways in (
        filled.ways,
        Unlocking(key_file=filled.root / "second.key"),
        by_passphrase(filled.root, "hunter2"),
        Unlocking(keyring=keyring),
        Unlocking(recovery_code=code),
        Unlocking(recovery_code=Confidential(code.reveal().lower())),
        Unlocking(prompt=lambda *, new: Confidential("no" if new else "hunter2")),
    ):
        assert opens(filled, ways)


@pytest.mark.parametrize(
    "ways", [Unlocking(prompt=lambda *, new: Confidential("new" if new else "no")), Unlocking(keyring=MemoryKeyring())]
)
def test_a_store_is_made_by_keyring_or_prompt_when_nothing_is_named(tmp_path: Path, ways: Unlocking) -> None:
    place = LocalPlace(tmp_path)
    with closing(place.create(ways._replace(cost=CHEAP))) as store:
        assert [slot.kind for slot in store.slots.list()] == ["keyring" if ways.keyring else "passphrase"]


def test_a_passphrase_changes_without_resealing(filled: LocalPlace, store: LocalStore) -> None:
    store.slots.add_passphrase(Confidential("old"))
    old_boxes = [slot.box for slot in store.slots.list() if slot.kind == "passphrase"]
    sealed = filled.sql("SELECT data_key, sealed FROM secret JOIN version ON secret = id")
    store.slots.change_passphrase(Confidential("new"))
    assert filled.sql("SELECT data_key, sealed FROM secret JOIN version ON secret = id") == sealed
    assert opens(filled, by_passphrase(filled.root, "new"))
    assert opens(filled, filled.ways)
    with pytest.raises(AccessDeniedError, match="passphrase is wrong"):
        opens(filled, by_passphrase(filled.root, "old"))
    # What the old passphrase opens is no longer on the disk either.
    content = b"".join(path.read_bytes() for path in filled.directory.iterdir())
    assert not any(box in content for box in old_boxes)
    assert all(slot.box in content for slot in store.slots.list())


def test_a_lost_keyring_is_not_a_lost_store(filled: LocalPlace, store: LocalStore) -> None:
    keyring = MemoryKeyring()
    store.slots.add_keyring(keyring)
    code = store.slots.add_recovery()
    keyring.entries.clear()
    with pytest.raises(AccessDeniedError, match="has no entry") as refused:
        opens(filled, Unlocking(keyring=keyring))
    assert "recovery code" in (refused.value.hint or "")
    with closing(filled.factory(Unlocking(recovery_code=code))) as recovered:
        assert read_sample(recovered)
        recovered.slots.add_keyring(keyring)
    assert opens(filled, Unlocking(keyring=keyring))


def test_a_keyring_entry_says_nothing_but_the_store_s_id(filled: LocalPlace, store: LocalStore) -> None:
    keyring = MemoryKeyring()
    slot = store.slots.add_keyring(keyring)
    ((service, username), secret) = next(iter(keyring.entries.items()))
    assert (service, username) == (f"daskpki-store-{store.id}", slot.id)
    assert len(base64.b64decode(secret.reveal())) == 32
    keyring.entries[service, username] = Confidential("!not base64!")
    with pytest.raises(CorruptError, match="keyring's entry"):
        opens(filled, Unlocking(keyring=keyring))
    keyring.entries[service, username] = Confidential(base64.b64encode(bytes(32)))
    with pytest.raises(AccessDeniedError):
        opens(filled, Unlocking(keyring=keyring))


def test_a_removed_slot_no_longer_opens(filled: LocalPlace, store: LocalStore) -> None:
    slot = store.slots.add_passphrase(Confidential("hunter2"))
    store.slots.remove(slot.id)
    with pytest.raises(AccessDeniedError, match="no key slot of kind 'passphrase'") as refused:
        opens(filled, by_passphrase(filled.root, "hunter2"))
    assert "--key-file" in (refused.value.hint or "")
    with pytest.raises(NotFoundError):
        store.slots.remove(slot.id)


def test_the_last_slot_stays(filled: LocalPlace, store: LocalStore) -> None:
    with pytest.raises(UsageError, match="is the last one"):
        store.slots.remove(store.slots.list()[0].id)
    assert opens(filled, filled.ways)


def test_slots_are_changed_by_those_only_who_can_unlock(filled: LocalPlace, store: LocalStore) -> None:
    slot = store.slots.add_passphrase(Confidential("hunter2"))
    before = store.slots.list()
    with closing(filled.factory(Unlocking())) as locked:
        for call in (
            lambda: locked.slots.add_recovery(),  # noqa: PLW0108 - so that all three look alike
            lambda: locked.slots.remove(slot.id),
            lambda: locked.slots.change_passphrase(Confidential("mine")),
            lambda: locked.slots.add_key_file(filled.root / "mine.key"),
        ):
            with pytest.raises(AccessDeniedError):
                call()
    assert store.slots.list() == before
    assert not (filled.root / "mine.key").exists()


def test_a_slot_of_another_store_does_not_open(filled: LocalPlace, tmp_path: Path) -> None:
    other = LocalPlace(tmp_path / "other")
    other.root.mkdir()
    other.key_file.touch(0o600)
    other.key_file.write_bytes(filled.key_file.read_bytes())
    other.create().close()
    box = other.sql("SELECT box FROM key_slot")[0][0]
    filled.sql("UPDATE key_slot SET box = ?", box)
    with pytest.raises(CorruptError, match="belongs elsewhere"):
        opens(filled, filled.ways)


# --- key files ---


def test_a_key_file_is_made_private_and_never_over_another(filled: LocalPlace, store: LocalStore) -> None:
    path = filled.root / "new.key"
    store.slots.add_key_file(path)
    assert (path.stat().st_mode & 0o777, len(path.read_bytes())) == (0o600, 32)
    key = path.read_bytes()
    store.slots.add_key_file(path)
    assert path.read_bytes() == key


@pytest.mark.parametrize("content", [b"", b"short", bytes(33), b"a passphrase that is longer than a key"])
def test_a_file_that_is_no_key_is_refused(filled: LocalPlace, store: LocalStore, content: bytes) -> None:
    path = filled.root / "odd.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"--key-file, .* is no key: it has \d+ bytes instead of 32"):
        opens(filled, Unlocking(key_file=path))
    with pytest.raises(UsageError, match=r"--key-file, .* is no key: it has \d+ bytes instead of 32"):
        store.slots.add_key_file(path)
    assert path.read_bytes() == content


def test_a_key_file_that_others_can_read_is_refused(filled: LocalPlace) -> None:
    filled.key_file.chmod(0o640)
    with pytest.raises(AccessDeniedError, match="open to others"):
        opens(filled, filled.ways)


def test_a_missing_key_file_is_not_made_for_a_store_that_exists(filled: LocalPlace) -> None:
    filled.key_file.unlink()
    with pytest.raises(AccessDeniedError, match=r"the store is locked: the key file \(--key-file, .*\) does not exist"):
        opens(filled, filled.ways)
    assert not filled.key_file.exists()


# --- by which way ---


def test_what_was_named_works_or_is_the_error(filled: LocalPlace, store: LocalStore) -> None:
    """A wrong key file is not made good by a keyring that would open."""
    keyring = MemoryKeyring()
    store.slots.add_keyring(keyring)
    filled.key_file.write_bytes(bytes(32))
    with pytest.raises(AccessDeniedError, match="that keyfile does not unlock"):
        opens(filled, filled.ways._replace(keyring=keyring))


def test_the_keyring_comes_before_the_prompt_and_the_prompt_after_a_locked_one(
    filled: LocalPlace, store: LocalStore
) -> None:
    keyring, asked = MemoryKeyring(), []

    def prompt(*, new: bool) -> Confidential:
        asked.append(new)
        return Confidential("hunter2")

    store.slots.add_keyring(keyring)
    store.slots.add_passphrase(Confidential("hunter2"))
    assert opens(filled, Unlocking(keyring=keyring, prompt=prompt))
    assert asked == []
    keyring.locked = True
    assert opens(filled, Unlocking(keyring=keyring, prompt=prompt))
    assert asked == [False]


def test_without_a_way_the_error_names_those_that_there_are(filled: LocalPlace, store: LocalStore) -> None:
    store.slots.add_passphrase(Confidential("hunter2"))
    with pytest.raises(AccessDeniedError, match="store is locked") as refused:
        opens(filled, Unlocking())
    hint = refused.value.hint or ""
    assert "DASKPKI_PASSPHRASE_FILE" in hint
    assert "DASKPKI_KEY_FILE" in hint
    assert "recovery" not in hint
    assert refused.value.exit_code == 5


def test_what_is_in_the_clear_is_read_without_a_key(filled: LocalPlace) -> None:
    def never(*, new: bool) -> Confidential:
        raise DaskpkiError(f"asked, new={new}")

    with closing(filled.factory(Unlocking(prompt=never))) as locked:
        assert [info.id for info in locked.secrets.select({})] == ["daskpki_c_worker_w-0"]
        assert [entry.name for entry in locked.log("c").inventory().certificates()] == ["w-0"]
        assert [record.seq for record in locked.log("c").records()] == [1, 2]
        assert list(locked.clusters()) == ["c"]
        assert next(locked.secrets.versions("daskpki_c_worker_w-0")).number == 1
        for call in (
            lambda: locked.secrets.access("daskpki_c_worker_w-0", 1),
            lambda: locked.log("c").commit(lambda _: [], STAMP),
        ):
            with pytest.raises(AccessDeniedError, match="locked"):
                call()
