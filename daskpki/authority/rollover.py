"""Replaces a cluster's CA: adds a new one to the trust document, lets it take over, drops the old one.

    start     a new generation is made and published as `next`: nodes trust both
    promote   it becomes `active`, the old one `retiring`; everything valid is issued again from it
    finish    the old one leaves the trust document, and its key is erased
    abort     before `promote` the new one is dropped; after it the old one takes over again, until `finish`

The status follows from the log alone, so each step can be repeated by anybody, also after a crash. In an emergency (a
stolen CA key) all of it is one step: a new generation takes over and every other one is dropped at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from daskpki.authority.ca_keys import OfflineRoot
from daskpki.authority.creation import Check, Plan, create
from daskpki.authority.lookup import active_authority, living_authorities, shows_authorities
from daskpki.authority.publication import publish
from daskpki.authority.renewal import check_issuable, issuing_ends
from daskpki.authority.session import Session
from daskpki.errors import AccessDeniedError, AlreadyExistsError, ConflictError, PolicyError, UsageError
from daskpki.inventory import FROM_REQUEST, AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.keys import KeyType
from daskpki.pki.profile import make_policy
from daskpki.records import CA_ACTIVATED, CA_CREATED, CA_RETIRED, CA_RETIRING, ISSUED, RELEASED, Draft

if TYPE_CHECKING:
    from daskpki.authority.issuance import Issued

IDLE: Final = "none"
STARTED: Final = "started"
RETIRING: Final = "retiring"


class RolloverStatus(NamedTuple):
    """Status of a rollover: the generations in the trust document, and the valid leaves of those that do not issue.

    `reissue` are the leaves that the active generation issues again; `by_request` those that were issued for a request,
    so that only their holders can ask for new ones.
    """

    active: AuthorityRecord
    others: tuple[AuthorityRecord, ...]
    published: bool
    reissue: tuple[CertificateRecord, ...]
    by_request: tuple[CertificateRecord, ...]

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
        """The last step, promote or abort; repeating it issues the leaves that are left."""
        newest = max(entry.generation for entry in self.living)
        return "promote" if self.active.generation == newest else "abort"


def valid_elsewhere(inventory: Inventory, generation: int, now: float) -> list[CertificateRecord]:
    """The valid leaves that CAs other than `generation` issued."""
    return [
        entry
        for entry in inventory.certificates(statuses=[ISSUED, RELEASED])
        if entry.issuer != generation and not entry.superseded and entry.not_after >= now
    ]


Renew = Callable[..., "Iterator[Issued]"]
"""Renews leaves from the active CA (`daskpki.authority.ca.CertificateAuthority.renew`)."""

Decide = Callable[[Inventory], list[Draft]]
"""Decides what to record, from the state of the log that it is appended to."""


class Successor(NamedTuple):
    """Differences of the new CA from the old one."""

    key_type: KeyType = KeyType.P256
    ca_key: str | None = None
    offline_root: OfflineRoot | None = None
    permit_dns: tuple[str, ...] = ()
    lower_sealing: bool = False


class Rollover:
    """The steps of a rollover, for one cluster."""

    def __init__(self, session: Session, inventory: Callable[[], Inventory], renew: Renew) -> None:
        self._session = session
        self._inventory = inventory
        self._renew = renew

    def status(self) -> RolloverStatus:
        """The status that follows from the log; NotFoundError before `init-ca`."""
        inventory = self._inventory()
        active = active_authority(inventory, self._session.cluster)
        left = valid_elsewhere(inventory, active.generation, self._session.now().timestamp())
        return RolloverStatus(
            active,
            tuple(entry for entry in living_authorities(inventory) if entry != active),
            shows_authorities(inventory),
            tuple(entry for entry in left if entry.key_type != FROM_REQUEST),
            tuple(entry for entry in left if entry.key_type == FROM_REQUEST),
        )

    def start(self, successor: Successor) -> tuple[AuthorityRecord, bool]:
        """Make the next CA or continue with it, and publish it beside the active; AlreadyExistsError once it issues.

        Returns the CA, and true if an earlier command made it, with the options that were given then.
        """
        now = self.status()
        if now.phase == RETIRING:
            raise AlreadyExistsError(
                f"a rollover is under way: CA {now.active.generation} issues, CA {now.others[0].generation} retires",
                hint="daskpki rotate-ca finish, or abort",
            )
        self._session.issuers.open([now.active])  # before anything is recorded: both will have to sign
        made = now.others[-1] if now.others else self._create(now.active, successor, _refuse_another)
        self._publish(adding=made.generation)
        return made, bool(now.others)

    def promote(self) -> AuthorityRecord:
        """Let the newest CA issue, and publish that; `reissue` then issues leaves again. ConflictError before `start`.

        PolicyError, before any change, if there is a valid leaf that the new CA could not issue.
        """
        now = self.status()
        if not now.others:
            raise ConflictError("there is no new CA to promote", hint="daskpki rotate-ca start makes one")
        return self._take_over(now, max(now.living))

    def abort(self) -> AuthorityRecord:
        """Drop a CA that does not issue yet, or let the oldest one take over again; returns the issuing one.

        PolicyError as for `promote`.
        """
        now = self.status()
        if now.phase == RETIRING:
            return self._take_over(now, min(now.living))
        self._session.issuers.open([now.active])  # before anything is recorded: it will have to sign
        self._session.commit(_dropping(CA_CREATED), self._session.stamp())
        self._publish()
        self._discard()
        return now.active

    def finish(self, *, force: bool = False, old_keys: bool = True) -> bool:
        """Drop the CAs that no longer issue, and erase their keys; False when a key had to be left where it is.

        PolicyError while valid leaves of theirs remain, unless `force` cuts them off; ConflictError before `promote`.
        Without `old_keys`, because they are lost, running nodes follow only after a restart.
        """
        now = self.status()
        if now.phase == STARTED:
            newest = now.others[-1].generation
            raise ConflictError(f"CA {newest} does not issue yet", hint="daskpki rotate-ca promote, or abort")
        if old_keys:
            self._session.issuers.open(now.living)
        moment = self._session.now().timestamp()

        def decide(inventory: Inventory) -> list[Draft]:
            active = active_authority(inventory, self._session.cluster).generation
            left = () if force else valid_elsewhere(inventory, active, moment)
            if left:
                names = ", ".join(sorted({entry.slug for entry in left})[:5])
                raise PolicyError(
                    f"{len(left)} valid certificates would be cut off ({names}{', ...' if len(left) > 5 else ''})",  # noqa: PLR2004 - as many as are named
                    hint=f"daskpki rotate-ca {now.last_step} issues them again (daskpki sign, those by request); "
                    "--force cuts them off",
                )
            return _dropping(CA_RETIRING)(inventory)

        self._session.commit(decide, self._session.stamp())
        self._publish(old_keys=old_keys)
        return self._discard()

    def emergency(self, successor: Successor, *, old_keys: bool = True) -> tuple[AuthorityRecord, float]:
        """Let a new CA take over and drop every other one at once; continues an interrupted emergency.

        The stolen key signs once more, for its own removal, so that running nodes follow; without `old_keys` none does.
        Returns the CA that issues now, and the seconds until the others lost all trust.
        """
        began = self._session.clock()
        self._session.anchor.in_emergency = True
        self._session.anchor.old_key_lost = not old_keys
        made = self._interrupted()
        if made is None:
            now = self.status()
            if old_keys:
                self._session.issuers.open(now.living)
            made = self._create(now.active, successor, lambda _inventory: None, emergency=True)
        self._session.commit(_activating(made.generation, CA_RETIRED), self._session.stamp())
        self._publish(old_keys=old_keys)
        seconds = (self._session.clock() - began).total_seconds()
        self._discard()
        return made, seconds

    def reissue(self, *, give_way: bool = True) -> Iterator[Issued]:
        """Issue again, from the active CA, the valid leaves of others; `give_way` as in `renew`."""
        if entries := self.status().reissue:
            yield from self._renew(entries, give_way=give_way)

    def _interrupted(self) -> AuthorityRecord | None:
        """The newest generation, if an unfinished emergency made it."""
        now = self.status()
        newest = max(now.living)
        complete = not now.others and now.published and not now.reissue
        return newest if newest.settings.get("emergency") and not complete else None

    def _create(
        self, active: AuthorityRecord, successor: Successor, check: Check, *, emergency: bool = False
    ) -> AuthorityRecord:
        if active.chain and successor.offline_root is None:
            raise UsageError(
                f"CA {active.generation} has an offline root, and so has its successor", hint="--offline-root NEWFILE"
            )
        keys = self._session.issuers.successor_place(active, successor.ca_key, lower=successor.lower_sealing)
        policy = active.policy
        domains = [*policy.permitted_dns, *successor.permit_dns]
        policy = make_policy(policy.trust_domain, domains, max_ttl=policy.max_ttl)
        plan = Plan(policy, successor.key_type, successor.offline_root, emergency)
        return create(self._session, plan, keys, check)

    def _take_over(self, now: RolloverStatus, target: AuthorityRecord) -> AuthorityRecord:
        inventory, moment = self._inventory(), self._session.now()
        check_issuable(
            valid_elsewhere(inventory, target.generation, moment.timestamp()), target, moment, issuing_ends(inventory)
        )
        self._session.issuers.open(now.living)
        self._session.commit(_activating(target.generation, CA_RETIRING), self._session.stamp())
        self._publish()
        return target

    def _publish(self, *, old_keys: bool = True, adding: int | None = None) -> None:
        """Publish unless the trust document already shows the CAs of the log."""
        if not shows_authorities(self._inventory()):
            publish(self._session, old_keys=old_keys, adding=adding)
            self._inventory()

    def _discard(self) -> bool:
        """Erase the keys of all dropped generations; False when one may not be erased by us."""
        erased = True
        for entry in self._inventory().authorities():
            if entry.status == CA_RETIRED and entry.certificate:  # without a certificate, no key was made
                try:
                    self._session.issuers.place(entry.key_uri).discard(entry.generation)
                except AccessDeniedError:
                    erased = False
        return erased


def _refuse_another(inventory: Inventory) -> None:
    """Raise ConflictError if another `start` was first."""
    for entry in inventory.authorities():
        if entry.status in (CA_CREATED, CA_RETIRING):
            raise ConflictError(f"another command made CA {entry.generation}", hint="daskpki rotate-ca status")


def _dropping(status: str) -> Decide:
    """Retire every generation in that status."""
    return lambda inventory: [_event(CA_RETIRED, entry) for entry in inventory.authorities() if entry.status == status]


def _activating(generation: int, former: str) -> Decide:
    """Let that generation issue; the one that issued before becomes `former`, or all others if that is CA_RETIRED."""

    def decide(inventory: Inventory) -> list[Draft]:
        living = {entry.generation: entry for entry in living_authorities(inventory)}
        if generation not in living:
            raise ConflictError(f"CA {generation} was dropped meanwhile", hint="daskpki rotate-ca status")
        own = living.pop(generation)
        others = [entry for entry in living.values() if former == CA_RETIRED or entry.status == CA_ACTIVATED]
        activated = [] if own.status == CA_ACTIVATED else [_event(CA_ACTIVATED, own)]
        return [*(_event(former, entry) for entry in others), *activated]

    return decide


def _event(kind: str, authority: AuthorityRecord) -> Draft:
    return Draft(kind, {"generation": authority.generation})
