"""The session of one command with one cluster: store, user and command, clock, trust anchor, signers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from daskpki.authority.anchor import Anchored
from daskpki.authority.lookup import living_authorities
from daskpki.errors import PolicyError
from daskpki.inventory import AUTHORITY_KINDS, Inventory, authority_after
from daskpki.records import CommitSignature, Draft, Head, Record, Stamp
from daskpki.signed_commits import recorded_generations, sign_commit, signers
from daskpki.store.port import RecordLog, Store

if TYPE_CHECKING:
    from daskpki.authority.ca_keys import Issuers


def random_serial() -> int:
    """A serial of 16 octets, positive, with 126 random bits (RFC 5280, 4.1.2.2; CA/B Forum BR 7.1 asks for 64)."""
    return 1 << 126 | secrets.randbits(126)


def new_operation() -> str:
    """A random id that identifies a write, so that it is found again after an interruption."""
    return secrets.token_hex(8)


def utc_now() -> datetime:
    """The system's clock in UTC; nothing else in this package reads it."""
    return datetime.now(UTC)


def claimed_user() -> str:
    """USER@HOST for the log; it is a claim, and the log says so."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        user = f"uid-{os.getuid()}"
    who = f"{user}@{socket.gethostname()}"
    return who.encode(errors="backslashreplace").decode()  # a name of other bytes than UTF-8, which no log takes


class Session(NamedTuple):
    """One command's session with one cluster.

    `who` is a claim; the store's own audit log is the authority.
    """

    store: Store
    cluster: str
    who: str
    command: str
    clock: Callable[[], datetime]
    anchor: Anchored
    """The trust anchor by which this command judges the log."""
    issuers: Issuers
    """Opens the keys of the CA's generations."""
    reading: bool = False
    """True for a command that shows the unencrypted part of a local store, unverified, and asks for no key."""

    @property
    def log(self) -> RecordLog:
        """The cluster's log, as far as it counts."""
        if self.reading and self.store.url.startswith("local:"):
            return self.store.log(self.cluster)
        return self.store.log(self.cluster, self.anchor.judge)

    def commit(self, decide: Callable[[Inventory], Sequence[Draft]], stamp: Stamp | None = None) -> Sequence[Record]:
        """Append the drafts that `decide` returns to the log, signed by the CAs that must sign."""

        def checked(inventory: Inventory) -> Sequence[Draft]:
            self.check(inventory)
            return decide(inventory)

        records = self.log.commit(checked, stamp or self.stamp(), self._sign)
        if records and self.anchor.old_key_lost:
            self.anchor.trust_own(records)
        return records

    def check(self, inventory: Inventory) -> None:
        """Raise PolicyError while an emergency is unfinished: until then the thief can sign, too."""
        shown = inventory.published.get("authorities", {})
        for entry in () if self.anchor.in_emergency else living_authorities(inventory):
            if entry.settings.get("emergency") and shown and str(entry.generation) not in shown:
                raise PolicyError(
                    f"rotate-ca --emergency was cut off after it made CA {entry.generation}",
                    hint="daskpki rotate-ca --emergency goes on with it (with --old-key-lost if it had that)",
                )

    def _sign(self, before: Inventory, records: Sequence[Record], place: str) -> tuple[CommitSignature, ...]:
        entries = {entry.generation: entry for entry in before.authorities()}
        wanted = signers(recorded_generations(entries.values()), records)
        for record in records:
            if record.kind in AUTHORITY_KINDS:
                generation = record.body["generation"]
                entries[generation] = authority_after(entries.get(generation), record)
        if self.anchor.old_key_lost:  # a new root of trust begins: nothing of the old one can sign
            wanted = tuple(number for number in wanted if entries[number].settings.get("emergency"))
        head = Head(records[-1].seq, records[-1].hash)
        return tuple(sign_commit(self.cluster, self.issuers(entries[number]), head, place) for number in wanted)

    def now(self) -> datetime:
        """The time in whole seconds, as in certificates and records."""
        return self.clock().replace(microsecond=0)

    def stamp(self, operation: str | None = None) -> Stamp:
        """The stamp of a commit at this moment."""
        return Stamp(int(self.now().timestamp()), operation or new_operation(), self.who, self.command)
