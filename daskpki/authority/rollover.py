"""Replaces a cluster's CA: adds a new one to the trust document, lets it take over, drops the old one.

    start     a new generation is made and published as `next`: nodes trust both
    promote   it becomes `active`, the old one `retiring`; everything valid is issued again from it
    finish    the old one leaves the trust document, and its key is erased
    abort     before `promote` the new one is dropped; after it the old one takes over again, until `finish`

The status follows from the log alone, so each step can be repeated by anybody, also after a crash. In an emergency (a
stolen CA key) all of it is one step: a new generation takes over and every other one is dropped at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from daskpki.authority.ca_keys import OfflineRoot
from daskpki.authority.creation import Check, Plan, create
from daskpki.authority.lookup import active_authority, living_authorities, recorded_policy
from daskpki.authority.publication import publish
from daskpki.authority.renewal import check_issuable, issuing_ends
from daskpki.authority.repair import shows_authorities
from daskpki.errors import AccessDeniedError, AlreadyExistsError, ConflictError, PolicyError, UsageError
from daskpki.inventory import FROM_REQUEST, AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.keys import KeyType
from daskpki.pki.profile import make_policy
from daskpki.records import CA_ACTIVATED, CA_CREATED, CA_RETIRED, CA_RETIRING, ISSUED, RELEASED, Draft

if TYPE_CHECKING:
    from daskpki.authority.ca import CertificateAuthority
    from daskpki.authority.issuance import Issued

IDLE: Final = "none"
STARTED: Final = "started"
RETIRING: Final = "retiring"


class RolloverStatus(NamedTuple):
    """Where a rollover stands: the generations in the trust document, and the valid leaves of those that do not issue.

    `held` are those of them whose keys never travelled, so that only their holders can ask for new ones.
    """

    active: AuthorityRecord
    others: tuple[AuthorityRecord, ...]
    published: bool
    reissue: tuple[CertificateRecord, ...]
    held: tuple[CertificateRecord, ...]

    @property
    def phase(self) -> str:
        """IDLE, STARTED, or RETIRING (promoted, or taken back)."""
        if not self.others:
            return IDLE
        return RETIRING if any(entry.status == CA_RETIRING for entry in self.others) else STARTED

    @property
    def living(self) -> tuple[AuthorityRecord, ...]:
        """All generations in the trust document."""
        return (self.active, *self.others)

    @property
    def last_step(self) -> str:
        """The last step, promote or abort; when it is repeated, it issues what is left."""
        newest = max(entry.generation for entry in self.living)
        return "promote" if self.active.generation == newest else "abort"


def rollover_status(inventory: Inventory, cluster: str, now: float) -> RolloverStatus:
    """Where the log says that it stands; NotFoundError before `init-ca`."""
    active = active_authority(inventory, cluster)
    left = valid_elsewhere(inventory, active.generation, now)
    return RolloverStatus(
        active,
        tuple(entry for entry in living_authorities(inventory) if entry != active),
        shows_authorities(inventory),
        tuple(entry for entry in left if entry.key_type != FROM_REQUEST),
        tuple(entry for entry in left if entry.key_type == FROM_REQUEST),
    )


def valid_elsewhere(inventory: Inventory, generation: int, now: float) -> list[CertificateRecord]:
    """The leaves in force that do not come from that CA."""
    return [
        entry
        for entry in inventory.certificates(statuses=[ISSUED, RELEASED])
        if entry.issuer != generation and not entry.superseded and entry.not_after >= now
    ]


Decide = Callable[[Inventory], list[Draft]]
"""Decides what to record, from the state of the log that it is appended to."""


class Successor(NamedTuple):
    """How the new CA differs from the old one."""

    key_type: KeyType = KeyType.P256
    ca_key: str | None = None
    offline_root: OfflineRoot | None = None
    permit_dns: tuple[str, ...] = ()
    lower_sealing: bool = False


class Started(NamedTuple):
    """The CA that comes next; `resumed` when it was there, and what it is had been asked for then."""

    authority: AuthorityRecord
    resumed: bool


class Replaced(NamedTuple):
    """The end of an emergency's first part: who issues now, and the seconds until the others were cut off."""

    authority: AuthorityRecord
    seconds: float


