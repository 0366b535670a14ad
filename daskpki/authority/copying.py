"""Copy a cluster from one store to another, so that the copy is the original: same numbers, bytes, hashes, states.

The records name versions by number, and so do the trust document and its CRL pieces; a version therefore keeps its
number, and where the original was destroyed, a placeholder is destroyed in its place. The log comes last, so that the
target holds no cluster before it holds all of it. A copy that was cut off is resumed: what is there must be the
beginning of what is to be copied, and anything else is refused. At the end both are read again and compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from daskpki import naming
from daskpki.confidential import Confidential
from daskpki.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptError,
    DisabledError,
    NotFoundError,
    PolicyError,
)
from daskpki.records import EMPTY, Record
from daskpki.store.port import DESTROYED, DISABLED, ENABLED, SecretInfo, SecretStore, Store

_CHUNK: Final = 2_000
"""Records that are appended at once."""
_ROUNDS: Final = 5
_PLACEHOLDER: Final = Confidential(b"destroyed before this copy was made")


class Copied(NamedTuple):
    """What the target holds now, verified: secrets, versions that can be read, records."""

    secrets: int
    versions: int
    records: int


def copy_cluster(source: Store, target: Store, cluster: str) -> Copied:
    """Copy the cluster and verify the copy; the source is only read.

    Raises:
        NotFoundError: the source has no such cluster.
        AlreadyExistsError: the target has something else under these names.
        PolicyError: a version is disabled, so that it cannot be read.
        ConflictError: the source changes faster than it is copied.
    """
    if cluster not in source.clusters():
        raise NotFoundError(f"there is no cluster {cluster!r} in {source.url}")
    _check_vacant(source, target, cluster)
    for _ in range(_ROUNDS):
        head = source.log(cluster).authenticate()
        present = {info.id for info in _secrets(target, cluster)}
        for info in _secrets(source, cluster):
            if info.id not in present:
                with suppress(AlreadyExistsError):  # an earlier copy that was cut off; the list may lag
                    target.secrets.create(info.id, labels=info.labels, annotations=info.annotations)
            _copy_versions(source.secrets, target.secrets, info.id)
        _copy_log(source, target, cluster)
        if source.log(cluster).inventory().head == head:
            return _verify(source, target, cluster)
    raise ConflictError(
        f"cluster {cluster!r} in {source.url} keeps changing", hint="copy it while nobody issues or revokes"
    )


def _secrets(store: Store, cluster: str) -> list[SecretInfo]:
    """All secrets of the cluster but the one in which some stores keep the log."""
    found = store.secrets.select({"daskpki-cluster": cluster})
    return [info for info in found if info.id != naming.records_id(cluster)]


def _check_vacant(source: Store, target: Store, cluster: str) -> None:
    """What the target has of the cluster must be the beginning of a copy."""
    mine = {info.id for info in _secrets(source, cluster)}
    for info in _secrets(target, cluster):
        if info.id not in mine:
            raise _occupied(target, info.id)
    theirs = iter(source.log(cluster).records())
    if target.log(cluster).base().head not in (EMPTY, source.log(cluster).base().head):
        raise _occupied(target, f"the log of cluster {cluster!r}")
    for record in target.log(cluster).records():
        if next(theirs, None) != record:
            raise _occupied(target, f"the log of cluster {cluster!r} (record {record.seq})")


def _occupied(target: Store, what: str) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"{what} in {target.url} is not a copy of what is here", hint="copy to a store without a cluster of that name"
    )


def _copy_versions(source: SecretStore, target: SecretStore, secret: str) -> None:
    wanted = _states(source, secret)
    present = _states(target, secret)
    for number in range(1, max(wanted, default=0) + 1):
        payload = _payload(source, secret, number, wanted.get(number, DESTROYED))
        if number not in present:
            _add(target, secret, number, payload)
        elif payload is not None and present[number] == ENABLED and target.access(secret, number) != payload:
            raise AlreadyExistsError(f"{secret}, version {number} in the target is another one")
        if payload is None and present.get(number) != DESTROYED:
            target.destroy(secret, number)


def _states(store: SecretStore, secret: str) -> Mapping[int, str]:
    """Each version's state: from the list, which may lag, and by number from there on."""
    states = {version.number: version.state for version in store.versions(secret)}
    with suppress(NotFoundError):
        while True:
            number = max(states, default=0) + 1
            try:
                store.access(secret, number)
                states[number] = ENABLED
            except DisabledError:
                states[number] = DISABLED
    return states


def _payload(store: SecretStore, secret: str, number: int, state: str) -> Confidential | None:
    """What the version holds; None when it is destroyed."""
    if state == DISABLED:
        raise PolicyError(
            f"version {number} of {secret} is disabled, so it cannot be read to be copied",
            hint="enable or destroy it first",
        )
    return None if state == DESTROYED else store.access(secret, number)


def _add(target: SecretStore, secret: str, number: int, payload: Confidential | None) -> None:
    added = target.add(secret, payload or _PLACEHOLDER)
    if added != number:
        raise ConflictError(f"{secret} in the target got version {added} instead of {number}: somebody else writes it")


def _copy_log(source: Store, target: Store, cluster: str) -> None:
    log = target.log(cluster)
    base = source.log(cluster).base()
    if base.head != EMPTY:
        log.begin(base)
    for records in _chunks(source.log(cluster).records(after=log.inventory().head.seq)):
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
    versions = 0
    for info in mine:
        copied = copies.get(info.id)
        if copied is None or (copied.labels, copied.annotations) != (info.labels, info.annotations):
            raise CorruptError(f"{info.id} in {target.url} is not labelled as in {source.url}")
        versions += _verify_versions(source.secrets, target.secrets, info.id)
    return Copied(len(mine), versions, target.log(cluster).inventory().head.seq)


def _verify_versions(source: SecretStore, target: SecretStore, secret: str) -> int:
    wanted = _states(source, secret)
    if _states(target, secret) != wanted:
        raise CorruptError(f"the versions of {secret} in the target are not in the states of the original's")
    readable = [number for number, state in wanted.items() if state == ENABLED]
    for number in readable:
        if source.access(secret, number) != target.access(secret, number):
            raise CorruptError(f"{secret}, version {number} in the target differs from the original")
    return len(readable)
