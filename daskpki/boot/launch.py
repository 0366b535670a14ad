"""The order of a boot: settings, fetch, verify, memory files, exec. If any step fails, Dask does not start.

The credential and the handover are written to memory, then one program is executed. As PID 1, and for `node`, the boot
starts a child for each program and becomes their init.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from daskpki.boot.fetch import Material, fetch
from daskpki.boot.http import RetryPolicy
from daskpki.boot.log import BootLog
from daskpki.boot.memfd import Place, open_place
from daskpki.boot.mounts import MountedFiles, mount_secrets
from daskpki.boot.options import parse_arguments
from daskpki.boot.plan import Program, check_arguments, dask_environment, plan_programs, usable_cores
from daskpki.boot.settings import Settings, parse_settings
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError, UnavailableError, UsageError
from daskpki.handover import Handover, encode_handover
from daskpki.identity import Role
from daskpki.pki import pem
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.trust_document import TrustDocument
from daskpki.quoting import minute

if TYPE_CHECKING:
    from pwd import struct_passwd


Execve = Callable[[str, list[str], dict[str, str]], object]
"""os.execvpe, which finds a command in PATH, or a test's replacement."""

_CLOCK_PATIENCE: Final = 60.0
"""Seconds in which a wrong clock may be corrected: a VM asks its time servers as it starts."""
_FAILED: Final = 1
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class Checked(NamedTuple):
    """Settings, material and trust document that passed every check."""

    settings: Settings
    material: Material
    trust: TrustDocument


def boot(argv: Sequence[str], environ: Mapping[str, str], execve: Execve = os.execvpe) -> None:
    """Become Dask; raises a DaskpkiError if that is not possible, and then leaves no files."""
    settings = parse_settings(parse_arguments(argv), environ)
    check_arguments(settings)
    find_user(settings.worker_user)  # an unknown user fails before anything is fetched
    checked = prepare(settings, environ)
    programs = plan_programs(checked.settings, checked.trust.schedulers, usable_cores())
    start(checked, programs, environ, execve)


def prepare(settings: Settings, environ: Mapping[str, str]) -> Checked:
    """Fetch and verify the credential, the trust document and the mounted secrets."""
    end = time.monotonic() + settings.deadline
    messages = BootLog(settings.log_format)
    settings, material = fetch(settings, environ, RetryPolicy(end, messages.warn))
    from daskpki.boot.verify import Clocks, verify_in_time

    left = min(_CLOCK_PATIENCE, max(0.0, end - time.monotonic()))
    trust = verify_in_time(material, settings, Clocks(time.time, time.monotonic, time.sleep), patience=left)
    named = " and ".join(_name_credential(credential, settings) for credential in material.credentials)
    messages.note(f"{named}, from {settings.source}; trust epoch {trust.epoch}")
    if settings.freshness.stale_trust == "allow":
        ends = min(part.next_update for part in trust.crls)
        messages.warn(f"--stale-trust allow: peers that are revoked after {minute(ends)} may be accepted")
    return Checked(settings, material, trust)


def _name_credential(credential: Credential, settings: Settings) -> str:
    version = settings.versions.get(credential.identity.role)
    return credential.identity.uri + (f" (version {version}, which it keeps)" if version else "")


