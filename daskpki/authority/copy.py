"""Copies a cluster from one store to another: same numbers, bytes, hashes and states.

Records and trust document name versions by number, so each version keeps its number. The log comes last, so that the
target has no cluster before it has all of it, and only a log that counts is copied (`daskpki.authority.anchor`). An
interrupted copy is resumed: the target's content must be the beginning of a copy; anything else is refused. At the end
both stores are read again and compared.

A destroyed version is copied as a placeholder that is destroyed, so that the numbers agree. A disabled version cannot
be read, and this command never enables one, not even for a moment: that would change the source for all its readers,
would take rights that a copy does not need, and a kill would leave it enabled. So either its payload was copied while
it was enabled, and the copy is now disabled as well; or `--without-disabled` copies it like a destroyed one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from daskpki import secret_names
from daskpki.authority.anchor import Anchored
from daskpki.authority.session import utc_now
from daskpki.confidential import Confidential
from daskpki.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptError,
    DisabledError,
    NotFoundError,
    PolicyError,
    UnavailableError,
)
from daskpki.records import Head
from daskpki.store.port import DESTROYED, DISABLED, ENABLED, RecordLog, SecretInfo, SecretStore, Store

_PLACEHOLDER: Final = Confidential(b"destroyed before this copy was made")


class Numbered(NamedTuple):
    """A version of a secret."""

    secret: str
    version: int


def unreadable(source: SecretStore, target: SecretStore, secret: str) -> Iterator[Numbered]:
    """The versions that are disabled in the source, and whose payload the target does not have."""
    disabled = [version.number for version in source.versions(secret) if version.state == DISABLED]
    if not disabled:
        return
    try:
        present = _states(target, secret)
    except NotFoundError:  # nothing was copied yet
        present = {}
    for number in sorted(disabled):
        if not _has_payload(target, secret, number, present.get(number)):
            yield Numbered(secret, number)


def refusal(disabled: Sequence[Numbered]) -> PolicyError:
    """The error for disabled versions that keep a cluster from being copied."""
    named = "; ".join(f"{secret}, version {number}" for secret, number in disabled)
    return PolicyError(
        f"disabled versions cannot be read, so they cannot be copied: {named}",
        hint="enable them, copy, disable them again and copy once more; or leave them out with --without-disabled",
    )


def copy_versions(source: SecretStore, target: SecretStore, secret: str, *, leave_out: bool) -> None:
    """Add the versions that the target lacks, and bring the others into the original's state.

    Raises:
        PolicyError: a disabled version has no copy in the target, and `leave_out` is false.
        AlreadyExistsError: a version of the target has another payload, or was destroyed.
        ConflictError: somebody else adds versions to the target.
    """
    wanted, present = _states(source, secret), _states(target, secret)
    for number in range(1, max(wanted, default=0) + 1):
        state, there = wanted.get(number, DESTROYED), present.get(number)
        if state == DISABLED and not _has_payload(target, secret, number, there):
            if not leave_out:
                raise refusal([Numbered(secret, number)])
            state = DESTROYED
        if there is None:
            added = target.add(secret, source.access(secret, number) if state == ENABLED else _PLACEHOLDER)
            if added != number:
                raise ConflictError(
                    f"{secret} in the target got version {added} instead of {number}: somebody else writes it"
                )
        _follow(target, secret, number, state, there or ENABLED)
        if there is not None and state == ENABLED and target.access(secret, number) != source.access(secret, number):
            raise AlreadyExistsError(f"{secret}, version {number} in the target is another one")


def compare_versions(source: SecretStore, target: SecretStore, secret: str) -> tuple[int, list[Numbered]]:
    """Read both again; CorruptError where a number, a state or a payload differs.

    Returns how many versions can be read, and the disabled ones without a copy.
    """
    wanted, found = _states(source, secret), _states(target, secret)
    left_out = {number for number, state in wanted.items() if (state, found.get(number)) == (DISABLED, DESTROYED)}
    if found != {**wanted, **dict.fromkeys(left_out, DESTROYED)}:
        raise CorruptError(f"the versions of {secret} in the target are not in the states of the original's")
    readable = [number for number, state in wanted.items() if state == ENABLED]
    for number in readable:
        if source.access(secret, number) != target.access(secret, number):
            raise CorruptError(f"{secret}, version {number} in the target differs from the original")
    return len(readable), [Numbered(secret, number) for number in sorted(left_out)]


def _states(store: SecretStore, secret: str) -> Mapping[int, str]:
    """Read each version's state from the list, which may lag, and look for later versions by number."""
    states = {version.number: version.state for version in store.versions(secret)}
    with suppress(NotFoundError):
        while True:
            number = max(states, default=0) + 1
            try:
                store.access(secret, number)
            except DisabledError as error:  # disabled or destroyed: only the list will tell
                raise UnavailableError(
                    f"{secret}, version {number} is not in the list of versions yet, and cannot be read",
                    hint="run the command again in a minute",
                ) from error
            states[number] = ENABLED
    return states


def _has_payload(target: SecretStore, secret: str, number: int, state: str | None) -> bool:
    """True if an earlier copy brought the payload; an interrupted one may have left a placeholder undestroyed."""
    return state == DISABLED or (state == ENABLED and target.access(secret, number) != _PLACEHOLDER)


