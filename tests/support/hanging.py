"""A keyring backend that waits for a person who is not there, as a locked D-Bus service may."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.plaintext import Plaintext


class Hanging(Plaintext):
    """It hangs while it is chosen, and leaves its process's id, arguments and environment."""

    def __init__(self) -> None:
        seen = Path("/proc/self/cmdline").read_bytes() + Path("/proc/self/environ").read_bytes()
        Path(os.environ["HOME"], "hanging.seen").write_bytes(seen)
        Path(os.environ["HOME"], "hanging.pid").write_text(str(os.getpid()))
        while True:
            signal.pause()
