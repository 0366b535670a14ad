"""The order of a boot: settings, fetch, verify, memory files, exec. If any step fails, Dask does not start."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from daskpki.boot.fetch import fetch
from daskpki.boot.http import RetryPolicy
from daskpki.boot.launch import Checked, Execve, find_user, start
from daskpki.boot.log import BootLog
from daskpki.boot.options import parse_arguments
from daskpki.boot.plan import check_arguments, plan_programs, usable_cores
from daskpki.boot.settings import Settings, parse_settings
from daskpki.pki.credential import Credential
from daskpki.quoting import minute

_CLOCK_PATIENCE = 60.0


def boot(argv: Sequence[str], environ: Mapping[str, str], execve: Execve = os.execve) -> None:
    """Become Dask; raises a DaskpkiError if that is not possible, and then leaves no files."""
    settings = parse_settings(parse_arguments(argv), environ)
    check_arguments(settings)
    find_user(settings.worker_user)
    checked = prepare(settings, environ)
    programs = plan_programs(checked.settings, checked.trust.schedulers, usable_cores())
    start(checked, programs, environ, execve)


def prepare(settings: Settings, environ: Mapping[str, str]) -> Checked:
    """Fetch and verify the credential, the trust document and the mounted secrets."""
    end = time.monotonic() + settings.deadline
    messages = BootLog(settings.log_format)
    fetched = fetch(settings, environ, RetryPolicy(end, messages.warn))
    from daskpki.boot.verify import Clocks, verify_in_time

    left = min(_CLOCK_PATIENCE, max(0.0, end - time.monotonic()))
    clocks = Clocks(time.time, time.monotonic, time.sleep)
    trust = verify_in_time(fetched.material, fetched.settings, fetched.date, clocks, patience=left)
    named = " and ".join(_name_credential(credential, settings) for credential in fetched.material.credentials)
    messages.note(f"{named}, from {settings.source}; trust epoch {trust.epoch}")
    if settings.freshness.stale_trust == "allow":
        ends = min(part.next_update for part in trust.crls)
        messages.warn(f"--stale-trust allow: peers that are revoked after {minute(ends)} may be accepted")
    return Checked(fetched.settings, fetched.material, trust)


def _name_credential(credential: Credential, settings: Settings) -> str:
    version = settings.versions.get(credential.identity.role)
    return credential.identity.uri + (f" (version {version}, which it keeps)" if version else "")
