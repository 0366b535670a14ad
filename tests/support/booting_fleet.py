"""Many VMs' boots at once: `python -m tests.support.booting_fleet COUNT ARGUMENTS...`, each up to its exec.

Each is a process of its own, forked from this one so that they begin within a moment, whatever Python takes to start.
In ARGUMENTS, `{}` is the VM's number; in place of Dask, `true` is started. Ends with 0 if all did.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import daskpki.boot.google
import daskpki.boot.http
import daskpki.credentials.verified  # noqa: F401 - loaded once for all
from daskpki.boot.launch import boot
from daskpki.boot.log import BootLog


def become_true(_command: str, _argv: list[str], environ: dict[str, str]) -> None:
    os.execve("/bin/true", ["true"], environ)  # noqa: S606 - no shell is wanted


def boot_vm(number: int, arguments: list[str]) -> NoReturn:
    code = 1
    try:
        boot([word.format(number) for word in arguments], os.environ, become_true)
    except Exception as error:  # noqa: BLE001 - as in daskpki.boot.__main__
        code = BootLog().report(error)
    finally:
        os._exit(code)


def main() -> int:
    for number in range(int(sys.argv[1])):
        if os.fork() == 0:
            boot_vm(number, sys.argv[2:])
    statuses = []
    while True:
        try:
            statuses.append(os.waitstatus_to_exitcode(os.wait()[1]))
        except ChildProcessError:
            return max(map(abs, statuses))


if __name__ == "__main__":
    sys.exit(main())
