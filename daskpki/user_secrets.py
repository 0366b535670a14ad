"""User secrets: passwords and tokens of a cluster's programs, versioned, in the same store.

Payloads are raw bytes, so `gcloud` and berglas can read them too. Changes are recorded, with time and user, in a log
for people, on which no decision depends. Annotations say when a value expires and when its rotation is due; they are
reminders, not protection. A rollback adds the old payload again, since `latest` is the highest number in any state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, ConflictError, DaskpkiError, DisabledError, NotFoundError, UsageError
from daskpki.identity import parse_label
from daskpki.quoting import day, did_you_mean
from daskpki.records import Draft, Record, Stamp
from daskpki.store.port import DESTROYED, ENABLED, Payload, SecretInfo, Store, Version

ADDED: Final = "secret-added"
DISABLED: Final = "secret-disabled"
ENABLED_AGAIN: Final = "secret-enabled"
ERASED: Final = "secret-destroyed"

_ATTEMPTS: Final = 16
_ENDS: Final = "daskpki-ends"
_ROTATE_BY: Final = "daskpki-rotate-by"
_TTL: Final = "daskpki-ttl"
_ROTATE_EVERY: Final = "daskpki-rotate-every"
_RESTORED: Final = "daskpki-restored"


class Listed(NamedTuple):
    """A secret as a list shows it: `ends` is the expiry of its value, `rotate_by` the time for a new one.

    Times are in seconds since the epoch; None for never.
    """

    name: str
    created: int
    ends: int | None
    rotate_by: int | None


class ClusterSecrets:
    """The user secrets of one cluster. `who` and `command` are claims for the log."""

    def __init__(self, store: Store, cluster: str, *, who: str, command: str, clock: Any = time.time) -> None:
        self._store = store
        self._cluster = parse_label(cluster, "cluster")
        self._who = who
        self._command = command
        self._clock = clock

    def set(self, name: str, payload: Confidential, *, ttl: int | None = None, rotate_every: int | None = None) -> int:
        """Add a version and return its number; a new secret is created. UsageError over 64 KiB.

        The value expires `ttl` seconds from now, and its rotation is due in `rotate_every` seconds; 0 means never, None
        keeps the period of the previous value.
        """
        periods = {_TTL: ttl, _ROTATE_EVERY: rotate_every}
        secret, now = self._id(name), int(self._clock())
        labels, exists = secret_names.labels(self._cluster, secret_names.SECRET, name), False
        try:
            self._store.secrets.create(secret, labels=labels, annotations=_reminders({}, periods, now))
        except AlreadyExistsError:
            exists = True
        number = self._store.secrets.add(secret, payload)
        self._record(ADDED, name, number)
        if exists:
            self._annotate(secret, lambda former: _reminders(former, periods, now))
        return number

    def get(self, name: str, number: int | None = None) -> Payload:
        """Read a version, by default the newest; NotFoundError, DisabledError (also for an expired value)."""
        secret = self._id(name)
        ends = _number(self._describe(name).annotations.get(_ENDS))
        if ends is not None and ends < self._clock():
            raise DisabledError(
                f"the secret {name} expired on {day(ends)}",
                hint=f"daskpki secret set {name} gives it a new value",
            )
        if number is not None:
            return Payload(number, self._store.secrets.access(secret, number))
        return self._store.secrets.latest(secret)

    def all(self) -> Iterator[Listed]:
        """List the secrets by name."""
        marks = secret_names.labels(self._cluster, secret_names.SECRET)
        for info in self._store.secrets.select(marks):
            ends, rotate_by = (_number(info.annotations.get(key)) for key in (_ENDS, _ROTATE_BY))
            if name := secret_names.kind_and_name(self._cluster, info.id)[1]:  # no command reaches another's id
                yield Listed(name, info.created, ends, rotate_by)

    def versions(self, name: str) -> list[tuple[Version, str | None]]:
        """List the versions, newest first, each with its author if the log has it."""
        secret = self._id(name)
        self._describe(name)
        added = {
            record.body["version"]: record.who
            for record in self._store.events(self._cluster).records()
            if record.kind == ADDED and record.body["name"] == name
        }
        return [(version, added.get(version.number)) for version in self._store.secrets.versions(secret)]

    def rollback(self, name: str, number: int | None = None) -> tuple[int, int]:
        """Add the payload of the previous version (or of `number`) again; return its number and the new one.

        Rolling back twice goes two versions back: a restored version counts as the one whose payload it repeats.
        """
        info = self._describe(name)
        source = self._before(info) if number is None else number
        payload = self._store.secrets.access(info.id, source)
        restored = self._store.secrets.add(info.id, payload)
        self._record(ADDED, name, restored, restores=source)
        self._annotate(info.id, lambda former: {**former, _RESTORED: f"{restored}:{source}"})
        return source, restored

    def _before(self, info: SecretInfo) -> int:
        versions = list(self._store.secrets.versions(info.id))
        newest = max((version.number for version in versions), default=0)
        restored, _, source = info.annotations.get(_RESTORED, "0:0").partition(":")
        current = _number(source) or newest if _number(restored) == newest else newest
        older = [version.number for version in versions if version.number < current and version.state == ENABLED]
        if not older:
            name = secret_names.kind_and_name(self._cluster, info.id)[1]
            raise NotFoundError(
                f"the secret {name} has no readable version before {current}", hint=f"daskpki secret versions {name}"
            )
        return max(older)

    def disable(self, name: str, number: int) -> None:
        """Make a version unreadable; UsageError for the newest, since programs read `latest`."""
        self.check_not_newest(name, number)
        self._store.secrets.disable(self._id(name), number)
        self._record(DISABLED, name, number)

    def enable(self, name: str, number: int) -> None:
        """Make a disabled version readable again."""
        self._describe(name)
        self._store.secrets.enable(self._id(name), number)
        self._record(ENABLED_AGAIN, name, number)

    def destroy(self, name: str, number: int) -> None:
        """Erase a version for good; UsageError for the newest."""
        self.check_not_newest(name, number)
        self._store.secrets.destroy(self._id(name), number)
        self._record(ERASED, name, number)

    def check_not_newest(self, name: str, number: int) -> None:
        """Raise UsageError for the newest version, NotFoundError for one that does not exist."""
        self._describe(name)
        versions = [version for version in self._store.secrets.versions(self._id(name)) if version.state != DESTROYED]
        if number not in {version.number for version in versions}:
            raise NotFoundError(f"the secret {name} has no version {number}", hint=f"daskpki secret versions {name}")
        if number == max(version.number for version in versions):
            raise UsageError(
                f"version {number} of {name} is the newest: programs that read the secret would get an error",
                hint=f"daskpki secret set {name}, or daskpki secret rollback {name}, adds one first",
            )

    def _describe(self, name: str) -> SecretInfo:
        try:
            return self._store.secrets.describe(self._id(name))
        except NotFoundError:
            raise NotFoundError(
                f"cluster {self._cluster!r} has no secret {name!r}",
                hint=self._suggestion(name) or "daskpki secret list shows all there are",
            ) from None

    def _suggestion(self, name: str) -> str | None:
        """The nearest name; None where there is none, or where this account may not list secrets."""
        with suppress(DaskpkiError):
            return did_you_mean([name], [entry.name for entry in self.all()])
        return None

    def _annotate(self, secret: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        """Change the annotations; try again if somebody else changed them, since our version was added already."""
        for _ in range(_ATTEMPTS):
            info = self._store.secrets.describe(secret)
            annotations = change(info.annotations)
            if annotations == info.annotations:
                return
            with suppress(ConflictError):
                self._store.secrets.update(secret, etag=info.etag, annotations=annotations)
                return
        raise ConflictError(f"others changed the annotations of {secret} each time", hint="set the value again")

    def _record(self, kind: str, name: str, number: int, **more: int) -> Sequence[Record]:
        draft = Draft(kind, {"name": name, "version": number, **more})
        stamp = Stamp(int(self._clock()), f"{kind}-{number}", self._who, self._command)
        return self._store.events(self._cluster).commit(lambda _inventory: [draft], stamp)

    def _id(self, name: str) -> str:
        return secret_names.user_secret_id(self._cluster, parse_label(name, "secret name"))


def _reminders(former: Mapping[str, str], periods: Mapping[str, int | None], now: int) -> dict[str, str]:
    """Make the annotations of a secret that gets a new value now; the previous value's end does not carry over."""
    found = {key: value for key, value in former.items() if key not in (_ENDS, _ROTATE_BY, _TTL, _ROTATE_EVERY)}
    for period, moment in ((_TTL, _ENDS), (_ROTATE_EVERY, _ROTATE_BY)):
        given = periods[period]
        seconds = _number(former.get(period)) if given is None else given
        if seconds:
            found |= {period: str(seconds), moment: str(now + seconds)}
    return found


def _number(text: str | None) -> int | None:
    """Parse the digits of an annotation; None for other text."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else None  # noqa: PLR2004 - no later than the year 5138
