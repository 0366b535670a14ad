"""The CA of a cluster: create it, issue, look up, renew, revoke, publish trust. The facade of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from daskpki.authority import lookup
from daskpki.authority.anchor import Anchored
from daskpki.authority.ca_keys import OWN_STORE, Issuers, KeyLocations, parse_key_type, parse_renewable_key_type
from daskpki.authority.lookup import active_authority, published_authorities
from daskpki.authority.session import Session, claimed_user, utc_now
from daskpki.errors import NotFoundError, PolicyError, UsageError
from daskpki.identity import Identity, Role, parse_label
from daskpki.inventory import AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.keys import KeyType
from daskpki.pki.profile import Grade, LeafRequest, Policy, parse_dns_name, parse_ip, parse_ttl
from daskpki.records import ABANDONED, REVOKING, Draft
from daskpki.settings import DEFAULT_CLUSTER

if TYPE_CHECKING:
    from daskpki.authority.audit import Verifier
    from daskpki.authority.ca_keys import OfflineRoot
    from daskpki.authority.creation import Plan
    from daskpki.authority.crl import KeptCrl
    from daskpki.authority.issuance import Issued, RenewalFilter
    from daskpki.authority.rollover import Rollover
    from daskpki.pki.csr import CertificateRequest
    from daskpki.pki.issuer import Issuer
    from daskpki.pki.trust_document import TrustDocument, TrustPayload
    from daskpki.store.port import Store


class CertificateAuthority:
    """One cluster's CA in one store.

        from daskpki.identity import Role

        ca = daskpki.CertificateAuthority(daskpki.open_store("local:"), "default")
        (issued,) = ca.issue(ca.requests(Role.WORKER, ["w-1"]))
        ca.revoke("worker/w-1", "superseded")

    The log records `who` and `command` as claims. `places` gives the passphrases of the CA's keys, and opens keys that
    are not in this store. `ca_sha256` pins the CA by its fingerprint, whatever this user has seen before. With
    `reading`, the log of a local store is shown unverified, so that no key is needed.
    """

    def __init__(
        self,
        store: Store,
        cluster: str = DEFAULT_CLUSTER,
        *,
        who: str | None = None,
        command: str = "the Python API",
        clock: Callable[[], datetime] = utc_now,
        places: KeyLocations = KeyLocations(),  # noqa: B008 - a tuple, so it cannot change
        ca_sha256: str | None = None,
        reading: bool = False,
    ) -> None:
        name = parse_label(cluster, "cluster")
        issuers = Issuers(store.secrets, name, places)
        anchor = Anchored(store, name, clock, ca_sha256)
        self.session = Session(store, name, who or claimed_user(), command, clock, anchor, issuers, reading)
        self._view: Inventory | None = None
        self._domains: dict[int, str] = {}  # by generation; a CA's never changes

    def init(self, plan: Plan | None = None, *, ca_key: str = OWN_STORE) -> AuthorityRecord:
        """Create the CA that `plan` describes, by default `plan_ca(cluster)`; AlreadyExistsError if there is one.

        `ca_key` is the URI of the place for its key; with an offline root, for the intermediate's key.
        """
        from daskpki.authority.creation import init_ca, plan_ca

        wanted = plan or plan_ca(self.session.cluster)
        made = init_ca(self.session, wanted, self.session.issuers.place(ca_key))
        self._view = None
        return made

    def inventory(self) -> Inventory:
        """The inventory of all records up to now."""
        self._view = self.session.log.inventory()
        return self._view

    def _seen(self) -> Inventory:
        """The inventory as last read: enough if a commit checks the present state later."""
        if self._view is None:
            self._view = self.session.log.read_cached()
        return self._view

    def active(self) -> AuthorityRecord:
        """The generation that issues; NotFoundError before `init`."""
        return active_authority(self._seen(), self.session.cluster)

    def policy(self) -> Policy:
        """The policy of this CA: trust domain, permitted DNS names, longest lifetime."""
        return self.active().policy

    def issuer(self) -> Issuer:
        """The active generation with its key opened, once for this object."""
        try:
            return self.session.issuers(self.active())
        except NotFoundError:  # its key was erased, perhaps since the CA was dropped after this view was read
            self.inventory()
            return self.session.issuers(self.active())

    def open_living(self) -> None:
        """Open every key that will have to sign, before anything is recorded."""
        self._view = None
        try:
            self.session.issuers.open(published_authorities(self._seen()))
        except NotFoundError:  # as in `issuer`
            self.session.issuers.open(published_authorities(self.inventory()))

    def requests(
        self,
        role: Role,
        names: Sequence[str],
        *,
        dns: Iterable[str] = (),
        ips: Iterable[str] = (),
        ttl: str | None = None,
        grades: Iterable[Grade] = (),
    ) -> list[LeafRequest]:
        """One request a name for leaves of `role`, alike in all other fields; UsageError."""
        domain = self.policy().trust_domain
        seconds = parse_ttl(ttl) if ttl else None
        further = tuple(map(parse_dns_name, dns)), tuple(map(parse_ip, ips)), seconds, tuple(grades)
        return [LeafRequest(Identity(domain, role, name), *further) for name in names]

    def check(self, requests: Iterable[LeafRequest], key_type: str = KeyType.P256) -> None:
        """Raise the error that issuing these would raise, and change nothing; needs no CA key."""
        from daskpki.authority.issuance import check_requests
        from daskpki.pki.certificates import lifetime, load_certificate

        parse_key_type(key_type)
        active = self.active()
        issuing = load_certificate(active.issuing_der)
        check_requests(requests, active.policy, lifetime(issuing), self.session.now())

    def issue(self, requests: Sequence[LeafRequest], key_type: str = KeyType.P256) -> Iterator[Issued]:
        """Issue a leaf for each request; each is yielded when it is stored and confirmed.

        PolicyError or UsageError for a request that the CA may not sign, before anything is recorded; NotFoundError
        before `init`; NotTrustedError if another command abandoned a reservation; else the errors of opening the CA's
        key and of the store.
        """
        yield from self._issue(requests, parse_key_type(key_type))
        self._repair()

    def _issue(
        self, requests: Sequence[LeafRequest], kind: KeyType, wanted: RenewalFilter | None = None
    ) -> Iterator[Issued]:
        """Issue; if another command rotates the CA meanwhile, the new CA issues the rest."""
        from daskpki.authority.issuance import SigningProfile, SupersededError, issue

        self._view = None
        done = 0
        try:
            profile = SigningProfile(self.issuer(), self.policy(), kind, wanted)
            for issued in issue(self.session, profile, requests):
                done += 1
                yield issued
        except SupersededError:
            self.inventory()
            profile = SigningProfile(self.issuer(), self.policy(), kind, wanted)
            yield from issue(self.session, profile, requests[done:])

    def proposed(self, request: CertificateRequest, command: str = "daskpki sign FILE") -> tuple[Role, str]:
        """The role and name that a request (CSR) proposes; PolicyError unless that is a client with a free name.

        For any other role, and for a name that was issued before, the operator has to give role and name. Hints repeat
        `command` with the name that it lacks.
        """
        cluster = self.session.cluster
        if request.slug is None:
            raise UsageError("the request names no identity", hint=f"{command} client/NAME")
        role, name = request.slug
        if request.cluster != cluster:
            hint = (
                f"--cluster and --store name the cluster that it is for; to take {role.value}/{name} into this one: "
                f"{command} {role.value}/{name}"
            )
            raise PolicyError(f"the request is for cluster {request.cluster!r}, not for {cluster!r}", hint=hint)
        if role is not Role.CLIENT:
            hint = f"to issue it: {command} {role.value}/{name}"
            raise PolicyError(f"the request asks for the role {role.value}, which you have to confirm", hint=hint)
        if self.inventory().current(role, name) is not None:
            hint = f"if it is the same person's: {command} {role.value}/{name}"
            what = f"{role.value}/{name} was issued before, so the request alone does not decide who gets it"
            raise PolicyError(what, hint=hint)
        return role, name

    def sign_request(self, leaf: LeafRequest, request: CertificateRequest) -> Issued:
        """Issue `leaf` for the public key of a request; nothing else is copied from it. Errors as for any leaf."""
        from daskpki.authority.issuance import SigningProfile, issue

        profile = SigningProfile(self.issuer(), self.policy(), public_key=request.public_key)
        (issued,) = issue(self.session, profile, [leaf])
        self._view = None
        self._repair()
        return issued

    def outlasting_trust(self, end: datetime) -> TrustPayload:
        """The signed trust document for somebody who cannot read the store until `end`.

        A revocation list that would expire before `end` is signed again, since readers have to stop when it expires.
        """
        from daskpki.authority.publication import publish
        from daskpki.pki.crl import next_update

        if next_update(self.trust()) < end.timestamp():
            publish(self.session, fresh_crls=True)
        head = self.session.anchor.chain.head()
        assert head is not None, "it was read just now"
        return head.payload

    def _repair(self, *, check_rollback: bool = False) -> None:
        """Repair the unfinished work of other commands, as the log shows it.

        That is a due CRL, an unpublished revocation or change of CAs, and stale reservations, which are abandoned and
        their serials revoked; with `check_rollback` also a rolled-back trust document.
        """
        seen, now = self._seen(), self.session.now().timestamp()
        revoking = next(seen.certificates(statuses=[REVOKING]), None)
        unpublished = revoking is not None or not lookup.shows_authorities(seen, strictly=False)
        abandoned = bool(lookup.stale_reservations(seen, now)) and self._abandon_stale()
        needed = abandoned or unpublished or now >= seen.published.get("due", 0)
        if needed or check_rollback:  # the code that publishes is loaded only when there is something to publish
            from daskpki.authority.publication import is_rolled_back, publish

            if needed or is_rolled_back(self.session, self.session.log.read_cached()):  # includes our own publication
                publish(self.session)

    def _abandon_stale(self) -> bool:
        """Abandon stale reservations; their serials belong on the CRL, so the caller publishes."""

        def decide(inventory: Inventory) -> list[Draft]:
            stale = lookup.stale_reservations(inventory, self.session.now().timestamp())
            return [Draft(ABANDONED, {"serial": f"{entry.serial:x}"}) for entry in stale]

        return bool(self.session.commit(decide))

    def due(self) -> list[CertificateRecord]:
        """The leaves to renew: past two thirds of their life, or issued by a dropped CA; earliest end first."""
        from daskpki.authority.renewal import due

        return due(self.inventory(), self.session.now())

    def renew(self, entries: Sequence[CertificateRecord], *, give_way: bool = True) -> Iterator[Issued]:
        """Renew each of these with a new key, and skip those that another command renewed meanwhile.

        With `give_way`, also skip those that another command has reserved, and replace a rolled-back trust document by
        a new one. A due CRL is signed even without entries.

        PolicyError for a leaf that was issued for a request, before anything is done.
        """
        from daskpki.authority.renewal import issuing_ends, request_for, still_due

        policy = self.policy()
        ends = issuing_ends(self._seen())
        still = still_due(entries, self.session.now(), give_way=give_way)
        for kind in sorted({entry.key_type for entry in entries}):  # "csr" is first, so its error precedes any renewal
            alike = [
                request_for(entry, policy.trust_domain, ends[entry.issuer])
                for entry in entries
                if entry.key_type == kind
            ]
            yield from self._issue(alike, parse_renewable_key_type(kind), still)
        self._repair(check_rollback=give_way)

    def revoke(self, which: str, reason: str = "unspecified") -> list[CertificateRecord]:
        """Revoke one certificate (by serial or fingerprint) or the leaves of ROLE/NAME, and publish.

        Of ROLE/NAME, that is every leaf that may still have connections. Returns those that changed.
        NotFoundError if nothing of that name was issued, UsageError for a reason that RFC 5280 does not have.
        """
        from daskpki.authority.revocation import revoke, valid

        self.open_living()
        return revoke(self.session, valid(which, self.session.now().timestamp()), reason)

    def revocable(self, which: str, reason: str = "unspecified") -> list[CertificateRecord]:
        """The certificates that `revoke` would revoke now; the same errors."""
        from daskpki.authority.revocation import revocable, valid

        return revocable(self.inventory(), valid(which, self.session.now().timestamp()), reason)

    def release(self, which: str) -> list[CertificateRecord]:
        """Release certificates from hold; PolicyError if one was revoked for another reason."""
        from daskpki.authority.revocation import on_hold, release

        self.open_living()
        return release(self.session, on_hold(which))

    def sign_root_crl(self, root: OfflineRoot, *, revoke: bool = False) -> KeptCrl:
        """Let an offline root sign the CRL of its intermediate again, and publish it (`daskpki.authority.crl`)."""
        from daskpki.authority.crl import OFFLINE_ROOT, sign_root_crl
        from daskpki.authority.publication import publish

        self.session.issuers.open(published_authorities(self._seen()))
        signed = sign_root_crl(self.session, root, revoke=revoke)
        if signed.state == OFFLINE_ROOT:
            publish(self.session)
        return signed

    def rollover(self) -> Rollover:
        """The rollover, which replaces this CA by a new one step by step."""
        from daskpki.authority.rollover import Rollover

        return Rollover(self.session, self.inventory, self.renew)

    def has_valid(self, identity: Identity) -> bool:
        """True if the newest leaf of that identity is valid now."""
        entry = self._seen().current(identity.role, identity.name)
        return entry is not None and entry.state(self.session.now().timestamp()) == "issued"

    def trust(self) -> TrustDocument:
        """The current trust document, verified; NotFoundError before `init`."""
        from daskpki.authority.publication import current_trust

        return current_trust(self.session)

    def announce(self, scheduler: str) -> bool:
        """Publish the scheduler's address in the trust document, so that `login` knows it; False if it is there.

        UsageError for anything but tls://HOST[:PORT].
        """
        from daskpki.authority.publication import publish
        from daskpki.credentials.contexts import parse_scheduler

        address = parse_scheduler(scheduler)
        if address in self.trust().schedulers:
            return False
        self.open_living()
        publish(self.session, schedulers=[address])
        return True

    def verifier(self) -> Verifier:
        """A verifier of certificates against the current trust document."""
        from daskpki.authority.audit import Verifier

        return Verifier(self.session)

    def find(self, text: str, *, guess: bool = False) -> CertificateRecord:
        """The certificate that ROLE/NAME, a serial or a fingerprint names, with `guess` a plain name, too.

        NotFoundError, UsageError.
        """
        return lookup.find(self.inventory(), text, guess=guess)

    def describe(self, entry: CertificateRecord) -> dict[str, Any]:
        """A certificate as `--json` prints it."""
        if entry.issuer not in self._domains:
            self._domains = {known.generation: known.trust_domain for known in self._seen().authorities()}
        return lookup.describe(entry, self._domains[entry.issuer], self.session.now())
