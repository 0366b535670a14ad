"""Confines a helper before it reads a byte: seccomp, Landlock, limits; same user, no root, no namespaces.

The permitted system calls are those of a Python that computes, reads its own modules and answers on one socket.
libseccomp knows their numbers (every Debian has it, since apt needs it). Tested on x86-64, not on aarch64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from daskpki.errors import NotTrustedError

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_LANDLOCK: Final = 444
"""landlock_create_ruleset, the same for every kind of processor; landlock_add_rule and _restrict_self follow."""
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_LANDLOCK_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""Rights over files that each version of Landlock knows; from the fifth on there are 16."""

_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_BAD_ARCHITECTURE, _ALL_THREADS = 2, 4
"""Attributes of libseccomp: the action for calls of another architecture; apply the filter to all threads."""
_KNOWS_ALL_THREADS: Final = 2
"""libseccomp's API level for a kernel that can apply a filter to all threads."""
_UNKNOWN: Final = -1
_AT_MOST, _EQUAL, _MASKED = 3, 4, 7
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CLONE_THREAD: Final = 0x10000
_F_SETFL: Final = 4
_ALLOWED: Final = (
    "access brk clock_getres clock_gettime clock_nanosleep close dup exit exit_group faccessat faccessat2 fstat futex "
    "getcwd getdents64 getegid geteuid getgid getpid getrandom getrlimit getrusage gettid gettimeofday getuid lseek "
    "lstat madvise mmap mprotect mremap munmap nanosleep newfstatat poll ppoll pread64 read readlink readlinkat readv "
    "recvfrom rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield sendto set_robust_list "
    "sigaltstack stat statx sysinfo times uname write writev"
)
_ALLOWED_IF: Final = {
    "open": (1, _MASKED, _WRITES, 0),
    "openat": (2, _MASKED, _WRITES, 0),
    "clone": (0, _MASKED, _CLONE_THREAD, _CLONE_THREAD),
    "prlimit64": (2, _EQUAL, 0, 0),  # asking, not setting
    "fcntl": (1, _AT_MOST, _F_SETFL, 0),
}
"""Calls that are permitted by an argument: its position, the comparison, and the values."""

_libc = ctypes.CDLL(None, use_errno=True)


def verify_supported(*, landlock: bool = True) -> None:
    """Raise NotTrustedError, with the reason, if this machine cannot confine a helper."""
    if sys.platform != "linux":
        raise _unsupported(f"{sys.platform} is not Linux")
    try:
        level = _seccomp().seccomp_api_get()
    except OSError as error:
        raise _unsupported(f"no libseccomp (Debian's libseccomp2): {error}") from None
    if level < _KNOWS_ALL_THREADS:
        raise _unsupported("this kernel or container has no seccomp filters")
    if landlock and landlock_version() < 1:
        raise _unsupported("this kernel (before 5.13, or without it) or container has no Landlock")


def _unsupported(why: str) -> NotTrustedError:
    return NotTrustedError(
        f"a sealed scheduler cannot confine its helpers here: {why}",
        hint="without Landlock, --helper-user USER gives helpers a user of their own (needs root); "
        "or --scheduler-code stock",
    )


def make_undumpable() -> None:
    """Keep other processes of this user from reading this one's memory, descriptors and environment."""
    _verify(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def confine(memory: int, readable: Iterable[str], *, landlock: bool) -> None:
    """Give up all rights but to compute, for good; OSError if the kernel refuses a part of it.

    `memory` is in bytes of address space; `readable` are the directories and files that stay readable. `landlock`
    is false if helpers have a separate user on a kernel without it.
    """
    _verify(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")
    make_undumpable()
    for name, most in {"CORE": 0, "FSIZE": 0, "NOFILE": 256, "AS": memory}.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    _verify(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    if landlock:
        _restrict_files(readable)
    _restrict_calls()


def _verify(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def landlock_version() -> int:
    """Return the version of Landlock that the kernel offers to this process; below 1 for none."""
    return int(_libc.syscall(_LANDLOCK, None, 0, 1))  # LANDLOCK_CREATE_RULESET_VERSION


def _restrict_files(readable: Iterable[str]) -> None:
    version = landlock_version()
    files = (1 << _LANDLOCK_RIGHTS.get(version, 16)) - 1
    network, scopes = (3 if version >= 4 else 0), (3 if version >= 6 else 0)  # noqa: PLR2004 - Landlock's versions
    size = 24 if scopes else 16 if network else 8
    ruleset = _libc.syscall(_LANDLOCK, struct.pack("QQQ", files, network, scopes), size, 0)
    _verify(ruleset < 0, "landlock_create_ruleset")
    for path in filter(os.path.exists, readable):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights = _READ_FILE | _READ_DIR if Path(path).is_dir() else _READ_FILE
        rule = struct.pack("=Qi", rights, opened)
        _verify(_libc.syscall(_LANDLOCK + 1, ruleset, 1, rule, 0), f"landlock_add_rule {path}")
        os.close(opened)
    _verify(_libc.syscall(_LANDLOCK + 2, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _restrict_calls() -> None:
    """Permit the calls of a Python that only computes; every other one fails with EPERM."""
    seccomp = _seccomp()
    rules = ctypes.c_void_p(seccomp.seccomp_init(_ERRNO | errno.EPERM))
    seccomp.seccomp_attr_set(rules, _BAD_ARCHITECTURE, ctypes.c_uint32(_KILL_PROCESS))
    seccomp.seccomp_attr_set(rules, _ALL_THREADS, 1)
    for name, condition in (dict.fromkeys(_ALLOWED.split()) | _ALLOWED_IF).items():
        test = struct.pack("IIQQ", *condition) if condition else None
        _permit(seccomp, rules, _ALLOW, name, test)
    _permit(seccomp, rules, _ERRNO | errno.ENOSYS, "clone3")  # its flags are in memory; glibc falls back on clone
    if failed := seccomp.seccomp_load(rules):
        raise OSError(-failed, "seccomp_load")


def _permit(seccomp: ctypes.CDLL, rules: ctypes.c_void_p, action: int, name: str, test: bytes | None = None) -> None:
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN:
        return  # unknown to an older libseccomp: it stays refused
    if failed := seccomp.seccomp_rule_add_array(rules, action, number, int(test is not None), test):
        raise OSError(-failed, f"seccomp_rule_add {name}")


def _seccomp() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    return library
