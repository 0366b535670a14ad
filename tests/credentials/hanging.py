"""A keyring backend that waits for a person who is not there, as a locked D-Bus service may."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.credentials.plaintext import Plaintext


class Hanging(Plaintext):
    """It hangs while it is chosen, and leaves its process's id."""

    def __init__(self) -> None:
        Path(os.environ["HOME"], "hanging.pid").write_text(str(os.getpid()))
        while True:
            signal.pause()
