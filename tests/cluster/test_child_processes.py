"""What a process leaves for those that it starts: one path, and behind it always the newest, complete."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskpki.boot.memfd import MemoryFiles
from daskpki.cluster.child_processes import parent_source
from daskpki.cluster.refresh import Poller
from daskpki.cluster.security import NodeSecurity
from daskpki.cluster.trust_updates import TrustManager
from daskpki.errors import DaskpkiError
from daskpki.handover import Handover, load_handover, parse_handover
from daskpki.identity import Role
from tests.support.cluster_material import Authority
from tests.support.nodes import handover_of

pytestmark = pytest.mark.cluster


@pytest.fixture
def own() -> Authority:
    return Authority()


@pytest.fixture(params=["memory files", "a directory on tmpfs"])
def handover(request: pytest.FixtureRequest, own: Authority, tmp_path: Path) -> Iterator[Handover]:
    written = parse_handover(handover_of(own, own.leaf(Role.WORKER), tmp_path, "limited").read_bytes())
    place = MemoryFiles()
    if request.param == "memory files":
        written = written._replace(
            cert=place.put("cert", Path(written.cert).read_bytes()),
            key=place.put("key", Path(written.key).read_bytes()),
            ca=place.put("ca", Path(written.ca).read_bytes()),
            trust=place.put("trust", Path(written.trust).read_bytes()),
        )
    yield written
    place.clear()


@pytest.fixture
def parent(handover: Handover) -> NodeSecurity:
    return NodeSecurity(handover)


def test_a_worker_process_follows_its_parent(own: Authority, parent: NodeSecurity, handover: Handover) -> None:
    path = parent.hand_to_children()
    child = NodeSecurity(load_handover(path))
    poller = Poller(child.manager, parent_source(path), share=0)
    for _change in range(3):
        document, leaf = own.document(), own.leaf(Role.WORKER)
        parent.manager.offer(own.signed(document))
        parent.manager.renew(leaf.pair)
        assert parent.hand_to_children() == path
        assert poller.poll()
        assert child.manager.document.epoch == document.epoch
        assert child.enforcement(Role.WORKER).pair == leaf.pair
    newest = load_handover(path)
    assert newest._replace(cert="", key="", ca="", trust="") == handover._replace(cert="", key="", ca="", trust="")
    assert stat.S_IMODE(Path(newest.key).stat().st_mode) & 0o077 == 0


def test_what_comes_late_starts_with_the_newest(own: Authority, parent: NodeSecurity) -> None:
    path = parent.hand_to_children()
    leaf = own.leaf(Role.WORKER)
    parent.manager.renew(leaf.pair)
    assert NodeSecurity(load_handover(path)).enforcement(Role.WORKER).pair == leaf.pair


def test_without_its_parent_nothing_changes(own: Authority, parent: NodeSecurity, tmp_path: Path) -> None:
    enforcement = parent.enforcement(Role.WORKER)
    before = enforcement.pair
    source = parent_source(str(tmp_path / "gone"))
    with pytest.raises(DaskpkiError):
        source.credential(before)
    assert not Poller(TrustManager(enforcement, own.document()), source, share=0).poll()
    assert enforcement.pair is before