def start(checked: Checked, programs: Sequence[Program], environ: Mapping[str, str], execve: Execve) -> None:
    """Become the program, or the init of several programs or of a program of PID 1. Raises if that is not possible."""
    if len(programs) == 1 and os.getpid() != 1:
        become(checked, programs[0], environ, execve)
        return
    import signal

    from daskpki.boot.init import WAITED_FOR, exec_init

    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    children: dict[int, str] = {}
    try:
        for program in programs:
            child = os.fork()
            if child == 0:
                _become_in_child(checked, program, environ, execve, before)
            children[child] = program.role.value
        exec_init(children, checked.settings.log_format, execve, retire=checked.settings.retire)
    except OSError as error:
        for child in children:  # no other process would end them
            os.kill(child, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise UnavailableError(f"the programs cannot be started: {error.strerror}") from error


def _become_in_child(
    checked: Checked, program: Program, environ: Mapping[str, str], execve: Execve, mask: set[int]
) -> NoReturn:
    """Run in the forked child: switch user, then exec. Never returns."""
    import signal

    code = _FAILED
    try:
        os.setpgid(0, 0)  # the terminal's signals go to the init alone, which forwards them in order
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        switch_user(program.user)
        _end_with_init()
        become(checked, program, environ, execve)
    except Exception as error:  # noqa: BLE001 - as in __main__.py
        code = BootLog(checked.settings.log_format).report(error)
    except SystemExit as end:  # a signal came before exec
        code = end.code if isinstance(end.code, int) else _FAILED
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with_init() -> None:
    """Let the kernel kill this program when its init is killed, as all processes of a container end with PID 1.

    Otherwise it would survive a kill of the whole job, since it has its own process group. A change of user clears the
    setting, so call this after it.
    """
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become(checked: Checked, program: Program, environ: Mapping[str, str], execve: Execve) -> None:
    """Write the program's credential to memory, and exec the program; remove the files if that fails."""
    command = program.argv[0]
    place, files = open_place(environ), MountedFiles()
    try:
        variables = _hand_over(place, files, checked, program, environ)
        execve(command, list(program.argv), variables)
    except (FileNotFoundError, NotADirectoryError):
        hint = "give its full path, or set PATH; if it is a script, see that its interpreter is there"
        raise NotFoundError(f"the command {command!r} is not found", hint=hint) from None
    except OSError as error:
        raise DaskpkiError(f"{command} cannot be started: {error.strerror}") from error
    finally:  # not reached by a real exec that succeeds
        place.clear()
        files.clear()


def _hand_over(
    place: Place, files: MountedFiles, checked: Checked, program: Program, environ: Mapping[str, str]
) -> dict[str, str]:
    """Write the files of one program; return its environment, which names the handover."""
    (settings, material, trust), role = checked, program.role
    credential = next(each for each in material.credentials if each.identity.role is role)
    # A node's secrets are for its workers, where tasks run.
    for_workers = settings.command == "node" and role is Role.SCHEDULER
    mounted = mount_secrets(() if for_workers else material.secrets, place, files)
    version = settings.versions.get(role)
    anchors = "".join(pem.encode_pem(anchor, pem.CERTIFICATE) for anchor in trust.roots)
    handover = Handover(
        cluster=trust.cluster,
        trust_domain=trust.trust_domain,
        role=role.value,
        name=credential.identity.name,
        cert=place.put("cert.pem", certificate_pem(credential).encode()),
        key=place.put("key.pem", key_pem(credential).reveal()),
        ca=place.put("ca.pem", anchors.encode()),
        trust=place.put("trust.json", material.trust.data.reveal()),
        worker_clients=settings.worker_clients,
        dashboard=settings.dashboard,
        tls_min=settings.tls_min,
        store=str(settings.store) if settings.store else None,
        directory=_absolute(settings.directory_for(role)),
        file=_absolute(settings.file),
        endpoint=settings.endpoint,
        scheduler=settings.scheduler,
        secrets=mounted.paths,
        pinned=str(version) if version else None,
        freshness=settings.freshness,
        health=_health(settings, role),
        metrics=settings.metrics,
        scheduler_code=settings.scheduler_code,
        helper_limits=settings.helper_limits,
        helper_user=settings.helper_user,
        retire=str(settings.retire),
        command=settings.command,
    )
    path = place.put("handover.json", encode_handover(handover))
    return {**dask_environment(handover, path, environ, settings.log_format), **mounted.variables}


def _absolute(directory: str | None) -> str | None:
    return None if directory is None else os.path.abspath(directory)  # noqa: PTH100 - `..` is removed as text


def _health(settings: Settings, role: Role) -> str | None:
    """Return the health address of a role: on a node, workers take the port after the scheduler's."""
    if settings.health is None or settings.command != "node" or role is Role.SCHEDULER:
        return settings.health
    host, _, port = settings.health.rpartition(":")
    return f"{host}:{int(port) + 1}"


def find_user(name: str | None) -> struct_passwd | None:
    """Look up the user to become; None to stay the current one. UsageError, AccessDeniedError without root."""
    if name is None:
        return None
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"--worker-user {name!r}: this machine has no such user") from None
    if os.geteuid() != 0 and entry.pw_uid != os.geteuid():
        raise AccessDeniedError(f"--worker-user {name}: only root can become another user")
    return entry


def switch_user(name: str | None) -> None:
    """Become that user for good, with its groups and without root's; later memfds belong to it."""
    user = find_user(name)
    if user is None or user.pw_uid == os.geteuid():
        return
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
