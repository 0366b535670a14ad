"""`scripts/bench [NAME...]`: run the benchmarks and write docs/benchmarks.md, or print only those named."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.benchmarks import sealed
from scripts.benchmarks.booting import boot
from scripts.benchmarks.bulk import many_leaves
from scripts.benchmarks.enforcement import connections, small_tasks, transfers
from scripts.benchmarks.issuing import one_leaf
from scripts.benchmarks.peers import Peers
from scripts.benchmarks.readiness import scheduler_ready
from scripts.benchmarks.renewing import renewing
from scripts.benchmarks.report import Section, document, markdown
from scripts.benchmarks.revoking import revocation
from scripts.benchmarks.scale import at_scale
from scripts.benchmarks.startup import plain_client, start_up
from scripts.benchmarks.workshop import Workshop

BENCHMARKS: Final[dict[str, Callable[[Workshop], Section]]] = {
    "issue": one_leaf,
    "bulk": many_leaves,
    "boot": boot,
    "ready": scheduler_ready,
    "startup": start_up,
    "plain": plain_client,
    "renew": renewing,
    "scale": at_scale,
    "tasks": small_tasks,
    "transfers": transfers,
    "connections": connections,
    "revoke": revocation,
    "sealed-submits": sealed.submits,
    "sealed-tasks": sealed.small_tasks,
    "sealed-known": sealed.known,
    "sealed-executed": sealed.executed,
    "sealed-memory": sealed.memory,
}
REPORT: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all, written")
    parser.add_argument("--rounds", type=int, default=15, help="how often each contestant runs (default: 15)")
    parser.add_argument("--scratch", type=Path, help="keep the fetched peers here, to be used again")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    load = os.getloadavg()[0]
    sections = _run(options.names or list(BENCHMARKS), options.rounds, options.scratch)
    if not options.names:
        REPORT.write_text(document(sections, options.rounds, load))
        print(f"wrote {REPORT}", file=sys.stderr)


def _run(names: list[str], rounds: int, scratch: Path | None) -> list[Section]:
    sections = []
    with tempfile.TemporaryDirectory(prefix="daskpki-bench-") as temporary:
        kept = (scratch or Path(temporary) / "peers").absolute()
        kept.mkdir(parents=True, exist_ok=True)
        for name in names:
            print(f"running {name} ...", file=sys.stderr)
            directory = Path(temporary) / name
            directory.mkdir()
            sections.append(BENCHMARKS[name](Workshop(Peers(kept), directory, rounds)))
            print(markdown(sections[-1]), end="\n\n", flush=True)
    return sections


if __name__ == "__main__":
    main()
