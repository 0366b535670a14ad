"""What is disabled cannot be read: a copy says so, leaves it out when told to, or brings the state of what it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daskpki import secret_names
from daskpki.authority.copy import Copied, Numbered, copy_cluster
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, PolicyError
from daskpki.store.port import DESTROYED, DISABLED, ENABLED, Store
from tests.emulator import SecretManagerServer
from tests.support.command_stores import CLOUD
from tests.support.gsm_places import open_place
from tests.support.local_places import LocalPlace
from tests.support.running import Run

SECRET = secret_names.user_secret_id("default", "db")
ANNOTATIONS = {"note": "of the database"}


@pytest.fixture
def disk(local: Run, tmp_path: Path) -> Iterator[Store]:
    """A cluster with another secret: its first version destroyed, its second disabled, its third the value."""
    local("init-ca")
    with closing(LocalPlace(tmp_path).factory()) as store:
        store.secrets.create(
            SECRET, labels=secret_names.labels("default", secret_names.SECRET, "db"), annotations=ANNOTATIONS
        )
        for text in ("one", "two", "three"):
            store.secrets.add(SECRET, Confidential(text))
        store.secrets.destroy(SECRET, 1)
        store.secrets.disable(SECRET, 2)
        yield store


@pytest.fixture
def gsm() -> Iterator[Store]:
    with open_place("grpc", None) as place, closing(place.factory()) as store:
        yield store


@pytest.fixture(params=["to Secret Manager", "from Secret Manager"])
def pair(request: pytest.FixtureRequest, disk: Store, gsm: Store, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Such a cluster, and an empty store of the other kind."""
    if request.param == "to Secret Manager":
        yield disk, gsm
        return
    disk.secrets.enable(SECRET, 2)
    copy_cluster(disk, gsm, "default")
    gsm.secrets.disable(SECRET, 2)
    with closing(LocalPlace(tmp_path / "back").create()) as target:
        yield gsm, target


def states(store: Store) -> list[str]:
    """Oldest first."""
    return [version.state for version in sorted(store.secrets.versions(SECRET))]


def test_a_copy_is_refused_before_it_begins(pair: tuple[Store, Store]) -> None:
    source, target = pair
    with pytest.raises(PolicyError, match=f"{SECRET}, version 2") as refused:
        copy_cluster(source, target, "default")
    assert "--without-disabled" in str(refused.value.hint)
    assert (list(target.clusters()), list(target.secrets.select({}))) == ([], [])
    assert states(source) == [DESTROYED, DISABLED, ENABLED]


def test_left_out_on_request_it_is_destroyed_in_the_copy(pair: tuple[Store, Store]) -> None:
    source, target = pair
    for _ in range(2):  # once more changes nothing
        copied = copy_cluster(source, target, "default", without_disabled=True)
        assert copied.left_out == (Numbered(SECRET, 2),)
        assert states(target) == [DESTROYED, DESTROYED, ENABLED]
        assert target.secrets.access(SECRET, 3) == Confidential("three")
        assert target.secrets.describe(SECRET).annotations == ANNOTATIONS
        assert states(source) == [DESTROYED, DISABLED, ENABLED], "the source is only read"
    with pytest.raises(PolicyError, match="version 2"):
        copy_cluster(source, target, "default")
    source.secrets.enable(SECRET, 2)
    with pytest.raises(AlreadyExistsError, match="version 2 was left out of the existing copy"):
        copy_cluster(source, target, "default")


@pytest.mark.parametrize("without_disabled", [False, True])
def test_what_came_over_while_it_was_enabled_follows_into_its_state(
    pair: tuple[Store, Store], *, without_disabled: bool
) -> None:
    source, target = pair

    def again() -> Copied:
        return copy_cluster(source, target, "default", without_disabled=without_disabled)

    source.secrets.enable(SECRET, 2)
    again()
    source.secrets.disable(SECRET, 2)
    assert again().left_out == ()
    assert states(target) == [DESTROYED, DISABLED, ENABLED]
    source.secrets.enable(SECRET, 2)
    again()
    assert target.secrets.access(SECRET, 2) == Confidential("two")
    source.secrets.destroy(SECRET, 2)
    again()
    assert states(target) == [DESTROYED, DESTROYED, ENABLED]


def test_a_placeholder_that_was_left_by_a_kill_is_not_taken_for_the_payload(
    disk: Store, cloud: Run, local: Run, server: SecretManagerServer
) -> None:
    killed = server.fail("DestroySecretVersion", nth=2, times=None, http=403)  # after version 2 was added
    local("copy", "--to", CLOUD, "--without-disabled", code=5)
    server.faults.remove(killed)
    assert "version 2" in local("copy", "--to", CLOUD, code=3).err
    told = local("copy", "--to", CLOUD, "--without-disabled", "--json").json()
    assert told["left_out"] == [{"secret": SECRET, "version": 2}]
    found = cloud("secret", "versions", "db", "--json").json()
    assert [version["state"] for version in found] == [ENABLED, DESTROYED, DESTROYED]
    assert cloud("secret", "get", "db").out == "three"
    assert states(disk) == [DESTROYED, DISABLED, ENABLED]


def test_a_list_that_lags_hides_no_payload_and_passes_nothing_off_as_disabled(
    disk: Store, cloud: Run, local: Run, server: SecretManagerServer
) -> None:
    local("copy", "--to", CLOUD, "--without-disabled")
    server.latest_lag(f"projects/my-project/secrets/{SECRET}", at=2)
    assert local("copy", "--to", CLOUD, "--without-disabled", "--json").json()["left_out"]
    server.latest_lag(f"projects/my-project/secrets/{SECRET}", at=1)
    late = local("copy", "--to", CLOUD, "--without-disabled", code=75)
    assert f"{SECRET}, version 2 is not in the list of versions yet" in late.err
    server.latest_catch_up()
    assert cloud("secret", "versions", "db", "--json").json()[1]["state"] == DESTROYED
    assert states(disk) == [DESTROYED, DISABLED, ENABLED]


def test_the_command_says_what_it_left_out_and_carries_states_by_the_way_that_it_names(
    local: Run, cloud: Run, tmp_path: Path
) -> None:
    (tmp_path / "value").write_text("x")
    local("init-ca")
    for _ in range(2):
        local("secret", "set", "db", "--file", str(tmp_path / "value"))
    local("secret", "disable", "db", "1")
    refused = local("copy", "--to", CLOUD, code=3)
    assert f"{SECRET}, version 1" in refused.err
    assert "enable them, copy, disable them again and copy once more" in refused.err
    local("secret", "disable", "db", "1", "--undo")
    local("copy", "--to", CLOUD)
    local("secret", "disable", "db", "1")
    local("secret", "rollback", "db", "--to", "2")  # which also changes an annotation
    local("copy", "--to", CLOUD)
    there, here = (run("secret", "versions", "db", "--json").json() for run in (cloud, local))
    assert [(one["number"], one["state"]) for one in there] == [(one["number"], one["state"]) for one in here]
    assert there[-1]["state"] == DISABLED
    cloud("audit", "--verify")
    other = "local:" + str(tmp_path / "other")
    left_out = local("copy", "--to", other, "--without-disabled").out
    assert f"left out, since it is disabled: {SECRET}, version 1" in left_out
