"""What every benchmark is given: the peers, a directory of its own, and how often to run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NamedTuple

from scripts.benchmarks.peers import Peers

CONTESTANTS: Final = Path(__file__).parent / "contestants"
BIN: Final = Path(sys.executable).parent
DASKPKI: Final = BIN / "daskpki"
ENTRYPOINT: Final = BIN / "daskpki-entrypoint"


class Workshop(NamedTuple):
    """One run of the benchmarks; `directory` is empty, and is removed at the end."""

    peers: Peers
    directory: Path
    rounds: int

    def new_directory(self, name: str) -> Path:
        """A directory for one contestant's files."""
        path = self.directory / name
        path.mkdir(mode=0o700)
        return path
