"""Where a store may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.errors import UsageError
from daskpki.files import filesystem_types
from daskpki.store.local.database import is_network, refuse_network_filesystem


def mounts_on(directory: Path, kind: str) -> Path:
    """A list of mounts in which the file system of a directory has that type."""
    number = directory.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    mountinfo = directory / "mountinfo"
    mountinfo.write_text(
        "22 1 254:999 / / rw,relatime - ext4 /dev/vda rw\n"
        f"30 22 {device} / /home/alice/local\\040disk rw,relatime shared:5 - {kind} server:/home rw,vers=4.2\n"
        f"33 22 {device}1 / /mnt/other rw - xfs /dev/vdb rw\n"
        "a line that is none\n - \n"
    )
    return mountinfo


@pytest.mark.parametrize(
    ("kind", "network"),
    [("ext4", False), ("nfs4", True), ("fuse.gcsfuse", True), ("fuse.portal", False), ("tmpfs", False)],
)
def test_the_mounts_of_the_same_device_decide(tmp_path: Path, kind: str, *, network: bool) -> None:
    assert filesystem_types(tmp_path, mounts_on(tmp_path, kind)) == {kind}
    assert is_network(kind) == network


def test_without_mounts_nothing_is_known(tmp_path: Path) -> None:
    assert filesystem_types(tmp_path, tmp_path / "none") == set()
    assert filesystem_types(tmp_path / "none") == set()
    assert not is_network("")


@given(text=st.text())
def test_other_texts_are_no_mounts(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    place = tmp_path_factory.getbasetemp()
    (place / "mountinfo").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert filesystem_types(place, place / "mountinfo") == set()


def test_a_local_disk_is_taken_and_a_network_disk_refused(tmp_path: Path) -> None:
    refuse_network_filesystem(tmp_path)
    mountinfo = mounts_on(tmp_path, "nfs4")
    with pytest.raises(UsageError, match=r"network file system \(nfs4\)") as refused:
        refuse_network_filesystem(tmp_path, mountinfo)
    assert "--store local:/path" in (refused.value.hint or "")
