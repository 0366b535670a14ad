"""What a helper gives up before it reads a byte: seccomp, Landlock, limits; same user, no root, no namespaces.

The system calls that stay are those of a Python that computes, reads its own modules and answers on one socket.
Numbers are those of the kernel's headers (`asm/unistd_64.h`, `asm-generic/unistd.h`); aarch64 was not run.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.errors import NotTrustedError

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_GET_ACTION_AVAIL: Final = 2
_TSYNC: Final = 1
"""The filter holds for threads that libraries have started before, too."""
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
_X32: Final = 0x40000000
_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CLONE_THREAD: Final = 0x10000
_F_SETFL: Final = 4
_EPERM, _ENOSYS = 1, 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_LANDLOCK_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""Rights over files that each version of Landlock knows; from the fifth on there are 16."""


class Machine(NamedTuple):
    """The numbers of one kind of processor; a call that it does not have is not in `calls`."""

    architecture: int
    landlock: int
    seccomp: int
    calls: Mapping[str, int]


def _numbers(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (word.partition(":") for word in text.split())}


MACHINES: Final[Mapping[str, Machine]] = {
    "x86_64": Machine(
        0xC000003E,
        444,
        317,
        _numbers(
            "access:21 brk:12 clock_getres:229 clock_gettime:228 clock_nanosleep:230 close:3 dup:32 exit:60 "
            "exit_group:231 faccessat:269 faccessat2:439 fstat:5 futex:202 getcwd:79 getdents64:217 getegid:108 "
            "geteuid:107 getgid:104 getpid:39 getrandom:318 getrlimit:97 getrusage:98 gettid:186 gettimeofday:96 "
            "getuid:102 lseek:8 lstat:6 madvise:28 mmap:9 mprotect:10 mremap:25 munmap:11 nanosleep:35 newfstatat:262 "
            "poll:7 ppoll:271 pread64:17 read:0 readlink:89 readlinkat:267 readv:19 recvfrom:45 rseq:334 "
            "rt_sigaction:13 rt_sigprocmask:14 rt_sigreturn:15 sched_getaffinity:204 sched_yield:24 sendto:44 "
            "set_robust_list:273 sigaltstack:131 stat:4 statx:332 sysinfo:99 times:100 uname:63 write:1 writev:20 "
            "open:2 openat:257 clone:56 clone3:435 prlimit64:302 fcntl:72"
        ),
    ),
    "aarch64": Machine(
        0xC00000B7,
        444,
        277,
        _numbers(
            "brk:214 clock_getres:114 clock_gettime:113 clock_nanosleep:115 close:57 dup:23 exit:93 exit_group:94 "
            "faccessat:48 faccessat2:439 fstat:80 futex:98 getcwd:17 getdents64:61 getegid:177 geteuid:175 getgid:176 "
            "getpid:172 getrandom:278 getrlimit:163 getrusage:165 gettid:178 gettimeofday:169 getuid:174 lseek:62 "
            "madvise:233 mmap:222 mprotect:226 mremap:216 munmap:215 nanosleep:101 newfstatat:79 ppoll:73 pread64:67 "
            "read:63 readlinkat:78 readv:65 recvfrom:207 rseq:293 rt_sigaction:134 rt_sigprocmask:135 "
            "rt_sigreturn:139 sched_getaffinity:123 sched_yield:124 sendto:206 set_robust_list:99 sigaltstack:132 "
            "statx:291 sysinfo:179 times:153 uname:160 write:64 writev:66 openat:56 clone:220 clone3:435 "
            "prlimit64:261 fcntl:25"
        ),
    ),
}

_libc = ctypes.CDLL(None, use_errno=True)


