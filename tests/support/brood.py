"""A parent with children for the tests of init: `python -m tests.support.brood LEAVE GRACE COMMAND...`, run by a shell.

It becomes their init as the boot does, and says on stdout what the init notes.
"""

from __future__ import annotations

import os
import signal
import sys

from daskpki.boot.init import WAITED_FOR, Init


def main() -> int:
    leave, grace, *commands = sys.argv[1:]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    children = {}
    for number, command in enumerate(commands, start=1):
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.execv("/bin/sh", ["sh", "-c", command])  # noqa: S606 - a shell is what it is
        children[child] = f"child{number}"
    # In one write each, so that no child's words come in between.
    init = Init(children, lambda text: os.write(1, f"{text}\n".encode()), leave=float(leave), grace=float(grace))
    return init.run()


if __name__ == "__main__":
    sys.exit(main())
