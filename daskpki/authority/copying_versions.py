"""One secret's versions in a copy: the original's numbers, payloads and states.

Where the original is destroyed, a placeholder is destroyed in its place, so that the numbers agree. A disabled version
cannot be read, and none is enabled here, not even for a moment: that would change the source for all its readers, take
rights that a copy does not need, and, cut off by a kill, leave enabled what the next run would copy as such. Either the
payload came over while its version was enabled, and the copy now follows into the original's state; or the version is
left out, on request only, as if it were destroyed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

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
from daskpki.store.port import DESTROYED, DISABLED, ENABLED, SecretStore

_PLACEHOLDER: Final = Confidential(b"destroyed before this copy was made")


class Numbered(NamedTuple):
    """A version of a secret."""

    secret: str
    version: int


class Compared(NamedTuple):
    """What a comparison of two secrets' versions found: how many can be read, and the disabled ones without a copy."""

    readable: int
    left_out: tuple[Numbered, ...]


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
    """Why these versions keep a cluster from being copied, and what can be done."""
    named = "; ".join(f"{secret}, version {number}" for secret, number in disabled)
    return PolicyError(
        f"what is disabled cannot be read to be copied: {named}",
        hint="enable it, copy, disable it again and copy once more; or leave it out with --without-disabled",
    )


def copy_versions(source: SecretStore, target: SecretStore, secret: str, *, leave_out: bool) -> None:
    """Add what the target lacks, and bring what it has into the original's state.

    Raises:
        PolicyError: a version is disabled without a copy, and these are not to be left out.
        AlreadyExistsError: the target has another payload, or none any more.
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
            _add(target, secret, number, source.access(secret, number) if state == ENABLED else _PLACEHOLDER)
        _follow(target, secret, number, state, there or ENABLED)
        if there is not None and state == ENABLED and target.access(secret, number) != source.access(secret, number):
            raise AlreadyExistsError(f"{secret}, version {number} in the target is another one")


def compare_versions(source: SecretStore, target: SecretStore, secret: str) -> Compared:
    """Read both again; CorruptError where a number, a state or a payload differs."""
    wanted, found = _states(source, secret), _states(target, secret)
    left_out = {number for number, state in wanted.items() if (state, found.get(number)) == (DISABLED, DESTROYED)}
    if found != {**wanted, **dict.fromkeys(left_out, DESTROYED)}:
        raise CorruptError(f"the versions of {secret} in the target are not in the states of the original's")
    readable = [number for number, state in wanted.items() if state == ENABLED]
    for number in readable:
        if source.access(secret, number) != target.access(secret, number):
            raise CorruptError(f"{secret}, version {number} in the target differs from the original")
    return Compared(len(readable), tuple(Numbered(secret, number) for number in sorted(left_out)))


def _states(store: SecretStore, secret: str) -> Mapping[int, str]:
    """Each version's state: from the list, which may lag, and by number from there on."""
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
    """Whether an earlier copy brought the payload; one that was cut off may have left its placeholder undestroyed."""
    return state == DISABLED or (state == ENABLED and target.access(secret, number) != _PLACEHOLDER)


def _add(target: SecretStore, secret: str, number: int, payload: Confidential) -> None:
    added = target.add(secret, payload)
    if added != number:
        raise ConflictError(f"{secret} in the target got version {added} instead of {number}: somebody else writes it")


def _follow(target: SecretStore, secret: str, number: int, wanted: str, present: str) -> None:
    """Bring a version that is there into the original's state."""
    if present == wanted:
        return
    if present == DESTROYED:
        raise AlreadyExistsError(
            f"{secret}, version {number} was left out of the copy that is there, and cannot be added any more",
            hint="copy to a store without a cluster of that name",
        )
    change = {ENABLED: target.enable, DISABLED: target.disable, DESTROYED: target.destroy}[wanted]
    change(secret, number)
