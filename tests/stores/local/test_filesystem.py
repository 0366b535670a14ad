"""Where a store may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskpki.errors import UsageError
from daskpki.store.local.database import filesystem_type, is_network, refuse_network_filesystem

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /home rw,relatime shared:5 - nfs4 server:/home rw,vers=4.2
31 30 254:1 / /home/alice/local\\040disk rw - xfs /dev/vdb rw
32 22 0:40 / /mnt/bucket rw - fuse.gcsfuse gcsfuse rw
33 22 0:41 / /mnt/over rw - nfs server:/x rw
34 22 0:42 / /mnt/over rw - tmpfs tmpfs rw
a line that is none
"""


@pytest.mark.parametrize(
    ("directory", "kind", "network"),
    [
        ("/srv/daskpki", "ext4", False),
        ("/home/alice/.local/share/daskpki", "nfs4", True),
        ("/home/alice/local disk/daskpki", "xfs", False),
        ("/homes/alice", "ext4", False),
        ("/mnt/bucket/x", "fuse.gcsfuse", True),
        ("/mnt/over/x", "tmpfs", False),
    ],
)
def test_the_innermost_and_last_mount_decides(directory: str, kind: str, *, network: bool) -> None:
    found = filesystem_type(MOUNTS, Path(directory))
    assert (found, is_network(found)) == (kind, network)


def test_without_mounts_nothing_is_known() -> None:
    assert filesystem_type("", Path("/srv")) == ""
    assert not is_network("")


def test_a_local_disk_is_taken_and_a_network_disk_refused(tmp_path: Path) -> None:
    refuse_network_filesystem(tmp_path)
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"22 1 0:26 / {tmp_path} rw - nfs4 server:/x rw\n")
    with pytest.raises(UsageError, match=r"network file system \(nfs4\)") as refused:
        refuse_network_filesystem(tmp_path / "store", mountinfo)
    assert "--store local:/path" in (refused.value.hint or "")