def _follow(target: SecretStore, secret: str, number: int, wanted: str, present: str) -> None:
    """Bring an existing version into the original's state."""
    if present == wanted:
        return
    if present == DESTROYED:
        raise AlreadyExistsError(
            f"{secret}, version {number} was left out of the existing copy, and cannot be added later",
            hint="copy to a store without a cluster of that name",
        )
    change = {ENABLED: target.enable, DISABLED: target.disable, DESTROYED: target.destroy}[wanted]
    change(secret, number)


_CHUNK: Final = 2_000
"""Records that are appended at once."""
_ROUNDS: Final = 5


class Copied(NamedTuple):
    """The verified copy: number of secrets, readable versions and records, and the versions that were left out."""

    secrets: int
    versions: int
    records: int
    left_out: tuple[Numbered, ...]


def copy_cluster(
    source: Store,
    target: Store,
    cluster: str,
    *,
    without_disabled: bool = False,
    ca_sha256: str | None = None,
) -> Copied:
    """Copy the cluster and verify the copy; the source is only read, and judged as by any other command.

    Raises:
        NotTrustedError: the source's log does not count, by this user's memory or the pin `ca_sha256`.
        NotFoundError: the source has no such cluster.
        AlreadyExistsError: the target has something else under these names.
        PolicyError: a version is disabled, so it cannot be read, and `without_disabled` is false.
        ConflictError: the source changes faster than it is copied.
    """
    if cluster not in source.clusters():
        raise NotFoundError(f"there is no cluster {cluster!r} in {source.url}")
    log = partial(source.log, cluster, Anchored(source, cluster, utc_now, ca_sha256).judge)
    _check_vacant(source, target, cluster, log())
    if not without_disabled:
        infos = _secrets(source, cluster)
        if missing := [each for info in infos for each in unreadable(source.secrets, target.secrets, info.id)]:
            raise refusal(missing)
    for _ in range(_ROUNDS):
        head = log().authenticate()
        present = {info.id: info for info in _secrets(target, cluster)}
        for info in _secrets(source, cluster):
            _copy_metadata(target.secrets, info, present.get(info.id))
            copy_versions(source.secrets, target.secrets, info.id, leave_out=without_disabled)
        _copy_log(source.events(cluster), target.events(cluster))
        _copy_log(log(), target.log(cluster))
        if log().inventory().head == head:
            return _verify(source, target, cluster, head)
    raise ConflictError(
        f"cluster {cluster!r} in {source.url} keeps changing", hint="copy it while nobody issues or revokes"
    )


def _secrets(store: Store, cluster: str) -> list[SecretInfo]:
    """All secrets of the cluster, except those in which some stores keep the logs."""
    found = store.secrets.select({"daskpki-cluster": cluster})
    logs = (secret_names.records_id(cluster), secret_names.events_id(cluster))
    return [info for info in found if info.id not in logs]


def _check_vacant(source: Store, target: Store, cluster: str, log: RecordLog) -> None:
    """Raise AlreadyExistsError unless the target has nothing of the cluster, or the beginning of a copy."""
    mine = {info.id for info in _secrets(source, cluster)}
    for info in _secrets(target, cluster):
        if info.id not in mine:
            raise _occupied(target, info.id)
    theirs = iter(log.records())
    for record in target.log(cluster).records():
        if next(theirs, None) != record:
            raise _occupied(target, f"the log of cluster {cluster!r} (record {record.seq})")


def _occupied(target: Store, what: str) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"{what} in {target.url} is not a copy from here", hint="copy to a store without a cluster of that name"
    )


def _copy_metadata(target: SecretStore, info: SecretInfo, present: SecretInfo | None) -> None:
    """Make the secret, or give it the annotations that the original has by now."""
    if present is None:
        with suppress(AlreadyExistsError):  # made by an interrupted copy; the list may lag
            target.create(info.id, labels=info.labels, annotations=info.annotations)
    elif present.annotations != info.annotations:
        target.update(info.id, etag=present.etag, annotations=info.annotations)


def _copy_log(source: RecordLog, target: RecordLog) -> None:
    pending = source.records(after=target.inventory().head.seq)
    while records := list(islice(pending, _CHUNK)):
        target.adopt(records)


def _verify(source: Store, target: Store, cluster: str, head: Head) -> Copied:
    """Read both again, and compare everything."""
    if target.log(cluster).authenticate() != head:
        raise CorruptError(f"the log of {cluster!r} in {target.url} does not end as in {source.url}")
    mine, copies = _secrets(source, cluster), {info.id: info for info in _secrets(target, cluster)}
    versions, left_out = 0, list[Numbered]()
    for info in mine:
        copied = copies.get(info.id)
        if copied is None or (copied.labels, copied.annotations) != (info.labels, info.annotations):
            raise CorruptError(f"{info.id} in {target.url} is not labelled as in {source.url}")
        readable, missing = compare_versions(source.secrets, target.secrets, info.id)
        versions += readable
        left_out += missing
    return Copied(len(mine), versions, target.log(cluster).inventory().head.seq, tuple(left_out))
