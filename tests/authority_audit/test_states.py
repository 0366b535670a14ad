"""A random life of a CA against a model: issue, renew, revoke, hold, release, time, other operators.

What is revoked never verifies again, unless it was on hold; numbers never go back; the inventory is what was done.
DASKPKI_NIGHTLY=1 tries 500 lives of 50 steps.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from daskpki.authority import CertificateAuthority
from daskpki.authority.audit import verify_log
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from daskpki.inventory import CertificateRecord
from daskpki.pki.credential import parse_credential
from daskpki.pki.pem import encode_pem
from tests.crash.nightly import by_day
from tests.store.places import LocalPlace

NAMES = ("w-0", "w-1", "w-2")
FINAL = ("keyCompromise", "superseded")
START = datetime(2027, 1, 1, tzinfo=UTC)


class Life(RuleBasedStateMachine):
    """`states` is the model: each serial's state as it should be; `order` each name's serials, oldest first."""

    serials = Bundle("serials")

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.states: dict[int, str] = {}
        self.entries: dict[int, CertificateRecord] = {}
        self.newest: dict[str, int] = {}
        self.numbers = (0, 0)
        self.open = ExitStack()

    @initialize()
    def found(self) -> None:
        place = LocalPlace(Path(self.open.enter_context(tempfile.TemporaryDirectory())))
        place.create().close()
        stores = [place.factory(), place.factory()]
        for store in stores:
            self.open.callback(store.close)
        clock = lambda: self.now  # noqa: E731
        self.operators = [
            CertificateAuthority(store, "c", who=f"operator {n}", clock=clock) for n, store in enumerate(stores)
        ]
        self.operators[0].init(max_ttl="30d")

    operator = st.integers(0, 1)

    @rule(target=serials, name=st.sampled_from(NAMES), operator=operator, days=st.integers(1, 30))
    def issue(self, name: str, operator: int, days: int) -> int:
        authority = self.operators[operator]
        (leaf,) = authority.issue(authority.requests(Role.WORKER, [name], ttl=f"{days}d"))
        return self.took_place(leaf.record)

    @rule(operator=operator)
    def renew_what_is_due(self, operator: int) -> None:
        authority = self.operators[operator]
        due = authority.due()
        assert {entry.serial for entry in due} == {serial for serial in self.newest.values() if self.is_due(serial)}
        for leaf in authority.renew(due):
            self.took_place(leaf.record)
        assert not authority.due()

    @rule(serial=serials, operator=operator, reason=st.sampled_from((*FINAL, "certificateHold")))
    def revoke(self, serial: int, operator: int, reason: str) -> None:
        changed = self.operators[operator].revoke(f"{serial:x}", reason)
        before = self.states[serial]
        expected = before == "issued" or (before == "certificateHold" and reason != "certificateHold")
        assert [entry.serial for entry in changed] == [serial] * expected
        if expected:
            self.states[serial] = reason

    @rule(serial=serials, operator=operator)
    def release(self, serial: int, operator: int) -> None:
        held = self.states[serial] == "certificateHold"
        if held:
            assert [entry.serial for entry in self.operators[operator].release(f"{serial:x}")] == [serial]
            self.states[serial] = "issued"
            return
        with pytest.raises(Exception, match=r"final|not on hold"):
            self.operators[operator].release(f"{serial:x}")

    @rule(days=st.integers(0, 12))
    def time_passes(self, days: int) -> None:
        self.now += timedelta(days=days, hours=1)

    @rule(serial=serials, operator=operator)
    def verify(self, serial: int, operator: int) -> None:
        authority, entry = self.operators[operator], self.entries[serial]
        assert entry.version is not None
        payload = authority.session.store.secrets.access(f"daskpki_c_worker_{entry.name}", entry.version)
        certificate = encode_pem(parse_credential(payload).leaf, "CERTIFICATE").encode()
        trusted = False
        with suppress(NotTrustedError):
            trusted = authority.verifier().verify(certificate).serial == serial
        fresh = self.now <= self.published_at() + timedelta(days=35)
        assert trusted == (self.states[serial] == "issued" and not self.is_over(serial) and fresh)

    @invariant()
    @precondition(lambda self: hasattr(self, "operators"))
    def the_inventory_is_what_was_done(self) -> None:
        authority = self.operators[0]
        now = self.now.timestamp()
        shown = {entry.serial: entry for entry in authority.inventory().certificates()}
        assert shown.keys() == self.states.keys()
        for serial, entry in shown.items():
            state = self.states[serial]
            if state != "issued":
                assert (entry.state(now), entry.reason) == ("revoked", state)
            elif self.is_over(serial):
                assert entry.state(now) == "expired"
            else:
                newest = self.newest[entry.name] == serial
                assert entry.state(now) == ("issued" if newest else "superseded")
        trust = authority.trust()
        numbers = (trust.epoch, trust.crls[0].number)
        assert all(new >= old for new, old in zip(numbers, self.numbers, strict=True))
        self.numbers = numbers

    def took_place(self, record: CertificateRecord) -> int:
        assert record.serial not in self.states
        self.states[record.serial] = "issued"
        self.entries[record.serial] = record
        self.newest[record.name] = record.serial
        return record.serial

    def is_over(self, serial: int) -> bool:
        return self.now.timestamp() > self.entries[serial].not_after

    def is_due(self, serial: int) -> bool:
        entry = self.entries[serial]
        third = (entry.not_after - entry.not_before) / 3
        return self.states[serial] == "issued" and self.now.timestamp() >= entry.not_after - third

    def published_at(self) -> datetime:
        return datetime.fromtimestamp(self.operators[0].trust().crls[0].this_update, UTC)

    def teardown(self) -> None:
        if hasattr(self, "operators"):
            verify_log(self.operators[1].session)
        self.open.close()


TestLife = pytest.mark.timeout(by_day(180, night=7200))(Life.TestCase)
TestLife.settings = settings(
    max_examples=by_day(8, night=500),
    stateful_step_count=by_day(15, night=50),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