class Rollover:
    """The steps, for one CA."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority
        self._session = authority.session
        self._issuers = authority.issuers

    def standing(self) -> RolloverStatus:
        """Where it stands now."""
        return rollover_status(self._authority.inventory(), self._session.cluster, self._session.now().timestamp())

    def start(self, successor: Successor) -> Started:
        """Make the next CA, or go on with it, and publish it beside the active; AlreadyExistsError once it issues."""
        now = self.standing()
        if now.phase == RETIRING:
            raise AlreadyExistsError(
                f"a rollover is under way: CA {now.active.generation} issues, CA {now.others[0].generation} retires",
                hint="daskpki rotate-ca finish, or abort",
            )
        self._issuers.open([now.active])  # before anything is recorded: both will have to sign
        made = now.others[-1] if now.others else self._create(now.active, successor, _refuse_another)
        self._publish(adding=made.generation)
        return Started(made, resumed=bool(now.others))

    def promote(self) -> AuthorityRecord:
        """Let the newest CA issue and publish it so; `reissue` does the rest. ConflictError before `start`.

        PolicyError, and nothing was changed, for a valid leaf that it could not issue.
        """
        now = self.standing()
        if not now.others:
            raise ConflictError("there is no new CA to promote", hint="daskpki rotate-ca start makes one")
        return self._take_over(now, max(now.living, key=_generation))

    def abort(self) -> AuthorityRecord:
        """Drop a CA that does not issue yet, or let the oldest one take over again; returns the one that issues.

        PolicyError as for `promote`.
        """
        now = self.standing()
        if now.phase == RETIRING:
            return self._take_over(now, min(now.living, key=_generation))
        self._issuers.open([now.active])  # before anything is recorded: it will have to sign
        self._session.commit(_dropping(CA_CREATED), self._session.stamp())
        self._publish()
        self._discard()
        return now.active

    def finish(self, *, force: bool = False, old_keys: bool = True) -> bool:
        """Drop the CAs that no longer issue, and erase their keys; False when a key had to be left where it is.

        PolicyError while valid leaves of theirs remain, unless `force` cuts them off; ConflictError before `promote`.
        Without `old_keys` (they are lost) nodes that run follow only after a restart.
        """
        now = self.standing()
        if now.phase == STARTED:
            newest = now.others[-1].generation
            raise ConflictError(f"CA {newest} does not issue yet", hint="daskpki rotate-ca promote, or abort")
        if old_keys:
            self._issuers.open(now.living)
        moment = self._session.now().timestamp()

        def decide(inventory: Inventory) -> list[Draft]:
            if not force:
                active = active_authority(inventory, self._session.cluster).generation
                _refuse_valid(valid_elsewhere(inventory, active, moment), now.last_step)
            return _dropping(CA_RETIRING)(inventory)

        self._session.commit(decide, self._session.stamp())
        self._publish(old_keys=old_keys)
        return self._discard()

    def emergency(self, successor: Successor, *, old_keys: bool = True) -> Replaced:
        """Let a new CA take over and drop every other one, at once; goes on with one that was cut off.

        A stolen key still signs, once, that it is dropped, so that running nodes follow; without `old_keys` none does.
        """
        began = self._session.clock()
        self._session.anchor.in_emergency = True
        self._session.anchor.old_key_lost = not old_keys
        made = self._interrupted() or self._begin_emergency(successor, old_keys=old_keys)
        self._session.commit(_replacing_all(made.generation), self._session.stamp())
        self._publish(old_keys=old_keys)
        seconds = (self._session.clock() - began).total_seconds()
        self._discard()
        return Replaced(made, seconds)

    def reissue(self, *, give_way: bool = True) -> Iterator[Issued]:
        """Issue again, from the active CA, what is valid and comes from another; with `give_way` as in `renew`."""
        if entries := self.standing().reissue:
            yield from self._authority.renew(entries, give_way=give_way)

    def _begin_emergency(self, successor: Successor, *, old_keys: bool) -> AuthorityRecord:
        now = self.standing()
        if old_keys:
            self._issuers.open(now.living)
        return self._create(now.active, successor, lambda _inventory: None, emergency=True)

    def _interrupted(self) -> AuthorityRecord | None:
        """The newest generation, if an emergency made it and is not at its end."""
        now = self.standing()
        newest = max(now.living, key=_generation)
        complete = not now.others and now.published and not now.reissue
        return newest if newest.settings.get("emergency") and not complete else None

    def _create(
        self, active: AuthorityRecord, successor: Successor, check: Check, *, emergency: bool = False
    ) -> AuthorityRecord:
        if active.chain and successor.offline_root is None:
            raise UsageError(
                f"CA {active.generation} has an offline root, and so has its successor", hint="--offline-root NEWFILE"
            )
        keys = self._issuers.successor_place(active, successor.ca_key, lower=successor.lower_sealing)
        policy = recorded_policy(active)
        domains = [*policy.permitted_dns, *successor.permit_dns]
        policy = make_policy(policy.trust_domain, domains, max_ttl=policy.max_ttl)
        plan = Plan(policy, successor.key_type, successor.offline_root, emergency)
        return create(self._session, plan, keys, check, self._issuers.adopt)

    def _take_over(self, now: RolloverStatus, target: AuthorityRecord) -> AuthorityRecord:
        inventory, moment = self._authority.inventory(), self._session.now()
        check_issuable(
            valid_elsewhere(inventory, target.generation, moment.timestamp()), target, moment, issuing_ends(inventory)
        )
        self._issuers.open(now.living)
        self._session.commit(_activating(target.generation), self._session.stamp())
        self._publish()
        return target

    def _publish(self, *, old_keys: bool = True, adding: int | None = None) -> None:
        """Publish unless the trust document already shows the CAs of the log."""
        if not shows_authorities(self._authority.inventory()):
            publish(self._session, self._issuers, old_keys=old_keys, adding=adding)
            self._authority.inventory()

    def _discard(self) -> bool:
        """Erase the keys of all dropped generations; False when one may not be erased by us."""
        erased = True
        for entry in self._authority.inventory().authorities():
            if entry.status == CA_RETIRED and entry.certificate:  # no place of a key that was never made is asked
                try:
                    self._issuers.place(entry.key_uri).discard(entry.generation)
                except AccessDeniedError:
                    erased = False
        return erased


def _generation(authority: AuthorityRecord) -> int:
    return authority.generation


def _refuse_another(inventory: Inventory) -> None:
    """Raise ConflictError for the second of two `start` at once."""
    for entry in inventory.authorities():
        if entry.status in (CA_CREATED, CA_RETIRING):
            raise ConflictError(f"CA {entry.generation} is there meanwhile", hint="daskpki rotate-ca status")


def _refuse_valid(left: Sequence[CertificateRecord], step: str) -> None:
    if left:
        names = ", ".join(sorted({entry.slug for entry in left})[:5])
        raise PolicyError(
            f"{len(left)} valid certificates would be cut off ({names}{', ...' if len(left) > 5 else ''})",  # noqa: PLR2004 - as many as are named
            hint=f"daskpki rotate-ca {step} issues them again (daskpki sign, those by request); --force cuts them off",
        )


def _dropping(status: str) -> Decide:
    """Retire every generation in that status."""
    return lambda inventory: [_event(CA_RETIRED, entry) for entry in inventory.authorities() if entry.status == status]


def _activating(generation: int) -> Decide:
    """Let that generation issue, and the one that does so far retire."""

    def decide(inventory: Inventory) -> list[Draft]:
        living = {entry.generation: entry for entry in living_authorities(inventory)}
        if generation not in living:
            raise ConflictError(f"CA {generation} was dropped meanwhile", hint="daskpki rotate-ca status")
        if living[generation].status == CA_ACTIVATED:
            return []
        active = [entry for entry in living.values() if entry.status == CA_ACTIVATED]
        return [*(_event(CA_RETIRING, entry) for entry in active), _event(CA_ACTIVATED, living[generation])]

    return decide


def _replacing_all(generation: int) -> Decide:
    """Let that generation issue, and retire all others for good."""

    def decide(inventory: Inventory) -> list[Draft]:
        living = {entry.generation: entry for entry in living_authorities(inventory)}
        if generation not in living:
            raise ConflictError(f"CA {generation} was dropped meanwhile", hint="daskpki rotate-ca status")
        own = living.pop(generation)
        retired = [_event(CA_RETIRED, entry) for entry in living.values()]
        return [*retired, *([] if own.status == CA_ACTIVATED else [_event(CA_ACTIVATED, own)])]

    return decide


def _event(kind: str, authority: AuthorityRecord) -> Draft:
    return Draft(kind, {"generation": authority.generation})
