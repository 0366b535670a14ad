"""Where a seal is asked for, and where it is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from daskpki import cluster_security
from daskpki.boot.options import OPTIONS, parse_arguments
from daskpki.boot.settings import Settings, parse_settings
from daskpki.cluster.sealed.helper_pool import Limits
from daskpki.errors import UsageError
from daskpki.handover import SEALED, STOCK
from tests.support.paths import ROOT


def boot(*words: str, **environ: str) -> Settings:
    return parse_settings(parse_arguments(["scheduler", *words]), environ)


def test_stock_is_the_default_and_sealed_one_word_away() -> None:
    assert boot().scheduler_code == STOCK
    assert boot("--scheduler-code", "sealed").scheduler_code == SEALED
    assert boot(DASKPKI_SCHEDULER_CODE="sealed", DASKPKI_HELPER_LIMITS="helpers=2").helper_limits == "helpers=2"
    with pytest.raises(UsageError, match="'shut' is none of stock, sealed"):
        boot("--scheduler-code", "shut")


def test_the_help_shows_the_default_limits() -> None:
    (option,) = (option for option in OPTIONS if option.name == "helper-limits")
    limits = ",".join(f"{name}={limit}" for name, limit in Limits()._asdict().items())
    assert option.meaning.endswith(f" [{limits}]")


def test_a_scheduler_in_your_own_process_cannot_be_sealed() -> None:
    with pytest.raises(UsageError, match="refused where the scheduler lives in your own process"):
        cluster_security("alice", scheduler_code="sealed")
    with pytest.raises(UsageError, match="'shut' is none of stock, sealed"):
        cluster_security("alice", scheduler_code="shut")


WITHOUT_LANDLOCK = """
from tests.support.helper_user import deny_landlock
from daskpki.cluster.sealed.helper_pool import Helpers, Limits
from daskpki.errors import NotTrustedError
deny_landlock()
try:
    Helpers(Limits())
except NotTrustedError as error:
    print(error, error.hint)
"""


def test_a_machine_that_cannot_confine_is_told_the_way_out() -> None:
    command = [sys.executable, "-c", WITHOUT_LANDLOCK]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "cannot confine its helpers here: this kernel (before 5.13, or without it) or container has no Landl" in told
    assert "--helper-user" in told
