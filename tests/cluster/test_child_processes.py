"""What a process leaves for those that it starts: one path, and behind it always the newest, complete."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daskpki.boot.memfd import MemoryFiles
from daskpki.cluster.child_processes import ChildHandover, parent_source
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
        parent.manager.accept_trust(own.signed(document))
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


def test_forty_trust_documents_after_a_renewal_leave_its_credential_readable(
    own: Authority, parent: NodeSecurity
) -> None:
    path, leaf = parent.hand_to_children(), own.leaf(Role.WORKER)
    parent.manager.renew(leaf.pair)
    for _change in range(40):
        parent.manager.accept_trust(own.signed(own.document()))
    restarted = NodeSecurity(load_handover(path))
    assert restarted.enforcement(Role.WORKER).pair == leaf.pair
    assert restarted.manager.document.epoch == parent.manager.document.epoch


def test_a_trust_document_and_a_credential_that_come_at_once_are_both_kept(
    own: Authority, parent: NodeSecurity
) -> None:
    """One comes in the event loop, the other in a poll's thread: without a lock, one of 200 rounds loses one."""
    kept, pairs = ChildHandover(parent.handover), [own.leaf(Role.WORKER).pair for _ in range(2)]
    enforcement, documents = parent.enforcement(Role.WORKER), [own.document() for _ in range(2)]
    managers = [TrustManager(enforcement, document, own.signed(document)) for document in documents]
    with ThreadPoolExecutor(2) as threads:
        for number in range(200):
            pair, manager = pairs[number % 2], managers[number % 2]
            for done in [threads.submit(kept.keep_credential, pair), threads.submit(kept.keep_trust, manager)]:
                done.result()
            newest = load_handover(kept.path)
            assert manager.signed is not None
            assert Path(newest.cert).read_text() == pair.certificates
            assert Path(newest.trust).read_bytes() == manager.signed.reveal()