def verify_supported() -> None:
    """Raise NotTrustedError where this kernel cannot hold a helper, with what is missing."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        raise _unsupported(f"{sys.platform} on {platform.machine()}, where its system calls are not known")
    action = struct.pack("I", _ERRNO)
    if _libc.syscall(_machine().seccomp, _SECCOMP_GET_ACTION_AVAIL, 0, action):
        raise _unsupported("a kernel or a container that has no seccomp filters")
    if _landlock_version() < 1:
        raise _unsupported("a kernel (before 5.13, or without it) or a container that has no Landlock")


def _unsupported(where: str) -> NotTrustedError:
    return NotTrustedError(
        f"a sealed scheduler cannot confine its helpers here: {where}",
        hint="--helper-user USER gives helpers a user of their own (needs root), or --scheduler-code stock",
    )


def make_undumpable() -> None:
    """Keep other processes of this user from reading this one's memory, descriptors and environment."""
    _verify(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def confine(memory: int, readable: Iterable[str], *, landlock: bool) -> None:
    """Give up all but computing; OSError when the kernel does not take a part of it. There is no way back.

    `memory` is in bytes of address space; `readable` are the directories and files that stay readable. `landlock`
    is false where helpers have a user of their own on a kernel that lacks it.
    """
    _verify(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")
    make_undumpable()
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_AS, memory),
    ):
        resource.setrlimit(limit, (most, most))
    _verify(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    if landlock:
        _restrict_files(readable)
    if platform.machine() in MACHINES:
        _restrict_calls(_machine())


def has_landlock() -> bool:
    """Whether the kernel offers Landlock to this process."""
    return platform.machine() in MACHINES and _landlock_version() >= 1


def _machine() -> Machine:
    return MACHINES[platform.machine()]


def _verify(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


# --- files


def _landlock_version() -> int:
    return int(_libc.syscall(_machine().landlock, None, 0, 1))  # LANDLOCK_CREATE_RULESET_VERSION


def _restrict_files(readable: Iterable[str]) -> None:
    version = _landlock_version()
    files = (1 << _LANDLOCK_RIGHTS.get(version, 16)) - 1
    network, scopes = (3 if version >= 4 else 0), (3 if version >= 6 else 0)  # noqa: PLR2004 - Landlock's versions
    size = 24 if scopes else 16 if network else 8
    create = _machine().landlock
    ruleset = _libc.syscall(create, struct.pack("QQQ", files, network, scopes), size, 0)
    _verify(ruleset < 0, "landlock_create_ruleset")
    for path in readable:
        _allow_reading(create + 1, ruleset, path)
    _verify(_libc.syscall(create + 2, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _allow_reading(add_rule: int, ruleset: int, path: str) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no right
    rights = _READ_FILE | _READ_DIR if Path(path).is_dir() else _READ_FILE
    _verify(_libc.syscall(add_rule, ruleset, 1, struct.pack("=Qi", rights, opened), 0), f"landlock_add_rule {path}")
    os.close(opened)


# --- system calls


def _restrict_calls(machine: Machine) -> None:
    code = b"".join(program(machine))
    kept = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(kept))
    _verify(_libc.syscall(machine.seccomp, _SECCOMP_SET_MODE_FILTER, _TSYNC, header), "seccomp")


def program(machine: Machine) -> Iterator[bytes]:
    """The filter: what is not in the machine's table fails with EPERM, and another architecture's call kills."""
    yield _step(_LOAD, 4)
    yield _step(_EQUAL, machine.architecture, 1, 0)
    yield _step(_RETURN, _KILL)
    yield _step(_LOAD, 0)
    yield _step(_AT_LEAST, _X32, 0, 1)
    yield _step(_RETURN, _KILL)
    conditions = {
        "open": _if_not(_ANY_BIT, 1, _WRITES),
        "openat": _if_not(_ANY_BIT, 2, _WRITES),
        "clone": _if(_ANY_BIT, 0, _CLONE_THREAD),
        "clone3": (_step(_RETURN, _ERRNO | _ENOSYS),),  # its flags are in memory; glibc falls back on clone
        "prlimit64": _if_both_halves_zero(2),  # asking, not setting
        "fcntl": _if_not(_AT_LEAST, 1, _F_SETFL + 1),
    }
    for name, number in machine.calls.items():
        body = conditions.get(name, (_step(_RETURN, _ALLOW),))
        yield _step(_EQUAL, number, 0, len(body))
        yield from body
    yield _step(_RETURN, _ERRNO | _EPERM)


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_so, if_not, value)


def _argument(index: int, half: int = 0) -> bytes:
    return _step(_LOAD, 16 + 8 * index + 4 * half)  # struct seccomp_data, little-endian


def _if(test: int, index: int, value: int) -> Sequence[bytes]:
    refused, allowed = _step(_RETURN, _ERRNO | _EPERM), _step(_RETURN, _ALLOW)
    return _argument(index), _step(test, value, 1, 0), refused, allowed


def _if_not(test: int, index: int, value: int) -> Sequence[bytes]:
    refused, allowed = _step(_RETURN, _ERRNO | _EPERM), _step(_RETURN, _ALLOW)
    return _argument(index), _step(test, value, 0, 1), refused, allowed


def _if_both_halves_zero(index: int) -> Sequence[bytes]:
    refused, allowed = _step(_RETURN, _ERRNO | _EPERM), _step(_RETURN, _ALLOW)
    halves = _argument(index), _step(_EQUAL, 0, 0, 2), _argument(index, 1), _step(_EQUAL, 0, 1, 0)
    return *halves, refused, allowed
