"""Copy a cluster from one store to another, so that the copy is the original: same numbers, bytes, hashes, states.

The records name versions by number, and so does the trust document; a version therefore keeps its
number (`daskpki.authority.copying_versions`). The log comes last, so that the target holds no cluster before it holds
all of it. A copy that was cut off is resumed: what is there must be the beginning of what is to be copied, and anything
else is refused. At the end both are read again and compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from daskpki import naming
from daskpki.authority.copying_versions import Numbered, compare_versions, copy_versions, refusal, unreadable
from daskpki.errors import AlreadyExistsError, ConflictError, CorruptError, NotFoundError
from daskpki.records import Record
from daskpki.store.port import SecretInfo, SecretStore, Store

_CHUNK: Final = 2_000
"""Records that are appended at once."""
_ROUNDS: Final = 5


class Copied(NamedTuple):
    """What the target holds now, verified: secrets, versions that can be read, records; and what it lacks."""

    secrets: int
    versions: int
    records: int
    left_out: tuple[Numbered, ...]


def copy_cluster(source: Store, target: Store, cluster: str, *, without_disabled: bool = False) -> Copied:
    """Copy the cluster and verify the copy; the source is only read.

    Raises:
        NotFoundError: the source has no such cluster.
        AlreadyExistsError: the target has something else under these names.
        PolicyError: a version is disabled, so that it cannot be read, and these are not to be left out.
        ConflictError: the source changes faster than it is copied.
    """
    if cluster not in source.clusters():
        raise NotFoundError(f"there is no cluster {cluster!r} in {source.url}")
    _check_vacant(source, target, cluster)
    if not without_disabled:
        _check_readable(source, target, cluster)
    for _ in range(_ROUNDS):
        head = source.log(cluster).authenticate()
        present = {info.id: info for info in _secrets(target, cluster)}
        for info in _secrets(source, cluster):
            _copy_metadata(target.secrets, info, present.get(info.id))
            copy_versions(source.secrets, target.secrets, info.id, leave_out=without_disabled)
        _copy_log(source, target, cluster)
        if source.log(cluster).inventory().head == head:
            return _verify(source, target, cluster)
    raise ConflictError(
        f"cluster {cluster!r} in {source.url} keeps changing", hint="copy it while nobody issues or revokes"
    )


def _secrets(store: Store, cluster: str) -> list[SecretInfo]:
    """All secrets of the cluster but those in which some stores keep the logs."""
    found = store.secrets.select({"daskpki-cluster": cluster})
    logs = (naming.records_id(cluster), naming.events_id(cluster))
    return [info for info in found if info.id not in logs]


def _check_vacant(source: Store, target: Store, cluster: str) -> None:
    """What the target has of the cluster must be the beginning of a copy."""
    mine = {info.id for info in _secrets(source, cluster)}
    for info in _secrets(target, cluster):
        if info.id not in mine:
            raise _occupied(target, info.id)
    theirs = iter(source.log(cluster).records())
    for record in target.log(cluster).records():
        if next(theirs, None) != record:
            raise _occupied(target, f"the log of cluster {cluster!r} (record {record.seq})")


def _occupied(target: Store, what: str) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"{what} in {target.url} is not a copy of what is here", hint="copy to a store without a cluster of that name"
    )


def _check_readable(source: Store, target: Store, cluster: str) -> None:
    """Find what is disabled before anything is copied."""
    found = [each for info in _secrets(source, cluster) for each in unreadable(source.secrets, target.secrets, info.id)]
    if found:
        raise refusal(found)


def _copy_metadata(target: SecretStore, info: SecretInfo, present: SecretInfo | None) -> None:
    """Make the secret, or give it the annotations that the original has by now."""
    if present is None:
        with suppress(AlreadyExistsError):  # an earlier copy that was cut off; the list may lag
            target.create(info.id, labels=info.labels, annotations=info.annotations)
    elif present.annotations != info.annotations:
        target.update(info.id, etag=present.etag, annotations=info.annotations)


def _copy_log(source: Store, target: Store, cluster: str) -> None:
    for here, there in ((source.events, target.events), (source.log, target.log)):
        log = there(cluster)
        for records in _chunks(here(cluster).records(after=log.inventory().head.seq)):
            log.adopt(records)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    pending = iter(records)
    while chunk := list(islice(pending, _CHUNK)):
        yield chunk


def _verify(source: Store, target: Store, cluster: str) -> Copied:
    """Read both again, and compare everything."""
    if target.log(cluster).authenticate() != source.log(cluster).authenticate():
        raise CorruptError(f"the log of {cluster!r} in {target.url} does not end as in {source.url}")
    mine, copies = _secrets(source, cluster), {info.id: info for info in _secrets(target, cluster)}
    versions, left_out = 0, list[Numbered]()
    for info in mine:
        copied = copies.get(info.id)
        if copied is None or (copied.labels, copied.annotations) != (info.labels, info.annotations):
            raise CorruptError(f"{info.id} in {target.url} is not labelled as in {source.url}")
        compared = compare_versions(source.secrets, target.secrets, info.id)
        versions += compared.readable
        left_out += compared.left_out
    return Copied(len(mine), versions, target.log(cluster).inventory().head.seq, tuple(left_out))
