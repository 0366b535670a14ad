"""Where a seal is asked for, and where it is refused."""

from __future__ import annotations

import platform

import pytest

from daskpki import cluster_security
from daskpki.boot.options import parse_arguments
from daskpki.boot.settings import Settings, parse_settings
from daskpki.cluster.sealed.helper_pool import Helpers, Limits
from daskpki.errors import NotTrustedError, UsageError
from daskpki.handover import SEALED, STOCK


def boot(*words: str, **environ: str) -> Settings:
    return parse_settings(parse_arguments(["scheduler", *words]), environ)


def test_stock_is_the_default_and_sealed_one_word_away() -> None:
    assert boot().scheduler_code == STOCK
    assert boot("--scheduler-code", "sealed").scheduler_code == SEALED
    assert boot(DASKPKI_SCHEDULER_CODE="sealed", DASKPKI_HELPER_LIMITS="helpers=2").helper_limits == "helpers=2"
    with pytest.raises(UsageError, match="'shut' is none of stock, sealed"):
        boot("--scheduler-code", "shut")
    with pytest.raises(UsageError, match="'helpers' is not NAME=NUMBER"):
        boot("--helper-limits", "helpers")


def test_a_scheduler_in_your_own_process_cannot_be_sealed() -> None:
    with pytest.raises(UsageError, match="refused where the scheduler lives in your own process"):
        cluster_security("alice", scheduler_code="sealed")
    with pytest.raises(UsageError, match="'shut' is none of stock, sealed"):
        cluster_security("alice", scheduler_code="shut")


def test_a_machine_that_cannot_confine_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    with pytest.raises(NotTrustedError, match=r"cannot confine its helpers here: linux on s390x") as refusal:
        Helpers(Limits())
    assert "--helper-user" in str(refusal.value.hint)


def test_a_helpers_user_has_to_exist() -> None:
    with pytest.raises(UsageError, match="'nobody-of-that-name' is no user"):
        Helpers(Limits(), "nobody-of-that-name")
