"""The process that loads Dask and forks helpers, and the loop of a helper.

`python -m daskpki.cluster.sealed.helper_process FD MEMORY LANDLOCK`: on the socket FD the scheduler asks for a new
helper (and passes its end of a socket), or to end one; LANDLOCK is 0 on a kernel without it, else 1. The forking
process opens no data of clients.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
from typing import Final

from daskpki.cluster.sealed import confinement, tables
from daskpki.cluster.sealed.helper_pool import FORK, receive, send

PRELOADED: Final = ("numpy", "pandas", "dask.array", "dask.dataframe", "dask.bag")
SYSTEM: Final = (
    *("/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache"),
    *("/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/sys/devices/system/cpu"),
)
"""Files that numpy, pandas and the dynamic linker read besides Python's modules."""


def main(descriptor: int, memory: int, landlock: int) -> None:
    """Fork helpers until the scheduler is gone; they end with this process."""
    control = socket.socket(fileno=descriptor)
    confinement.make_undumpable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the scheduler
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.meta_path.append(tables.UPLOADS)
    gc.freeze()  # loaded modules stay shared between the helpers, which collect garbage between requests
    gc.disable()
    children = set[int]()
    while True:
        request, descriptors, _flags, _address = socket.recv_fds(control, 64, 1)
        if not request:
            return
        if request == FORK:
            children.add(child := _fork(descriptors[0], memory, landlock))
            control.send(b"%d" % child)
            os.close(descriptors[0])
        elif (child := int(request)) in children:
            children.discard(child)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)  # no other process gets its number before it is waited for, here
                os.waitpid(child, 0)


def _fork(descriptor: int, memory: int, landlock: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        _become_helper(descriptor, memory, landlock)
    finally:
        os._exit(0)  # a helper must not run the exit handlers of the forking process


def _become_helper(descriptor: int, memory: int, landlock: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.dup2(descriptor, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    stream = socket.socket(fileno=3)  # asks the kernel for the family, which confinement forbids
    readable = [*filter(None, sys.path), sys.prefix, sys.base_prefix, *SYSTEM]
    confinement.confine(memory, readable, landlock=bool(landlock))
    with contextlib.suppress(EOFError):
        while True:
            number, *request = receive(stream)
            send(stream, [number, tables.answer(request)])
            del request
            gc.collect()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
