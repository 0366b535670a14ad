"""Starts Dask after a successful boot: writes credential and handover to memory, then execs one program.

As PID 1, and for `node`, it starts a child for each program and becomes their init.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, NoReturn

from daskpki.boot.fetch import Material
from daskpki.boot.memfd import Place, open_place
from daskpki.boot.mounts import MountedFiles, mount_secrets
from daskpki.boot.plan import Program, dask_environment
from daskpki.boot.settings import Settings
from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, DaskpkiError, NotFoundError, UnavailableError, UsageError
from daskpki.handover import NO_SECRETS, Handover, encode_handover
from daskpki.identity import Role
from daskpki.pki import pem
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.trust_document import TrustDocument


def hand_over(
    place: Place,
    settings: Settings,
    credential: Credential,
    *,
    trust: TrustDocument,
    signed: Confidential,
    secrets: Mapping[str, str] = NO_SECRETS,
) -> tuple[Handover, str]:
    """Write the files of one program to `place`; return the handover and its path.

    `secrets` are mounted already: paths by name.
    """
    version = settings.versions.get(credential.identity.role)
    anchors = "".join(pem.encode_pem(anchor, pem.CERTIFICATE) for anchor in trust.roots)
    handover = Handover(
        cluster=trust.cluster,
        trust_domain=trust.trust_domain,
        role=credential.identity.role.value,
        name=credential.identity.name,
        cert=place.put("cert.pem", certificate_pem(credential).encode()),
        key=place.put("key.pem", key_pem(credential).reveal()),
        ca=place.put("ca.pem", anchors.encode()),
        trust=place.put("trust.json", signed.reveal()),
        worker_clients=settings.worker_clients,
        dashboard=settings.dashboard,
        tls_min=settings.tls_min,
        store=str(settings.store) if settings.store else None,
        directory=_absolute(settings.directory_for(credential.identity.role)),
        file=_absolute(settings.file),
        endpoint=settings.endpoint,
        scheduler=settings.scheduler,
        secrets=secrets,
        pinned=str(version) if version else None,
        freshness=settings.freshness,
        health=_health(settings, credential.identity.role),
        metrics=settings.metrics,
        scheduler_code=settings.scheduler_code,
        helper_limits=settings.helper_limits,
        helper_user=settings.helper_user,
        retire=str(settings.retire),
        command=settings.command,
    )
    return handover, place.put("handover.json", encode_handover(handover))


def _absolute(directory: str | None) -> str | None:
    return None if directory is None else os.path.abspath(directory)  # noqa: PTH100 - pathlib costs 9 ms at boot


def _health(settings: Settings, role: Role) -> str | None:
    """Return the health address of a role: on a node, workers take the port after the scheduler's."""
    if settings.health is None or settings.command != "node" or role is Role.SCHEDULER:
        return settings.health
    host, _, port = settings.health.rpartition(":")
    return f"{host}:{int(port) + 1}"


Execve = Callable[[str, list[str], dict[str, str]], object]
"""os.execve, or a test's replacement; `find_command` has found the file."""

_FAILED = 1
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class Checked(NamedTuple):
    """Settings, material and trust document that passed every check."""

    settings: Settings
    material: Material
    trust: TrustDocument


def start(checked: Checked, programs: Sequence[Program], environ: Mapping[str, str], execve: Execve) -> None:
    """Become the program, or the init of several programs or of a program of PID 1. Raises if that is not possible."""
    if len(programs) == 1 and os.getpid() != 1:
        become(checked, programs[0], environ, execve)
        return
    import signal

    from daskpki.boot.init import WAITED_FOR, exec_init

    for program in programs:
        find_user(program.user)
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

    from daskpki.boot.log import BootLog

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

    Otherwise it would survive a kill of the whole job, since it has its own process group. A change of user undoes it.
    """
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become(checked: Checked, program: Program, environ: Mapping[str, str], execve: Execve) -> None:
    """Write the program's credential to memory, and exec the program; remove the files if that fails."""
    command = find_command(program.argv[0], environ)
    place, files = open_place(environ), MountedFiles()
    try:
        variables = _put(place, files, checked, program, environ)
        execve(command, list(program.argv), variables)
    except OSError as error:
        raise DaskpkiError(f"{command} cannot be started: {error.strerror}") from error
    finally:  # not reached by a real exec that succeeds
        place.clear()
        files.clear()


def _put(
    place: Place, files: MountedFiles, checked: Checked, program: Program, environ: Mapping[str, str]
) -> dict[str, str]:
    # A node's secrets are for its workers, where tasks run.
    for_workers = checked.settings.command == "node" and program.role is Role.SCHEDULER
    mounted = mount_secrets(() if for_workers else checked.material.secrets, place, files)
    handover, path = hand_over(
        place,
        checked.settings,
        next(each for each in checked.material.credentials if each.identity.role is program.role),
        trust=checked.trust,
        signed=checked.material.trust.data,
        secrets=mounted.paths,
    )
    return {**dask_environment(handover, path, environ, checked.settings.log_format), **mounted.variables}


def find_command(name: str, environ: Mapping[str, str]) -> str:
    """Find the file of a command in PATH; NotFoundError."""
    directories = [""] if "/" in name else environ.get("PATH", os.defpath).split(os.pathsep)
    for directory in directories:
        path = f"{directory or '.'}/{name}" if directory or "/" not in name else name
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113 - pathlib costs 9 ms at boot
            return path
    raise NotFoundError(f"the command {name!r} is not found", hint="give its full path, or set PATH")


class User(NamedTuple):
    """A user to switch to."""

    name: str
    uid: int
    gid: int
    home: str


def find_user(name: str | None) -> User | None:
    """Look up a user, None to stay the current one; UsageError, AccessDeniedError without root."""
    if name is None:
        return None
    import pwd

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"--worker-user {name!r}: this machine has no such user") from None
    if os.geteuid() != 0 and entry.pw_uid != os.geteuid():
        raise AccessDeniedError(f"--worker-user {name}: only root can become another user")
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def switch_user(name: str | None) -> None:
    """Become that user for good, with its groups and without root's; later memfds belong to it."""
    user = find_user(name)
    if user is None or user.uid == os.geteuid():
        return
    os.initgroups(user.name, user.gid)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
